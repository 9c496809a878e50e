"""The levels of a run: those of each part, those that are long enough, and the curriculum."""

from __future__ import annotations

from collections.abc import Sequence

from himac_lite.config import Train
from himac_lite.errors import ConfigError
from himac_lite.runs.checkpoints import Say
from himac_lite.tasks import Task, World
from himac_lite.tasks.registry import lengths, load_items
from himac_lite.types import Item


def read_levels(config: Train, world: World) -> dict[str, list[Item]]:
    """The levels of each part. Raises `ConfigError` if there is none to train on."""
    levels = {part: load_items(world, name, part) for part, name in level_sets(config).items()}
    levels["test"] = levels["test"][: config.test_limit]
    if not levels["train"]:
        raise ConfigError(f"{config.train_levels} has no level to train on")
    return levels


def long_enough(config: Train, task: Task, levels: list[Item], say: Say) -> list[Item]:
    """The levels to train on. Their optimal lengths are found only if a setting asks for them.

    Raises `ConfigError` if no level has `rollout.min_length`.
    """
    least = config.rollout.min_length
    if not least and not config.rollout.curriculum:
        return levels
    known = list(lengths(task, levels, say))
    if unknown := known.count(0):
        say(f"{unknown} of {len(levels)} levels of {config.train_levels} have no known solution")
    if not (found := [level for level, length in zip(levels, known, strict=True) if length >= least]):
        raise ConfigError(f"no level of {config.train_levels} has {least} optimal moves or more")
    return found


def level_sets(config: Train) -> dict[str, str]:
    """Part → the split or file that a run takes it from."""
    return {"train": config.train_levels, "validation": config.validation_levels, "test": config.test_levels}


def curriculum(levels: Sequence[Item], task: Task, share: float, progress: float) -> Sequence[Item]:
    """The levels that training may draw from when `progress` of the budget is spent.

    Bins of optimal length are added one by one, the shortest first, evenly over the first `share` of the budget. Levels
    without a known length join with the last bin.
    """
    if not share:
        return levels
    known = [task.difficulty(level) for level in levels]
    bins = [b for b in task.bins if any(max(1, b[0]) <= n <= b[1] for n in known)]
    if (last := int(len(bins) * progress / share)) >= len(bins) - 1:
        return levels
    return [level for level, n in zip(levels, known, strict=True) if 0 < n <= bins[last][1]]
