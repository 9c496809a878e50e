"""Signs that a run has stopped to learn: counted in a row, said with what to change. The expected counts by hand."""

from __future__ import annotations

import pytest

from himac_lite.runs.health import due, follow, warnings

FINE = {"macro/zero_variance": 0.5, "micro/zero_variance": 0.9, "macro/entropy": 0.2, "micro/entropy": 0.1,
        "macro/blueprint_length": 2.5, "macro/return": 0.4, "micro/return": 0.5}  # fmt: skip
STUCK = FINE | {"macro/zero_variance": 1.0, "micro/zero_variance": 1.0}


def counts(*lines: dict) -> list[int]:
    """(no_signal, low_entropy, no_plan) after these iterations."""
    last: dict = {}
    for line in lines:
        last = line | follow(line, last)
    return [last.get(f"health/{name}") for name in ("no_signal", "low_entropy", "no_plan")]


def test_a_healthy_run_has_no_signs():
    assert counts(FINE, FINE) == [0, 0, 0]
    assert warnings(FINE | follow(FINE, {}), 1) == []


def test_no_signal_only_when_no_group_of_either_phase_differs():
    assert counts(STUCK, STUCK, STUCK)[0] == 3
    assert counts(STUCK, STUCK, FINE)[0] == 0  # in a row
    assert counts(STUCK, STUCK | {"macro/zero_variance": 0.97})[0] == 0  # one group of 32 still teaches
    assert counts({"micro/zero_variance": 1.0, "micro/return": 0.0})[0] == 1  # flat play has one phase


def test_low_entropy_of_either_phase_and_an_iteration_without_an_update_changes_nothing():
    low = FINE | {"micro/entropy": 0.009}
    assert counts(low, low)[1] == 2
    assert counts(low, FINE | {"micro/entropy": 0.01})[1] == 0
    silent = {k: v for k, v in STUCK.items() if "entropy" not in k}
    assert counts(low, silent, low)[1] == 2


def test_no_plan_is_less_than_half_a_sub_goal_and_not_for_flat_play():
    short = FINE | {"macro/blueprint_length": 0.49}
    assert counts(short, short)[2] == 2
    assert counts(FINE | {"macro/blueprint_length": 0.5})[2] == 0
    assert counts({"micro/zero_variance": 0.5, "micro/entropy": 0.3}) == [0, 0, None]


@pytest.mark.parametrize(
    ("returns", "advice"),
    [((1.0, 1.0), "harder levels"), ((0.0, 0.0), "easier levels"), ((0.5, 0.0), "rollout.group")],
)
def test_what_to_change_depends_on_what_the_returns_are(returns, advice):
    line = STUCK | {"macro/return": returns[0], "micro/return": returns[1], "health/no_signal": 5}
    (sentence,) = warnings(line, 5)
    assert sentence.startswith("for 5 iterations all groups had equal returns")
    assert advice in sentence
    assert warnings(line, 6) == []


def test_the_other_sentences_name_phase_and_setting():
    entropy, plan = warnings(FINE | {"micro/entropy": 0.001, "health/low_entropy": 7, "health/no_plan": 9}, 5)
    assert "the micro entropy" in entropy
    assert "update.beta" in entropy
    assert "9 iterations" in plan


def test_a_progress_display_is_not_flooded():
    said = [bool(due(STUCK | {"health/no_signal": n}, 5)) for n in range(12)]
    assert [n for n, yes in enumerate(said) if yes] == [5, 10]


@pytest.mark.parametrize("odd", ["5", None, 2.5, [1]])
def test_a_file_may_say_anything(odd):
    assert follow(STUCK, {"health/no_signal": odd})["health/no_signal"] == 1
    assert warnings({"health/no_signal": odd}, 1) == []
