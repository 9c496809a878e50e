"""`himac-lite bench worlds`: steps and episodes per second of WebShop and ALFWorld, one at a time, on one core.

The reference in the same run is Sokoban's text task. The cost of an environment decides how many steps a budget buys.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import tempfile
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from himac_lite.bench import Figure, Report, machine, measure, ratio
from himac_lite.config import Train
from himac_lite.errors import TaskError
from himac_lite.rollout.evaluate import play_random
from himac_lite.tasks import Item, Task
from himac_lite.tasks.registry import for_task, load_items, task_of


def bench(*, runs: int = 5, quick: bool = False) -> Report:
    """Random play in each world; ALFWorld only if its engine is installed."""
    count = 2 if quick else 16
    figures: list[Figure] = []
    for name, source in (("sokoban", "core/validation"), ("webshop", "webshop/validation")):
        figures += _task(name, source, count, runs)
    figures.append(ratio("Sokoban beside WebShop, steps", figures[0], figures[2]))
    try:
        figures += _task("alfworld", "household/validation", min(count, 8), runs)
        figures.append(ratio("WebShop beside ALFWorld, steps", figures[2], figures[-2]))
        figures += _engine(10 if quick else 40, runs)
    except TaskError as error:
        figures.append(Figure("ALFWorld", "steps", float("nan"), note=str(error)))
    return Report("worlds", tuple(figures), machine())


def _task(name: str, source: str, count: int, runs: int) -> list[Figure]:
    config = for_task(Train(), name)
    task = task_of(name, config.rollout.max_steps, config.rollout.subgoal_budget)
    items = load_items(name, source)[:count]
    return [
        measure(f"{name}, random play", "steps", lambda: _steps(task, items), runs, "with the episodes' beginnings"),
        measure(f"{name}, episodes begun", "episodes", lambda: _starts(task, items), runs, "loading included"),
    ]


def _engine(steps: int, runs: int) -> list[Figure]:
    """The engine alone, original and quickened, in another process because the patch cannot be undone."""
    from himac_lite.tasks.alfworld.task import our_games

    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        told = our_games("validation")[0].told()
        plain, quickened = pool.submit(_both_ways, told, steps, runs).result()
    return [plain, quickened, ratio("engine quickened beside plain, steps", quickened, plain)]


def _both_ways(told: Mapping[str, Any], steps: int, runs: int) -> tuple[Figure, Figure]:
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("ALFWORLD_DATA", folder)  # importing the engine creates this folder
        from himac_lite.tasks.alfworld.quick import quicken
        from himac_lite.tasks.alfworld.server import Game

        game = Game(told)

        def play() -> float:
            choose = random.Random(0).choice
            for _ in range(steps):
                game.answer({"act": choose(game.state["admissible_commands"])})
            return float(steps)

        plain = measure("engine, as it comes", "steps", play, runs, "one game, in its own process")
        quicken()
        return plain, measure("engine, quickened", "steps", play, runs)


def _steps(task: Task, items: list[Item]) -> float:
    return float(sum(t.steps for t in play_random(task, items, 0)))


def _starts(task: Task, items: list[Item]) -> float:
    for item in items:
        task.start(item)
    return float(len(items))
