"""Scripted players as a baseline: what the demonstrators themselves score, in the environment and not in a twin.

The expert of a shop knows the catalogue, which no agent does; that of a household looks where things usually are. Both
are upper bounds for what pretraining can teach; the beginners are the lower ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from himac_lite.config import Train
from himac_lite.errors import ConfigError
from himac_lite.pretraining.driver import recipe_of
from himac_lite.rollout.rules import ReturnRule
from himac_lite.tasks import Item
from himac_lite.tasks.registry import for_task, task_of
from himac_lite.types import Trajectory


def play_scripted(
    task: str, items: Sequence[Item], who: str = "expert", seed: int = 0, returns: ReturnRule = ReturnRule()
) -> list[Trajectory]:
    """One flat episode an item by a scripted player: one of `Recipe.players` of the task.

    Raises `ConfigError` for another player, or for items that no script can know (a running shop's).
    """
    recipe, settings, rng = recipe_of(task), for_task(Train(), task).rollout, np.random.default_rng(seed)
    if who not in recipe.players:
        raise ConfigError(f"task {task!r} has no scripted player {who!r}; choose one of {', '.join(recipe.players)}")
    world = task_of(task, settings.max_steps, settings.subgoal_budget)
    out = []
    for item in items:
        solution, episode = recipe.solution(item, rng, who), world.start(item)
        for action in solution.flat[: world.max_steps]:
            if not episode.over:
                episode.act(action)
        out.append(
            Trajectory(
                solution.blueprint, (), episode.moves, returns(episode), episode.success, episode.steps, (),
                episode.progress, episode.transcript,
            )
        )  # fmt: skip
    return out
