"""Tasks by name: what makes a task, and where its items come from. A member is imported when it is asked for."""

from __future__ import annotations

from himac_lite.config import TASKS
from himac_lite.errors import ConfigError, TaskError
from himac_lite.tasks import Item, Task


def task_of(name: str, max_steps: int, subgoal_budget: int) -> Task:
    """The task of this name. Raises `ConfigError` that lists the names, and `TaskError` where a package is missing."""
    try:
        if name == "sokoban":
            from himac_lite.tasks.sokoban.task import SokobanTask

            return SokobanTask(max_steps=max_steps, subgoal_budget=subgoal_budget)
        if name == "webshop":
            from himac_lite.tasks.webshop.task import WebShopTask

            return WebShopTask(max_steps=max_steps, subgoal_budget=subgoal_budget)
        if name == "alfworld":
            from himac_lite.tasks.alfworld.task import AlfworldTask

            return AlfworldTask(max_steps=max_steps, subgoal_budget=subgoal_budget)
    except ModuleNotFoundError as error:
        raise _missing(name, error) from None
    raise _unknown(name)


def load_items(name: str, source: str, part: str | None = None) -> list[Item]:
    """Items of a task from a split (``core/test``; ``core`` with `part` given) or a file of its own kind.

    Raises `HimacError`s with one clear line.
    """
    try:
        if name == "sokoban":
            from himac_lite.tasks.sokoban.levels import load_levels

            return list(load_levels(source, part))
        if name == "webshop":
            from himac_lite.tasks.webshop import task as webshop

            return list(webshop.load(source, part))
        if name == "alfworld":
            from himac_lite.tasks.alfworld import task as alfworld

            return list(alfworld.load(source, part))
    except ModuleNotFoundError as error:
        raise _missing(name, error) from None
    raise _unknown(name)


def _missing(name: str, error: ModuleNotFoundError) -> TaskError:
    return TaskError(f"{error.name} is not installed: pip install 'himac-lite[{name}]'")


def _unknown(name: str) -> ConfigError:
    return ConfigError(f"unknown task {name!r}; choose one of {', '.join(TASKS)}")
