"""A run folder in the recorded format, made by hand: what widgets, plots and notebooks are tested on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from conftest import planned

from himac_lite.advantage import group_advantage
from himac_lite.config import TRAIN_PRESETS
from himac_lite.runs import folder as runs
from himac_lite.runs.records import macro_record, micro_record
from himac_lite.tasks.sokoban.language import parse_blueprint
from himac_lite.types import Blueprint, End, Group, Level, Role, TokenSequence, Trajectory

LEVEL = Level(("######", "#@$ .#", "######"), "toy 1", 2, 2)
"""Two pushes to the right solve it. Cell numbers (row × 6 + column): player 7, box 8, target 10."""
GOOD = "\npush the box at (1,2) right to (1,4)"
HALF = "\npush the box at (1,2) right to (1,3)\npush the box at (1,3) right to (1,4)"
EVIL = "\n<img src=x onerror=alert(1)>"
WORDS = [
    "<plan>",
    "\npush the box at ",
    "(1,2)",
    " right to ",
    "(1,4)",
    "<end>",
    "\nright",
    " pushed (1,2)",
    "<sub_done>",
]


def _plan(text: str) -> TokenSequence:
    return TokenSequence(Role.PLANNER, (0, 1, 2, 3, 4, 5), 1, (False, *[True] * 5), (0.0, *[-0.1] * 5), End.PLAN, text)


def _segment(end: End) -> TokenSequence:
    return TokenSequence(Role.EXECUTOR, (0, 6, 7, 8), 1, (False, True, False, True), (0.0, -0.2, 0.0, -0.3), end, "")


def _episode(plan: Blueprint | None, moves: str, ends: dict[End, int]) -> Trajectory:
    """ends: how each segment ended and after how many moves."""
    won = End.SUCCESS in ends
    return Trajectory(plan, tuple(map(_segment, ends)), moves, float(won), won, len(moves), tuple(ends.values()))


def records() -> list[dict]:
    """Two levels: returns 1 0 0 0 and, for z*, 1 1 0 0; then a level on which everything fails."""
    good, half, evil = parse_blueprint(GOOD), parse_blueprint(HALF), parse_blueprint(EVIL)
    win = _episode(good, "RR", {End.SUCCESS: 2})
    fail = _episode(good, "Rl", {End.BUDGET: 2})
    early = _episode(half, "R", {End.SUB_DONE: 1})
    bad = _episode(evil, "", {})
    plans = tuple(map(_plan, (GOOD, HALF, GOOD, EVIL)))
    macro = planned(LEVEL, plans, (win, early, fail, bad)), planned(LEVEL, plans, (fail, early, fail, bad))
    micro = Group(LEVEL, (win, win, fail, fail)), Group(LEVEL, (fail, fail, fail, fail))
    out = []
    for group, below in zip(macro, micro, strict=True):
        above_n = group_advantage([[t.ret for t in group.trajectories]])[0]
        below_n = group_advantage([[t.ret for t in below.trajectories]])[0]
        out.append(
            {"level": LEVEL.text, "title": LEVEL.title, "optimal_moves": 2,
             "macro": macro_record(group, list(above_n), 0, lambda ids: WORDS[ids[0]]),
             "micro": micro_record(below, list(below_n), lambda ids: WORDS[ids[0]])}
        )  # fmt: skip
    return out


def score(success: float) -> dict:
    return {"success": success, "ci95": [success - 0.1, success + 0.1], "n": 50, "by_length": {}, "mean_steps": 20.0}


RESULTS = {
    "levels": "core/test", "mode": "himac", "iterations": 2, "env_steps": 2000, "tokens": 5, "seconds": 60.0,
    "base": score(0.3), "random": score(0.1), "trained": score(0.6),
}  # fmt: skip


def make_run(folder: Path, results: bool = True) -> runs.Run:
    """A run folder in the recorded format: two iterations, in the first of which every group fails."""
    run = runs.create_run(folder, replace(TRAIN_PRESETS["quick"], iterations=2), {"train": [LEVEL]})
    run.append_metrics({"iteration": 0, "validation/success": 0.25, "validation/n": 8})
    for i, (macro, micro) in enumerate([(0.2, 0.4), (0.4, 0.8)], start=1):
        line = {"macro/success": macro, "micro/success": micro, "macro/zero_variance": 0.5, "micro/zero_variance": 0.25}
        run.append_metrics({"iteration": i, "env_steps": 1000 * i, "tokens": 5, "seconds": 30.0 * i, **line})
    run.record(1, [records()[1]])
    run.record(2, records())
    if results:
        run.write_results(RESULTS)
    return run
