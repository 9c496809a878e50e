"""Sokoban: rules, levels, solver, rendering and Gymnasium environment. Usable with no model at all."""

from __future__ import annotations

ENV_ID = "himac_lite/Sokoban-v0"


def register_envs() -> None:
    """Register ``himac_lite/Sokoban-v0`` for `gymnasium.make` and `make_vec`. A second call does nothing."""
    import gymnasium

    if ENV_ID not in gymnasium.registry:  # by name: importing the environments imports NumPy
        gymnasium.register(
            ENV_ID, f"{__name__}.env:SokobanEnv", vector_entry_point=f"{__name__}.vector:SokobanVectorEnv"
        )
