"""Scripted players as a baseline: what the demonstrators themselves score, in the environment and not in a twin.

The expert of a shop knows the catalogue, which no agent does; that of a household looks where things usually are. Both
are upper marks for what pretraining can teach; the beginners are the lower ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from himac_lite.errors import ConfigError
from himac_lite.rollout.rules import ReturnRule
from himac_lite.tasks import Episode, Item
from himac_lite.tasks.text import written_plan
from himac_lite.types import Trajectory


def play_scripted(
    task: str, items: Sequence[Item], who: str = "expert", seed: int = 0, returns: ReturnRule = ReturnRule()
) -> list[Trajectory]:
    """One episode an item by a scripted player: `expert` or a kind of beginner (see `webshop.players` and the other).

    Raises `ConfigError` for a task without scripts, or for items that no script can know (a running shop's).
    """
    rng = np.random.default_rng(seed)
    play = {"webshop": _shop, "alfworld": _keep_house}.get(task)
    if play is None:
        raise ConfigError(f"task {task!r} has no scripted players; choose webshop or alfworld")
    out = []
    for item in items:
        episode, plan = play(item, who, rng)
        out.append(
            Trajectory(
                written_plan(plan), (), episode.moves, returns(episode), episode.success, episode.steps, (),
                episode.progress, episode.transcript,
            )
        )  # fmt: skip
    return out


def _shop(item: Item, who: str, rng: np.random.Generator) -> tuple[Episode, list[str]]:
    from himac_lite.pretraining.webshop import plan_by, play
    from himac_lite.tasks.webshop.task import ShopGoal, WebShopTask

    if not isinstance(item, ShopGoal):
        raise ConfigError(f"no script can shop for {item.title!r}: a running shop hides its goals")
    episode, plan = WebShopTask().start(item), plan_by(who, item, item.noun, rng)
    for goal in plan:
        play(episode, goal, rng)
    return episode, plan


def _keep_house(item: Item, who: str, rng: np.random.Generator) -> tuple[Episode, list[str]]:
    from himac_lite.pretraining.alfworld import plan_by, play
    from himac_lite.tasks.alfworld.task import MAX_STEPS, AlfworldTask, HouseGame
    from himac_lite.tasks.alfworld.twin import Twin

    if not isinstance(item, HouseGame):
        raise ConfigError(f"no script can play {item.title!r}: scripts know our own houses")
    plan = plan_by(who, item.house, rng)
    steps = play(Twin(item.house), plan, rng, aimless=who == "aimless")
    episode = AlfworldTask().start(item)
    for step in steps[:MAX_STEPS]:
        if not episode.over:
            episode.act(step.action)
    return episode, plan
