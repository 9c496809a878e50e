"""Groups: how they are formed, their returns as arrays, and their metrics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from himac_lite.advantage import zero_variance
from himac_lite.types import Blueprint, Group, Item, Trajectory


def grouped(levels: Sequence[Item], done: Sequence[Trajectory]) -> list[Group]:
    """One group per level, from equally many trajectories of each, in the order of the levels."""
    n = len(done) // max(1, len(levels))
    return [Group(level, tuple(done[p * n : (p + 1) * n])) for p, level in enumerate(levels)]


def repeated(levels: Sequence[Item], plans: Sequence[Blueprint | None], n: int) -> list[tuple[Item, Blueprint | None]]:
    """`n` jobs for each level and its blueprint."""
    return [(level, z) for level, z in zip(levels, plans, strict=True) for _ in range(n)]


def scores_of(groups: Sequence[Group]) -> np.ndarray:
    """Returns of the episodes, float64 [P, G]."""
    return np.array([[t.ret for t in group.trajectories] for group in groups])


def returns_of(groups: Sequence[Group]) -> np.ndarray:
    """Returns of the episodes plus the gains of the executor's potential, float64 [P, N]."""
    return np.array([[t.ret + sum(t.gains) for t in group.trajectories] for group in groups])


def summary(level: str, groups: Sequence[Group], return_pn: np.ndarray) -> dict[str, float]:
    """Metrics of the groups of one policy level (macro, middle, micro), defined in docs/metrics.md.

    return_pn: [P, N] returns that the advantages were computed from.
    """
    solved_pn = np.array([[t.success for t in group.trajectories] for group in groups])
    trajectories = [t for group in groups for t in group.trajectories]
    plans = [t.blueprint for t in trajectories if t.blueprint is not None]
    means = {
        "return": return_pn.mean(),
        "success": solved_pn.mean(),
        "zero_variance": zero_variance(return_pn).mean(),
        "any_success": solved_pn.any(1).mean(),
        "steps": np.mean([t.steps for t in trajectories]),
    }
    if plans:
        means["blueprint_valid"] = np.mean([z.invalid is None for z in plans])
        means["blueprint_length"] = np.mean([len(z.subgoals) for z in plans])
    return {f"{level}/{name}": float(value) for name, value in means.items()}
