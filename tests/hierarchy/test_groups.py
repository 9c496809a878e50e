"""Groups, their returns and their metrics, by hand."""

from __future__ import annotations

import pytest

from himac_lite.hierarchy.groups import grouped, repeated, returns_of, scores_of, summary
from himac_lite.types import Blueprint, Group, Invalid, Level, SubGoal, Trajectory

EASY, HARD = Level(("#####", "#@$.#", "#####")), Level(("######", "#@$ .#", "######"))
GOALS = tuple(map(SubGoal, ("first", "second")))
TWO, ONE, NONE = Blueprint("12", GOALS), Blueprint("1", GOALS[:1]), Blueprint("?", (), Invalid.SYNTAX)


def trajectory(z: Blueprint | None, ret: float, steps: int, *gains: float) -> Trajectory:
    return Trajectory(z, (), "", ret, ret == 1.0, steps, gains=gains)


EASY_GROUP = Group(EASY, (trajectory(TWO, 1.0, 3, 0.25, 0.5), trajectory(ONE, 0.0, 5)))
HARD_GROUP = Group(HARD, (trajectory(NONE, 0.5, 4), trajectory(ONE, 0.5, 8, 0.25)))
BOTH = [EASY_GROUP, HARD_GROUP]


def test_scores_leave_gains_out_and_returns_add_them():
    assert scores_of(BOTH).tolist() == [[1.0, 0.0], [0.5, 0.5]]
    assert returns_of(BOTH).tolist() == [[1.75, 0.0], [0.5, 0.75]]


def test_the_summary_of_scores():
    assert summary("macro", BOTH, scores_of(BOTH)) == {
        "macro/return": 0.5,  # (1 + 0 + ½ + ½) / 4
        "macro/success": 0.25,  # one of four
        "macro/zero_variance": 0.5,  # the second group
        "macro/any_success": 0.5,  # the first group
        "macro/steps": 5.0,  # (3 + 5 + 4 + 8) / 4
        "macro/blueprint_valid": 0.75,
        "macro/blueprint_length": 1.0,  # (2 + 1 + 0 + 1) / 4
    }


def test_the_summary_of_returns_differs_by_the_gains():
    found, scores = summary("micro", BOTH, returns_of(BOTH)), summary("micro", BOTH, scores_of(BOTH))
    assert found["micro/return"] == 0.75  # (1.75 + 0 + ½ + ¾) / 4
    assert found["micro/zero_variance"] == 0.0  # the gain makes the second group differ
    assert {name for name in found if found[name] != scores[name]} == {"micro/return", "micro/zero_variance"}


def test_flat_play_has_no_metrics_of_blueprints():
    flat = [Group(EASY, (trajectory(None, 1.0, 1), trajectory(None, 0.0, 2)))]
    assert set(summary("micro", flat, scores_of(flat))) == {
        "micro/return", "micro/success", "micro/zero_variance", "micro/any_success", "micro/steps",
    }  # fmt: skip


def test_trajectories_are_grouped_in_the_order_of_repeated_jobs():
    jobs = repeated([EASY, HARD], [TWO, None], 2)
    assert jobs == [(EASY, TWO), (EASY, TWO), (HARD, None), (HARD, None)]
    assert grouped([EASY, HARD], [*EASY_GROUP.trajectories, *HARD_GROUP.trajectories]) == BOTH
    with pytest.raises(ValueError, match="zip"):
        repeated([EASY, HARD], [TWO], 2)
