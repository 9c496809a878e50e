"""An exercise: run the learner's function, compare it with the right one, name the likely mistake.

An exercise tries the learner's function on several cases. A wrong answer is compared with known mistakes too: the
mistake that gives the same values is the diagnosis. A learner who has not started (the stub raises NotImplementedError
or returns ``...``) gets a friendly line and no error, so that a whole notebook still runs from top to bottom.
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
    """A wrong answer, with its likely cause."""

    def _render_traceback_(self) -> list[str]:
        """IPython's hook: a learner needs the diagnosis, not our stack."""
        return [f"✗ {self}"]


@dataclass(frozen=True)
class Result:
    """The result of a check. It is true only if the exercise is passed; a notebook shows its message."""

    passed: bool
    message: str

    def __bool__(self) -> bool:
        return self.passed

    def __repr__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Mistake:
    """A plausible wrong answer, and what to tell the person who gave it."""

    why: str
    answer: Answer


@dataclass(frozen=True, eq=False)  # compared and hashed by identity: cases hold arrays
class Exercise:
    """One exercise. Call it with the learner's function.

    name: its name in messages. task: the learner's function with its arguments and result; the docstring of the check.
    right: the reference solution. cases: the arguments of each call. praise: one line for a right answer.
    """

    name: str
    task: str
    right: Answer
    cases: tuple[tuple[Any, ...], ...]
    mistakes: tuple[Mistake, ...]
    praise: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "__doc__", self.task)  # `help(check_…)` and `check_…?` show the task

    def __call__(self, answer: Answer) -> Result:
        """Check the learner's function.

        Returns: a true `Result` for a right answer, a false one if the learner has not started.
        Raises: `CheckFailed` with a diagnosis for a wrong answer.
        """
        if not callable(answer):
            raise CheckFailed(f"{self.name}: pass the function itself, without parentheses after its name")
        given: list[Any] = []
        for case in self.cases:
            arguments = copy.deepcopy(case)
            try:
                with np.errstate(all="ignore"):
                    value = answer(*arguments)
            except NotImplementedError:
                value = ...
            except Exception as error:
                raise CheckFailed(f"{self.name}: it raises {type(error).__name__}: {error}\n{_call(case)}") from None
            if value is ...:
                function = getattr(answer, "__name__", "your function")
                todo = f"Complete `{function}` above, and run both cells."
                return Result(False, f"○ {self.name}: not started yet. {todo}")
            if value is None:
                raise CheckFailed(f"{self.name}: it returns None; is a `return` missing?\n{_call(case)}")
            if not all(map(_untouched, arguments, case)):
                raise CheckFailed(f"{self.name}: it changes its own arguments; work on a copy\n{_call(case)}")
            given.append(value)
        wanted = _answers(self.right, self.cases)
        wrong = [i for i, (value, right) in enumerate(zip(given, wanted, strict=True)) if not _same(value, right)]
        if not wrong:
            return Result(True, f"✓ {self.name}: {self.praise}")
        first = wrong[0]
        why = next((m.why for m in self.mistakes if all(map(_same, given, _answers(m.answer, self.cases)))), "")
        values = f"expected {_text(wanted[first])}\ngot      {_text(given[first])}"
        diagnosis = why or _general(given[first], wanted[first])
        raise CheckFailed(f"{self.name}: {diagnosis}\n{_call(self.cases[first])}\n{values}")


def _answers(function: Answer, cases: Sequence[tuple[Any, ...]]) -> list[Any]:
    with np.errstate(all="ignore"):
        return [function(*copy.deepcopy(case)) for case in cases]


def _general(given: Any, wanted: Any) -> str:
    array, right = _numbers(given), _numbers(wanted)
    if right is not None and array is None:
        return f"it should return numbers, not {type(given).__name__}"
    if right is not None and array is not None and array.shape != right.shape:
        return f"its shape is {array.shape}, but should be {right.shape}"
    if array is not None and np.isnan(array).any():
        return "it returns nan; does it divide by zero?"
    return "wrong result, and not one of the usual mistakes; work through this case by hand"


def _numbers(value: Any) -> np.ndarray | None:
    """The value as float64. None if it is not numeric: text, a tensor with a gradient, rows of unequal length."""
    try:
        return np.asarray(value, np.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None


def _untouched(now: Any, before: Any) -> bool:
    if isinstance(before, np.ndarray):
        return np.array_equal(now, before, equal_nan=before.dtype.kind == "f")
    return bool(now == before)


def _same(a: Any, b: Any) -> bool:
    x, y = _numbers(a), _numbers(b)
    if x is None or y is None:  # text: type and value have to match
        return type(a) is type(b) and bool(np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b)
    return x.shape == y.shape and bool(np.allclose(x, y, rtol=1e-5, atol=1e-8, equal_nan=True))


def _text(value: Any) -> str:
    if _numbers(value) is None:
        return repr(value)
    return np.array2string(np.asarray(value), precision=4, separator=", ", threshold=40)


def _call(case: Sequence[Any]) -> str:
    return "for " + ", ".join(_text(a) if isinstance(a, np.ndarray) else repr(a) for a in case)
