"""Notebook 06: the choice of z*, the learning-rate schedule, and the interval of a success rate."""

from __future__ import annotations

import math

import numpy as np

from himac_lite import advantage
from himac_lite.exercises.checking import Exercise, Mistake

check_best_blueprint = Exercise(
    "best blueprint",
    "``answer(return_pg)``: float [P, G] → int [P], the index of z* of each level, the first on a tie.",
    advantage.best,
    (
        (np.array([[0.0, 1.0, 0.0], [0.5, 0.0, 1.0], [0.0, 0.0, 0.0]]),),
        (np.array([[0.0, 1.0, 1.0, 0.0], [2.0, -1.0, 2.0, 0.0]]),),
    ),
    (
        Mistake("that is the return of the best blueprint; return its index", lambda r: r.max(1)),
        Mistake("that is the worst blueprint", lambda r: r.argmin(1)),
        Mistake("you look along the wrong axis: a row is a level, a column a blueprint", lambda r: r.argmax(0)),
        Mistake("that is one index for all levels: choose one per row", lambda r: r.argmax()),
        Mistake(
            "on a tie, take the first, as argmax does",
            lambda r: r.shape[1] - 1 - r[:, ::-1].argmax(1),
        ),
    ),
    "one z* per level, shared by all executions of its micro group.",
)


check_learning_rate = Exercise(
    "learning rate",
    "``answer(spent, start, floor)``: spent share of the budget, initial rate, lowest share of it → the current rate.",
    lambda spent, start, floor: start * max(floor, 1 - spent),
    ((0.0, 1e-3, 0.1), (0.5, 1e-3, 0.1), (0.95, 1e-3, 0.1), (1.0, 2e-4, 0.25), (0.5, 1e-3, 1.0)),
    (
        Mistake(
            "it falls to 0, so the last iterations learn nothing: hold it at `floor` times the start",
            lambda spent, start, floor: start * (1 - spent),
        ),
        Mistake(
            "the floor is a *share* of the start, not a learning rate",
            lambda spent, start, floor: max(floor, start * (1 - spent)),
        ),
        Mistake(
            "you take the minimum of the two; take the maximum",
            lambda spent, start, floor: start * min(floor, 1 - spent),
        ),
        Mistake(
            "it rises as the budget is spent; it should fall", lambda spent, start, floor: start * max(floor, spent)
        ),
        Mistake(
            "it reaches the floor only at the end; here it falls towards 0 and is held at the floor",
            lambda spent, start, floor: start * (1 - (1 - floor) * spent),
        ),
    ),
    "large steps at the start, small steps at the end.",
)


def _wilson(successes: int, n: int, z: float = 1.96) -> tuple[float, float]:
    # Written as the two roots of (p̂ − p)² = z² p(1 − p) / n, while `evaluation.wilson` has the closed form.
    p = successes / n
    roots = np.sort(np.roots([1 + z * z / n, -(2 * p + z * z / n), p * p]).real)
    return float(roots[0]), float(roots[1])


def _centre(successes: int, n: int, z: float = 1.96) -> float:
    return (successes / n + z * z / (2 * n)) / (1 + z * z / n)


def _half(successes: int, n: int, z: float = 1.96) -> float:
    p = successes / n
    return z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)


def _wald(successes: int, n: int, z: float = 1.96) -> tuple[float, float]:
    p = successes / n
    half = z * math.sqrt(p * (1 - p) / n)
    return p - half, p + half


check_wilson = Exercise(
    "interval of a success rate",
    "``answer(successes, n)`` → (low, high), Wilson's 95 % interval (z = 1.96).",
    _wilson,
    ((5, 10), (60, 128), (1, 16), (128, 128), (0, 20)),
    (
        Mistake("that is p ± z·√(p(1 − p)/n), which has no width if all n succeed. Use Wilson's formula", _wald),
        Mistake("z is 1.96 for 95 %, not 1", lambda k, n: _wilson(k, n, 1.0)),
        Mistake(
            "both ends still have to be divided by 1 + z²/n",
            lambda k, n: tuple(end * (1 + 1.96**2 / n) for end in _wilson(k, n)),
        ),
        Mistake(
            "the middle of the interval is not p but (p + z²/2n) / (1 + z²/n)",
            lambda k, n: (k / n - _half(k, n), k / n + _half(k, n)),
        ),
        Mistake("that is the half-width; return both ends", lambda k, n: _half(k, n)),
        Mistake("the upper end comes first; return (low, high)", lambda k, n: _wilson(k, n)[::-1]),
    ),
    "now you can judge whether a difference is real.",
)
