"""What all checks share: run the learner's function, compare, name the likely mistake.

A check takes the learner's function and compares it, case by case, with the right one. A wrong answer is compared with
known mistakes too, each a function of its own: the mistake that gives the learner's numbers is the diagnosis.

An exercise that nobody has begun (its stub raises NotImplementedError or returns ``...``) gives False, so that a whole
notebook still runs from top to bottom.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from himac_lite.errors import HimacError

Answer = Callable[..., Any]


class CheckFailed(HimacError, AssertionError):
    """A wrong answer, and what is probably wrong with it."""

    def _render_traceback_(self) -> list[str]:
        """IPython's hook: a learner needs the diagnosis, not our stack."""
        return [f"✗ {self}"]


@dataclass(frozen=True)
class Mistake:
    """A plausible wrong answer and what to tell the person who gave it."""

    why: str
    answer: Answer


@dataclass(frozen=True)
class Exercise:
    """What is asked, the right answer, the arguments it is tried on, and the mistakes we know."""

    name: str
    right: Answer
    cases: tuple[tuple[Any, ...], ...]
    mistakes: tuple[Mistake, ...]
    praise: str


def check(exercise: Exercise, answer: Answer) -> bool:
    """True for a right answer, False for one not begun. Raises `CheckFailed` with a diagnosis for a wrong one."""
    if not callable(answer):
        raise CheckFailed(f"{exercise.name}: hand over the function itself, without brackets after its name")
    given: list[Any] = []
    for case in exercise.cases:
        arguments = copy.deepcopy(case)
        try:
            with np.errstate(all="ignore"):
                value = answer(*arguments)
        except NotImplementedError:
            value = ...
        except Exception as error:
            raise CheckFailed(f"{exercise.name}: it raises {type(error).__name__}: {error}\n{_call(case)}") from None
        if value is ...:
            print(f"… {exercise.name}: not begun yet. Write the function, run its cell, then this one.")
            return False
        if value is None:
            raise CheckFailed(f"{exercise.name}: it returns None: is a `return` missing?\n{_call(case)}")
        if not all(map(_untouched, arguments, case)):
            raise CheckFailed(f"{exercise.name}: it changes its own arguments; work on a copy\n{_call(case)}")
        given.append(value)
    wanted = [exercise.right(*copy.deepcopy(case)) for case in exercise.cases]
    wrong = [i for i, value in enumerate(given) if not _same(value, wanted[i])]
    if not wrong:
        print(f"✓ {exercise.name}: {exercise.praise}")
        return True
    first = wrong[0]
    shown = f"{_call(exercise.cases[first])}\nexpected {_text(wanted[first])}\ngot      {_text(given[first])}"
    why = next((m.why for m in exercise.mistakes if _agrees(exercise, m, given)), _general(given[first], wanted[first]))
    raise CheckFailed(f"{exercise.name}: {why}\n{shown}")


def _agrees(exercise: Exercise, mistake: Mistake, given: Sequence[Any]) -> bool:
    with np.errstate(all="ignore"):
        return all(_same(v, mistake.answer(*copy.deepcopy(c))) for v, c in zip(given, exercise.cases, strict=True))


def _general(given: Any, wanted: Any) -> str:
    array, right = _numbers(given), _numbers(wanted)
    if right is None:
        return "the answer differs, and it is none of the usual mistakes; go through this case by hand"
    if array is None:
        return f"it should return numbers, not {type(given).__name__}"
    if array.shape != right.shape:
        return f"its shape is {array.shape}, and should be {right.shape}"
    if np.isnan(array).any():
        return "there is a nan: something is divided by zero"
    return "the numbers differ, and it is none of the usual mistakes; go through this case by hand"


def _numbers(value: Any) -> np.ndarray | None:
    """The value as float64, or None for what is no number: a word, a tensor with a gradient, rows of unequal length."""
    try:
        return np.asarray(value, np.float64)
    except (TypeError, ValueError, RuntimeError):
        return None


def _untouched(now: Any, before: Any) -> bool:
    if isinstance(before, np.ndarray):
        return np.array_equal(now, before, equal_nan=before.dtype.kind == "f")
    return bool(now == before)


def _same(a: Any, b: Any) -> bool:
    x, y = _numbers(a), _numbers(b)
    if x is None or y is None:  # words are compared as they are
        return type(a) is type(b) and bool(a == b)
    return x.shape == y.shape and bool(np.allclose(x, y, rtol=1e-5, atol=1e-8, equal_nan=True))


def _text(value: Any) -> str:
    if _numbers(value) is None:
        return repr(value)
    return np.array2string(np.asarray(value), precision=4, separator=", ", threshold=40)


def _call(case: Sequence[Any]) -> str:
    return "for " + ", ".join(_text(a) if isinstance(a, np.ndarray) else repr(a) for a in case)
