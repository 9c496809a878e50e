"""Notebooks 08 and 09: the sign-flip test, steps to a threshold, and two axes of a hierarchy."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from himac_lite.exercises.checking import Exercise, Mistake


def _sums(differences: Sequence[float]) -> np.ndarray:
    return np.array([sum(s * d for s, d in zip(signs, differences, strict=True)) for signs in _signs(differences)])


def _signs(differences: Sequence[float]) -> list[tuple[int, ...]]:
    return list(product((-1, 1), repeat=len(differences)))


def _p(differences: Sequence[float]) -> float:
    return float((abs(_sums(differences)) >= abs(sum(differences)) - 1e-12).mean())


check_sign_flip = Exercise(
    "sign flips",
    "``answer(differences)``: list of n paired differences → two-sided p over all 2^n signs.",
    _p,
    (([1.0, 2.0, 3.0],), ([2.0, -1.0, 0.5],), ([0.25] * 5,), ([-1.0, -2.0, -1.0, 0.5],)),
    (
        Mistake(
            "you count sums on one side only; the test is two-sided",
            lambda d: float((_sums(d) >= sum(d) - 1e-12).mean()),
        ),
        Mistake(
            "sums that are exactly as large count too; the observed sum is one of them",
            lambda d: float((abs(_sums(d)) > abs(sum(d)) + 1e-12).mean()),
        ),
        Mistake("that is how often the sum is *smaller*: 1 − p", lambda d: 1 - _p(d)),
        Mistake("that is the number of sums; divide by all 2^n", lambda d: _p(d) * 2 ** len(d)),
    ),
    "no distribution is assumed: without a real difference, both signs are equally likely.",
)


def _steps_to(spent: Sequence[float], success: Sequence[float], threshold: float) -> float:
    i = next(i for i, y in enumerate(success) if y >= threshold)
    if i == 0:
        return float(spent[0])
    share = (threshold - success[i - 1]) / (success[i] - success[i - 1])
    return float(spent[i - 1] + share * (spent[i] - spent[i - 1]))


def _below(spent: Sequence[float], success: Sequence[float], threshold: float) -> list[float]:
    """The points before the curve first reaches the threshold."""
    return list(spent[: next(i for i, y in enumerate(success) if y >= threshold)])


def _last(spent: Sequence[float], success: Sequence[float], threshold: float) -> float:
    """The last crossing of the threshold."""
    below = [i for i, y in enumerate(success) if y < threshold]
    start = below[-1] if below else 0
    return _steps_to(spent[start:], success[start:], threshold)


check_steps_to = Exercise(
    "steps to a threshold",
    "``answer(spent, success, threshold)`` → where the curve first reaches the threshold, by linear interpolation.",
    _steps_to,
    (
        ([0.0, 100.0, 200.0], [0.4, 0.6, 0.9], 0.5),
        ([0.0, 100.0, 200.0, 300.0], [0.4, 0.7, 0.5, 0.8], 0.6),
        ([0.0, 100.0], [0.4, 0.8], 0.3),
    ),
    (
        Mistake(
            "that is the first *point* above the threshold; interpolate linearly between the two points",
            lambda x, y, level: float(next(a for a, b in zip(x, y, strict=True) if b >= level)),
        ),
        Mistake(
            "the curve may fall again: take the first crossing, not the last", lambda x, y, level: _last(x, y, level)
        ),
        Mistake(
            "that is the last point below the threshold; interpolate",
            lambda x, y, level: float(max([0.0, *_below(x, y, level)])),
        ),
    ),
    "the first crossing of a noisy curve is optimistic, so look at several seeds.",
)


check_median_advantage = Exercise(
    "median advantage",
    "``answer(return_pn)``: float [P, N] → float [P, N], each return minus the median of its group.",
    lambda r: r - np.median(r, axis=1, keepdims=True),
    ((np.array([[1.0, 0.0, 0.0, 0.0, 1.0], [0.2, 0.4, 0.9, 0.0, 0.4]]),), (np.array([[3.0, 0.0, 0.0]]),)),
    (
        Mistake("that is the mean of the group, not its median", lambda r: r - r.mean(1, keepdims=True)),
        Mistake("that is the median of all levels together: a group is a row", lambda r: r - np.median(r)),
        Mistake("you took the median of a column: a group is a row", lambda r: r - np.median(r, axis=0)),
        Mistake(
            "that is the median itself; subtract it from each return",
            lambda r: np.median(r, axis=1, keepdims=True) + np.zeros_like(r),
        ),
    ),
    "one success no longer makes all other members look bad.",
)


def _turn(iteration: int, planner: int, executor: int) -> str:
    return "planner" if iteration % (planner + executor) < planner else "executor"


check_who_learns = Exercise(
    "who learns",
    '``answer(iteration, planner, executor)`` → "planner" or "executor": each for so many iterations, in turn.',
    _turn,
    tuple((i, 2, 3) for i in range(11)) + tuple((i, 1, 1) for i in range(3)),
    (
        Mistake(
            "they alternate every iteration; each role should keep its turn for several", lambda i, p, e: _turn(i, 1, 1)
        ),
        Mistake("the first iteration has number 0", lambda i, p, e: _turn(i + 1, p, e)),
        Mistake("the planner's turn comes only once; repeat the cycle", lambda i, p, e: ["executor", "planner"][i < p]),
        Mistake("the planner comes first", lambda i, p, e: ["planner", "executor"][i % (p + e) < e]),
    ),
    "`Hierarchy(schedule=…)` takes a function like this one.",
)
