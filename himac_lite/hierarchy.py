"""A hierarchy variant as a value: the trainer knows these axes, not names.

Axes that are open so far: whether there is a planner, the schedule of the updates, the choice of z*, and the
advantage of each level.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from himac_lite import advantage
from himac_lite.errors import ConfigError

Advantage = Callable[[np.ndarray], np.ndarray]
"""Returns [P, N] → advantages [P, N]."""
Choice = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""Macro returns [P, G] → index of z* [P]."""

ALTERNATE, JOINT = "alternate", "joint"


def choose_best(return_pg: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """z* is the blueprint with the highest return (HiMAC)."""
    return advantage.best(return_pg)


def choose_random(return_pg: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The ablation 'random blueprint instead of z*'."""
    return rng.integers(0, return_pg.shape[1], return_pg.shape[:1])


@dataclass(frozen=True)
class Hierarchy:
    """A variant. Impossible combinations raise `ConfigError` when the value is made."""

    planner: bool = True
    """False: flat play, one trajectory group a level and no blueprint."""
    schedule: str = ALTERNATE
    """alternate: phase A updates the planner, then phase B the executor that faces the new planner's z*'s; joint: one
    update of both on the rollouts of the same weights."""
    choose: Choice = choose_best
    """How z* is chosen from the macro group."""
    macro_advantage: Advantage = advantage.group_advantage
    """Planner's credit."""
    micro_advantage: Advantage = advantage.group_advantage
    """Executor's (or flat player's) credit."""

    def __post_init__(self) -> None:
        if self.schedule not in (ALTERNATE, JOINT):
            raise ConfigError(f"schedule must be {ALTERNATE!r} or {JOINT!r}, not {self.schedule!r}")
        if not self.planner and self.schedule == JOINT:
            raise ConfigError("planner=False clashes with schedule='joint': there is only one policy to update")


PRESETS: dict[str, Hierarchy] = {
    "himac": Hierarchy(),
    "random_blueprint": Hierarchy(choose=choose_random),
    "joint_update": Hierarchy(schedule=JOINT),
    "flat_grpo": Hierarchy(planner=False),
}


def preset(name: str) -> Hierarchy:
    """A preset by name; `ConfigError` lists the names."""
    if name not in PRESETS:
        raise ConfigError(f"unknown variant {name!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
