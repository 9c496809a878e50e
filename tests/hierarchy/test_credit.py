"""Which tokens get what: every credit of a micro group, by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from himac_lite.errors import ConfigError
from himac_lite.hierarchy import BySegment, SameState, by_trajectory, mixed
from himac_lite.hierarchy.credit import credit_actions, credit_divisions
from himac_lite.types import Blueprint, End, Group, Level, Role, TokenSequence, Trajectory

LEVEL = Level(("#####", "#@$.#", "#####"))


def segment(choices: int, mark: int = 0) -> TokenSequence:
    """A prompt of one token, then choice, observation, choice, observation, … choice."""
    mask = [t % 2 == 0 for t in range(2 * choices - 1)]
    return TokenSequence(
        Role.EXECUTOR, (1, *[mark] * len(mask)), 1, (False, *mask), (0.0, *[-1.0 * m for m in mask]), End.SUB_DONE
    )


def trajectory(ret: float, *choices: int, gains: tuple[float, ...] = (), states: tuple[str, ...] = ()) -> Trajectory:
    """A trajectory of segments with so many choices. states: one letter a choice, a word a segment."""
    return Trajectory(
        Blueprint("z"), tuple(segment(n, mark) for mark, n in enumerate(choices)), "", ret, ret == 1.0, sum(choices),
        choices, gains=gains, states=tuple(tuple(word) for word in states),
    )  # fmt: skip


def group(*trajectories: Trajectory) -> Group:
    return Group(LEVEL, trajectories)


def test_by_trajectory():
    both = group(trajectory(1.0, 2, 3), trajectory(0.0, 1))
    assert by_trajectory(both, np.array([0.5, -0.5])) == [[0.5, 0.5], [-0.5]]


def test_by_segment():
    # Gains: first segment 1 and 0 for the two trajectories; the second segment was reached by the first one alone.
    both = group(trajectory(1.0, 2, 3, gains=(1.0, 2.0)), trajectory(0.0, 1, gains=(0.0,)))
    # Segment 0: gains from here on 3 and 0: ±1. Segment 1: a group of one: 0.
    found = BySegment(omega=0.5)(both, np.array([1.0, -1.0]))
    assert found[0] == pytest.approx([1.5, 1.0], abs=1e-5)
    assert found[1] == pytest.approx([-1.5], abs=1e-5)


def test_same_state_across_the_whole_trajectory():
    # State a was met first by both: discounted returns γ² = 1/4 (three choices from the end: 1, γ, γ²) and 0: ±1.
    # b and c were met once each: no comparison.
    both = group(trajectory(1.0, 3, states=("abb",)), trajectory(0.0, 2, states=("ac",)))
    first, second = SameState(omega=1.0, gamma=0.5)(both, np.array([2.0, -2.0]))
    # b was met twice by the first: γ = 1/2 and 1, mean 3/4, std 1/4: −1 and +1.
    assert first[0] == pytest.approx([3.0, 1.0, 3.0], abs=1e-4)
    assert second[0] == pytest.approx([-3.0, -2.0], abs=1e-4)


def test_same_state_runs_on_over_the_segments():
    one = group(trajectory(1.0, 1, 2, states=("a", "ab")), trajectory(1.0, 1, states=("b",)))
    # a: γ² and γ: 1/4 and 1/2, mean 3/8, std 1/8: −1, +1. b: 1 and 1: equal, nothing.
    first, second = SameState(gamma=0.5)(one, np.array([0.0, 0.0]))
    assert first[0] == pytest.approx([-1.0], abs=1e-4)
    assert first[1] == pytest.approx([1.0, 0.0], abs=1e-4)
    assert second[0] == pytest.approx([0.0], abs=1e-4)


def test_same_state_inside_a_segment():
    one = group(trajectory(1.0, 1, 2, states=("a", "ab")), trajectory(0.0, 2, states=("ca",)))
    # Segment 0: a is worth 1 in the first (its last choice) and 0 in the second: ±1; c was met once. Segment 1: a and b
    # were met once each under that sub-goal: the a of segment 0 is another situation.
    first, second = SameState(gamma=0.5, inside=True)(one, np.array([0.25, -0.25]))
    assert first[0] == pytest.approx([1.25], abs=1e-4)
    assert first[1] == pytest.approx([0.25, 0.25], abs=1e-4)
    assert second[0] == pytest.approx([-0.25, -1.25], abs=1e-4)


def test_a_trajectory_without_segments_gets_nothing():
    empty = trajectory(0.0)
    for credit in (by_trajectory, SameState(), SameState(inside=True), BySegment()):
        assert [list(row) for row in credit(group(empty, empty), np.zeros(2))] == [[], []]


def test_mixed_with_the_level_above():
    both = group(trajectory(1.0, 2, 3), trajectory(0.0, 1))
    assert mixed(0.25)(both, np.array([1.0, -1.0]), 2.0) == [[1.25, 1.25], [-0.25]]
    per_choice = mixed(0.5, lambda group, advantage_n, above: [[[1.0, 0.0], [0.0] * 3], [[0.0]]])
    assert per_choice(both, np.zeros(2), 1.0) == [[[1.0, 0.5], [0.5] * 3], [[0.5]]]


# ---- spread over tokens ------------------------------------------------------------------------------------------


def test_an_advantage_a_choice_stands_at_the_tokens_that_were_chosen():
    both = group(trajectory(1.0, 3), trajectory(0.0, 1))
    ((first, second),) = credit_actions([both], np.array([[1.0, -1.0]]), lambda *_: [[[1.0, 2.0, 3.0]], [[-1.0]]])
    assert first.advantage == (1.0, 0.0, 2.0, 0.0, 3.0)  # choice, observation, choice, observation, choice
    assert second.advantage == (-1.0,)


def test_a_group_is_left_out_only_if_credit_leaves_nothing():
    both = group(trajectory(1.0, 1, states=("a",)), trajectory(1.0, 2, states=("aa",)))
    assert credit_actions([both], np.zeros((1, 2))) == []
    # All solved, but one took a detour through a state that it had seen: γ and 1 for its a's, 1 for the other's.
    (items,) = credit_actions([both], np.zeros((1, 2)), SameState(gamma=0.5))
    # mean 5/6, std √(2·(1/6)² + (1/3)²)/√3 = 0.2357: 0.7071, −1.4142, 0.7071
    assert items[0].advantage == pytest.approx((1 / math.sqrt(2),), abs=1e-4)
    assert items[1].advantage == pytest.approx((-math.sqrt(2), 0.0, 1 / math.sqrt(2)), abs=1e-4)
    # Credit for the plan above reaches a group whose executions are all alike.
    (items,) = credit_actions([both], np.zeros((1, 2)), mixed(0.5), np.array([-2.0]))
    assert [item.advantage for item in items] == [-1.0, -1.0]


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ([[1.0]], "credit returned 1 rows for 2 trajectories"),
        ([[1.0], []], "credit returned 0 shares for a trajectory of 1 segments"),
        ([[1.0], [[1.0, 1.0]]], "credit returned 2 advantages for a segment of 1 choices"),
    ],
)
def test_a_credit_of_the_wrong_shape_is_named(shares, words):
    both = group(trajectory(1.0, 1), trajectory(0.0, 1))
    with pytest.raises(ConfigError, match=words):
        credit_actions([both], np.array([[1.0, -1.0]]), lambda *_: shares)


def test_the_middle_level_answers_for_what_it_wrote():
    plan = replace(segment(1, 7), role=Role.PLANNER)
    wrote = replace(trajectory(1.0, 2), replans=(plan, plan))
    silent = trajectory(0.0, 2)
    ((first, second),) = credit_divisions([group(wrote, silent)], np.array([[1.0, -1.0]]))
    assert (first.sequence, first.advantage) == (second.sequence, second.advantage) == (plan, 1.0)
    assert credit_divisions([group(wrote, silent)], np.zeros((1, 2))) == []
