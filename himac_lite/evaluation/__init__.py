"""Scores of runs and grids of runs: `scores`, `prompting`, `intervals`, and `reproduce` (the paper's tables)."""
