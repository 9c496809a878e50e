"""Tasks by name. A shipped world's module is imported when the world is asked for."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from importlib import import_module
from typing import Any

from himac_lite.config import Train, override
from himac_lite.errors import ConfigError, TaskError, checked
from himac_lite.from_file import Chosen, load
from himac_lite.tasks import Item, Task, World

WORLDS = {name: f"himac_lite.tasks.{name}.task" for name in ("sokoban", "webshop", "alfworld")}
"""Name of a shipped task → the module that has its `WORLD`."""


@checked
def world(which: str | World) -> World:
    """A shipped world by name, or the world itself.

    Raises `ConfigError` that lists the names, and `TaskError` for a missing package.
    """
    if isinstance(which, World):
        return which
    if which not in WORLDS:
        raise ConfigError(f"unknown task {which!r}; choose one of {', '.join(WORLDS)}, or FILE.py:NAME of your own")
    with _installed(which):
        found: World = import_module(WORLDS[which]).WORLD
    return found


@checked
def choose(given: World | str | None, default: str) -> Chosen[World]:
    """The world that is meant: a value, ``FILE.py:NAME``, a shipped one's name, or without any the one named `default`.

    `default` may come from a manifest, so it never names a file. Raises `ConfigError` with one line.
    """
    origin: dict[str, str] = {}
    if isinstance(given, str) and ":" in given:
        given, origin = load(given, World)
    if not isinstance(given, World):
        return Chosen(given or default, world(given or default))
    if given.name not in WORLDS:
        return Chosen(given.name, given, origin | {"value": given.name})
    if given != world(given.name):
        raise ConfigError(f"{given.name} is a shipped task; give yours another name")
    return Chosen(given.name, given)


@checked
def task_of(which: str | World, max_steps: int, subgoal_budget: int) -> Task:
    """The task of a world. Raises as `world` does."""
    found = world(which)
    with _installed(found.name):
        return found.make(max_steps, subgoal_budget)


@checked
def load_items(which: str | World, source: str | os.PathLike[str], part: str | None = None) -> list[Item]:
    """Items of a world from a split (``core/test``; ``core`` with `part` given) or a file of the world's own kind.

    Raises `HimacError`s with one clear line.
    """
    found = world(which)
    with _installed(found.name):
        return list(found.load(os.fspath(source), part))


def lengths(task: Task, items: Sequence[Item], say: Callable[[str], None]) -> Iterator[int]:
    """`Task.difficulty` of each item. say: called with a line every five seconds, because a task may have to search."""
    begun = told = time.monotonic()
    for number, item in enumerate(items, 1):
        yield task.difficulty(item)
        if (now := time.monotonic()) - told > 5:
            say(f"finding optimal lengths: {number} of {len(items)} in {now - begun:.0f} s; a level file can name them")
            told = now


@checked
def for_task(config: Train, which: str | World) -> Train:
    """The configuration with a task and its settings; what a preset sets to another value than the default stays.

    Raises `ConfigError` that lists the tasks, or names a setting that does not exist.
    """
    found, default = world(which), Train()
    config = override(config, "task", found.name)
    for path, value in found.settings.items():
        text = value if isinstance(value, str) else json.dumps(value, default=str)
        changed = override(config, path, text)
        if _setting(config, path) == _setting(default, path):
            config = changed
    return config


def _setting(config: Train, path: str) -> Any:
    return reduce(getattr, path.split("."), config)


@contextlib.contextmanager
def _installed(name: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        extra = f"'himac-lite[{name}]'" if name in WORLDS else error.name
        raise TaskError(f"{error.name} is not installed: pip install {extra}") from None
