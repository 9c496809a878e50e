"""`himac-lite bench worlds`: steps and episodes a second of WebShop and ALFWorld, one at a time, on one core.

What stands beside them is Sokoban's text task in the same run: what an environment costs decides what a budget buys.
"""

from __future__ import annotations

from himac_lite.bench import Figure, Report, machine, measure, ratio
from himac_lite.config import Train, for_task
from himac_lite.errors import TaskError
from himac_lite.evaluation import play_random
from himac_lite.tasks import Item, Task
from himac_lite.tasks.registry import load_items, task_of


def bench(*, runs: int = 5, quick: bool = False) -> Report:
    """Random play; ALFWorld where its engine is installed."""
    count = 2 if quick else 16
    figures: list[Figure] = []
    for name, source in (("sokoban", "core/validation"), ("webshop", "webshop/validation")):
        figures += _task(name, source, count, runs)
    figures.append(ratio("Sokoban beside WebShop, steps", figures[0], figures[2]))
    try:
        figures += _task("alfworld", "household/validation", min(count, 8), runs)
        figures.append(ratio("WebShop beside ALFWorld, steps", figures[2], figures[-2]))
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


def _steps(task: Task, items: list[Item]) -> float:
    return float(sum(t.steps for t in play_random(task, items, 0)))


def _starts(task: Task, items: list[Item]) -> float:
    for item in items:
        task.start(item)
    return float(len(items))
