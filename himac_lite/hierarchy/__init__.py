"""Variants as values, `Hierarchy(...)`, and the presets. docs/cookbook.md has a recipe for each axis."""

import warnings

from himac_lite.hierarchy.axes import (
    ALTERNATE,
    EXECUTOR_ONLY,
    JOINT,
    ORACLE,
    PHASES,
    PLANNER_ONLY,
    BySegment,
    SameState,
    by_difference,
    by_trajectory,
    choose_best,
    choose_oracle,
    choose_random,
    choose_softmax,
    everywhere,
    gain_over_flat,
    greedy_executor,
    judged_by,
    mean_of,
    mixed,
    turns,
)
from himac_lite.hierarchy.presets import FIXED_STEPS, PRESETS, choose, in_words, preset
from himac_lite.hierarchy.variant import EACH, ONE, PER_PHASE, SHARED, Hierarchy
from himac_lite.rollout.rules import (
    ABORT,
    END,
    KEEP,
    NEXT,
    REPLAN,
    SELF_ENDED,
    Ending,
    Fallback,
    Rules,
    active_segment,
    as_read,
    as_written,
    distance_decrease,
    fixed_steps,
    full_history,
    reached_by_world,
    subgoal_bonus,
    verified,
    whole_plan,
)

__all__ = [
    "Hierarchy", "PRESETS", "preset", "choose", "in_words", "FIXED_STEPS",
    "ONE", "EACH", "SHARED", "PER_PHASE", "everywhere", "by_difference",
    "ALTERNATE", "JOINT", "PLANNER_ONLY", "EXECUTOR_ONLY", "PHASES", "turns",
    "greedy_executor", "mean_of", "gain_over_flat", "judged_by",
    "choose_best", "choose_random", "choose_softmax", "choose_oracle", "ORACLE",
    "as_written",
    "Ending", "SELF_ENDED", "fixed_steps", "verified",
    "Fallback", "NEXT", "ABORT", "REPLAN", "END", "KEEP", "reached_by_world",
    "subgoal_bonus", "distance_decrease",
    "by_trajectory", "BySegment", "SameState", "mixed", "as_read",
    "active_segment", "whole_plan", "full_history",
    "Rules",
]  # fmt: skip


_RENAMED = {"SUB_DONE": "SELF_ENDED", "PLANNER": "PLANNER_ONLY", "EXECUTOR": "EXECUTOR_ONLY"}


def __getattr__(name: str) -> object:
    if name not in _RENAMED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(f"hierarchy.{name} is now hierarchy.{_RENAMED[name]}", DeprecationWarning, stacklevel=2)
    return globals()[_RENAMED[name]]
