"""The middle of three levels: the planner again, dividing each sub-goal of z* when its turn comes.

The action of this level is a blueprint for one sub-goal: the planner reads the board as it is at that moment, with the
sub-goal where an executor reads it, and writes the sub-goals that the executor is told. The top level decides what is
reached, the middle one by which steps, the bottom one how to move. All three write the same language; the base model
has never seen a planner's prompt with a sub-goal and has to learn to use it.
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
"""(level of the hierarchy, credited groups) → one update."""


def divide_plans(
    arena: Arena, hierarchy: Hierarchy, levels: Sequence[Item], plans: Sequence[Blueprint | None], n: int, learn: Learn
) -> tuple[list[Blueprint | None], dict[str, float]]:
    """Sample and learn `n` divisions of each level's z*, executed greedily.

    Returns the best division of each z*, as a blueprint for the executor, and the means of the groups for the log.
    """
    groups = grouped(levels, arena.play(repeated(levels, plans, n), GREEDY, arena.sampling))
    return_pm = scores_of(groups)
    learn("middle", credit_divisions(groups, hierarchy.advantages("macro", return_pm)))
    best_p = hierarchy.pick(return_pm, arena.sampling.generator)
    told = [z if m < 0 else as_told(g.trajectories[m]) for z, g, m in zip(plans, groups, best_p, strict=True)]
    return told, summary("middle", groups, return_pm)


def divided(arena: Arena) -> Arena:
    """The same arena for blueprints that are divided already."""
    return replace(arena, rules=replace(arena.rules, tactics=False, form=as_written))


def as_told(trajectory: Trajectory) -> Blueprint:
    """The sub-goals that the executor of a trajectory was told, as a blueprint of its own."""
    return Blueprint("".join(f"\n{goal.text}" for goal in trajectory.told), trajectory.told)
