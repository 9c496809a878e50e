"""The middle level at depth 3: the planner divides each sub-goal of z* at its turn.

A division is a blueprint for one sub-goal. The planner reads the current state and the sub-goal, and writes the
sub-goals that the executor follows. All levels write the same language. The base model has never seen a planner's
prompt with a sub-goal, so it has to learn divisions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from himac_lite.hierarchy.credit import credit_divisions
from himac_lite.hierarchy.groups import grouped, repeated, scores_of, summary
from himac_lite.hierarchy.variant import Hierarchy
from himac_lite.rollout.rules import as_written
from himac_lite.types import GREEDY, Blueprint, Credited, Item, Trajectory

if TYPE_CHECKING:
    from himac_lite.rollout.play import Arena

Learn = Callable[[str, Sequence[Sequence[Credited]]], None]
"""(name of the policy level, credited groups) → one update."""


def divide_plans(
    arena: Arena, hierarchy: Hierarchy, levels: Sequence[Item], plans: Sequence[Blueprint | None], n: int, learn: Learn
) -> tuple[list[Blueprint | None], dict[str, float]]:
    """Sample `n` divisions of each z*, execute them greedily, and learn from their returns.

    Returns the best division of each z*, as a blueprint for the executor, and the metrics of the groups.
    """
    groups = grouped(levels, arena.play(repeated(levels, plans, n), GREEDY, arena.sampling))
    return_pm = scores_of(groups)
    learn("middle", credit_divisions(groups, hierarchy.advantages("macro", return_pm)))
    best_p = hierarchy.pick(return_pm, arena.sampling.generator)
    told = [z if m < 0 else as_told(g.trajectories[m]) for z, g, m in zip(plans, groups, best_p, strict=True)]
    return told, summary("middle", groups, return_pm)


def divided(arena: Arena) -> Arena:
    """The same arena for blueprints that are already divided."""
    return replace(arena, rules=replace(arena.rules, tactics=False, form=as_written))


def as_told(trajectory: Trajectory) -> Blueprint:
    """The sub-goals of a trajectory's segments, as a blueprint."""
    return Blueprint("".join(f"\n{goal.text}" for goal in trajectory.told), trajectory.told)
