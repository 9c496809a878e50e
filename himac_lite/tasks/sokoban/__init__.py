"""Sokoban: rules, levels, solver, rendering and Gymnasium environment. Usable with no model at all."""
