"""Prompting-only baselines: what counts, and what it costs."""

from __future__ import annotations

import numpy as np
from conftest import ScriptedPolicy

from himac_lite.evaluation.prompting import best_of, retry, step_by_step
from himac_lite.tasks.sokoban.task import SokobanTask
from himac_lite.types import Level

CORRIDOR = Level(("#######", "#@$  .#", "#######"))
FAR = "\npush the box at (1,2) right to (1,5)<end>"
NEAR = "\npush the box at (1,2) right to (1,3)<end>"
TASK = SokobanTask(max_steps=4)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_once_with_and_without_a_blueprint():
    (flat,) = step_by_step(ScriptedPolicy("\nright\nright\nright"), TASK, [CORRIDOR], rng())
    assert (flat.final.success, flat.tries, flat.env_steps, flat.tokens) == (True, 1, 3, 3)
    policy = ScriptedPolicy(FAR, "\nright\nright\nright")
    (planned,) = best_of(1)(policy, TASK, [CORRIDOR], rng())
    assert (planned.final.success, planned.tries, planned.env_steps, planned.tokens) == (True, 1, 3, 5 + 3)
    assert [c["temperature"] for c in policy.calls] == [0, 0]


def test_the_best_of_several_blueprints_costs_all_of_them():
    policy = ScriptedPolicy(NEAR, FAR, "<end>", "\nright<sub_done>", "\nright\nright\nright")
    (best,) = best_of(3)(policy, TASK, [CORRIDOR], rng())
    assert (best.final.success, best.tries, best.env_steps) == (True, 3, 1 + 3)
    assert best.tokens == (5 + 5 + 1) + 2 + 3
    assert [c["temperature"] for c in policy.calls] == [1.0, 0]


def test_after_a_failure_another_blueprint():
    policy = ScriptedPolicy(
        NEAR, "\nright<sub_done>",  # greedy, and it fails
        NEAR, NEAR, "<end>", FAR,  # NEAR has failed: the next is the unreadable one, of which nothing is played
        NEAR, "<end>", FAR, NEAR, "\nright\nright\nright",
    )  # fmt: skip
    (tried,) = retry(5)(policy, TASK, [CORRIDOR], rng())
    assert policy.unused == 0
    assert (tried.final.success, tried.tries, tried.env_steps) == (True, 3, 1 + 0 + 3)
    assert tried.tokens == (5 + 2) + (5 + 5 + 1 + 5) + (5 + 1 + 5 + 5 + 3)
    assert [c["temperature"] for c in policy.calls if c["rows"] == 4] == [1.0, 1.0]


def test_a_level_that_is_solved_is_left_alone():
    right = "\nright\nright\nright"
    policy = ScriptedPolicy(FAR, NEAR, right, "<sub_done>", *[NEAR] * 4, "<sub_done>")
    solved, failed = retry(2)(policy, TASK, [CORRIDOR, CORRIDOR], rng())
    assert policy.unused == 0
    assert (solved.tries, solved.final.success) == (1, True)
    assert (failed.tries, failed.final.success) == (2, False)  # nothing new was drawn: the last one, again
