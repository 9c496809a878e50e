"""Notebooks 08 and 09: is a difference one, when was a level reached, and two axes of a hierarchy."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from himac_lite.exercises.checking import Answer, Exercise, Mistake, check

# Sign flips: sign_flip(differences) → p


def _sums(differences: Sequence[float]) -> np.ndarray:
    return np.array([sum(s * d for s, d in zip(signs, differences, strict=True)) for signs in _signs(differences)])


def _signs(differences: Sequence[float]) -> list[tuple[int, ...]]:
    return list(product((-1, 1), repeat=len(differences)))


def _p(differences: Sequence[float]) -> float:
    return float((abs(_sums(differences)) >= abs(sum(differences)) - 1e-12).mean())


SIGN_FLIP = Exercise(
    "sign flips",
    _p,
    (([1.0, 2.0, 3.0],), ([2.0, -1.0, 0.5],), ([0.25] * 5,), ([-1.0, -2.0, -1.0, 0.5],)),
    (
        Mistake(
            "you count sums on one side only; a difference the other way would surprise as much",
            lambda d: float((_sums(d) >= sum(d) - 1e-12).mean()),
        ),
        Mistake(
            "sums that are exactly as large count too: the observed one is among them",
            lambda d: float((abs(_sums(d)) > abs(sum(d)) + 1e-12).mean()),
        ),
        Mistake("that is how often the sum is *smaller*: 1 − p", lambda d: 1 - _p(d)),
        Mistake("that is a number of sums; divide by all 2^n of them", lambda d: _p(d) * 2 ** len(d)),
    ),
    "no distribution was assumed: if nothing is different, every sign was as likely.",
)

# Steps to a level: steps_to(spent, success, threshold) → float


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
    """Where it reaches the threshold for the last time."""
    below = [i for i, y in enumerate(success) if y < threshold]
    start = below[-1] if below else 0
    return _steps_to(spent[start:], success[start:], threshold)


STEPS_TO = Exercise(
    "steps to a level",
    _steps_to,
    (
        ([0.0, 100.0, 200.0], [0.4, 0.6, 0.9], 0.5),
        ([0.0, 100.0, 200.0, 300.0], [0.4, 0.7, 0.5, 0.8], 0.6),
        ([0.0, 100.0], [0.4, 0.8], 0.3),
    ),
    (
        Mistake(
            "that is the first *point* above it; between two points go along the straight line",
            lambda x, y, level: float(next(a for a, b in zip(x, y, strict=True) if b >= level)),
        ),
        Mistake("the curve may fall again: take the first time, not the last", lambda x, y, level: _last(x, y, level)),
        Mistake("that is the last point below it", lambda x, y, level: float(max([0.0, *_below(x, y, level)]))),
    ),
    "a curve of one seed wobbles: the first time is an optimist. Look at several.",
)

# An advantage of your own: median_advantage(return_pn [P, N]) → [P, N]

MEDIAN = Exercise(
    "median advantage",
    lambda r: r - np.median(r, axis=1, keepdims=True),
    ((np.array([[1.0, 0.0, 0.0, 0.0, 1.0], [0.2, 0.4, 0.9, 0.0, 0.4]]),), (np.array([[3.0, 0.0, 0.0]]),)),
    (
        Mistake("that is the mean of the group, not its median", lambda r: r - r.mean(1, keepdims=True)),
        Mistake("that is the median of all levels together: a group is a row", lambda r: r - np.median(r)),
        Mistake("you took the median of a column: a group is a row", lambda r: r - np.median(r, axis=0)),
        Mistake(
            "that is the median itself; what counts is how much better each one was",
            lambda r: np.median(r, axis=1, keepdims=True) + np.zeros_like(r),
        ),
    ),
    "one great success no longer makes all the others look bad.",
)

# A schedule: who_learns(iteration, planner, executor) → "planner" or "executor"


def _turn(iteration: int, planner: int, executor: int) -> str:
    return "planner" if iteration % (planner + executor) < planner else "executor"


WHO_LEARNS = Exercise(
    "who learns",
    _turn,
    tuple((i, 2, 3) for i in range(11)) + tuple((i, 1, 1) for i in range(3)),
    (
        Mistake("they change places every time, whatever their turns are", lambda i, p, e: _turn(i, 1, 1)),
        Mistake("the first iteration is number 0", lambda i, p, e: _turn(i + 1, p, e)),
        Mistake(
            "the planner's turn comes only once: begin again after both", lambda i, p, e: ["executor", "planner"][i < p]
        ),
        Mistake("the planner begins", lambda i, p, e: ["planner", "executor"][i % (p + e) < e]),
    ),
    "`Hierarchy(schedule=…)` takes exactly such a function of the iteration.",
)


def check_sign_flip(answer: Answer) -> bool:
    """``answer(differences)``: list of n paired differences → two-sided p over all 2^n signs."""
    return check(SIGN_FLIP, answer)


def check_steps_to(answer: Answer) -> bool:
    """``answer(spent, success, threshold)`` → where the curve first reaches the threshold, on straight lines."""
    return check(STEPS_TO, answer)


def check_median_advantage(answer: Answer) -> bool:
    """``answer(return_pn)``: float [P, N] → float [P, N], each return minus the median of its group."""
    return check(MEDIAN, answer)


def check_who_learns(answer: Answer) -> bool:
    """``answer(iteration, planner, executor)`` → "planner" or "executor": so many iterations each, in turn."""
    return check(WHO_LEARNS, answer)
