"""Checks of a learner's function: they say what is right, or what the likely mistake is.

A check takes the learner's function and compares it, case by case, with the right one. A wrong answer is compared with
known mistakes too, each a function of its own: the mistake that gives the learner's numbers is the diagnosis.

    check_group_advantage(group_advantage)   # True, or CheckFailed with the diagnosis

An exercise that nobody has begun (its stub raises NotImplementedError or returns ``...``) gives False, so that a whole
notebook still runs from top to bottom.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from himac_lite import advantage
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
        if not all(map(np.array_equal, arguments, case)):
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
    try:
        array = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        return f"it should return numbers, not {type(given).__name__}"
    if array.shape != np.shape(wanted):
        return f"its shape is {array.shape}, and should be {np.shape(wanted)}"
    if np.isnan(array).any():
        return "there is a nan: something is divided by zero"
    return "the numbers differ, and it is none of the usual mistakes; go through this case by hand"


def _same(a: Any, b: Any) -> bool:
    try:
        x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    except (TypeError, ValueError):
        return False
    return x.shape == y.shape and bool(np.allclose(x, y, rtol=1e-5, atol=1e-8, equal_nan=True))


def _text(value: Any) -> str:
    return np.array2string(np.asarray(value), precision=4, separator=", ", threshold=40)


def _call(case: Sequence[Any]) -> str:
    return "for " + ", ".join(_text(a) if isinstance(a, np.ndarray) else repr(a) for a in case)


# Group advantage: group_advantage(returns [N], eps) → [N]


def _group(returns: np.ndarray, eps: float) -> np.ndarray:
    return advantage.group_advantage(returns[None], eps=eps)[0]


GROUP_ADVANTAGE = Exercise(
    "group advantage",
    _group,
    (
        (np.array([1.0, 0.0, 0.0, 0.0]), 1e-6),
        (np.array([2.0, -1.0, 0.5, 0.5, 3.0]), 1e-6),
        (np.array([1.0, 0.0, 0.0, 0.0]), 0.5),
        (np.array([1.0, 1.0, 1.0]), 1e-6),
    ),
    (
        Mistake(
            "you may be dividing by the variance; the std is its square root",
            lambda r, eps: (r - r.mean()) / (r.var() + eps),
        ),
        Mistake(
            "you may be dividing by the std with N − 1 (ddof=1, as torch does); here it is N (ddof=0, as NumPy does)",
            lambda r, eps: (r - r.mean()) / (r.std(ddof=1) + eps),
        ),
        Mistake("you subtract the mean but do not divide by the std + ε", lambda r, eps: r - r.mean()),
        Mistake(
            "you divide by the std but do not subtract the mean: a success among successes is nothing special",
            lambda r, eps: r / (r.std() + eps),
        ),
        Mistake(
            "your ε has no effect, so a group whose returns are all equal divides 0 by 0: add ε to the std",
            lambda r, eps: (r - r.mean()) / r.std(),
        ),
        Mistake(
            "your ε stands under the root; add it to the std itself",
            lambda r, eps: (r - r.mean()) / np.sqrt(r.var() + eps),
        ),
        Mistake(
            "the sign is turned round: better than the group is positive",
            lambda r, eps: (r.mean() - r) / (r.std() + eps),
        ),
        Mistake(
            "you may be subtracting the best return instead of the mean", lambda r, eps: (r - r.max()) / (r.std() + eps)
        ),
    ),
    "better than its group is positive, worse is negative, and all equal is nothing.",
)


# Trained tokens: trained_tokens(kinds [T], phase) → bool [T]
# kinds: prompt, plan, end (the planner's end token), action, observation, sub_done; phase: "A" or "B"

_CHOSEN = {"A": ("plan", "end"), "B": ("action", "sub_done")}
_PLAN = ["prompt", "prompt", "plan", "plan", "plan", "end"]
_SEGMENT = ["prompt", "prompt", "prompt", "action", "observation", "action", "observation", "sub_done"]


def _mask(**chosen: Sequence[str]) -> Answer:
    return lambda kinds, phase: np.array([kind in chosen[phase] for kind in kinds])


TRAINED_TOKENS = Exercise(
    "trained tokens",
    _mask(**_CHOSEN),
    tuple((kinds, phase) for kinds in (_PLAN, _SEGMENT) for phase in "AB"),
    (
        Mistake(
            "you train observations: the environment wrote them, the model did not choose them",
            _mask(A=("plan", "end"), B=("action", "sub_done", "observation")),
        ),
        Mistake(
            "<sub_done> is an action too: the executor decides when its sub-goal is done, and has to learn it",
            _mask(A=("plan", "end"), B=("action",)),
        ),
        Mistake(
            "the planner's end token is its choice too: without it, it never learns how long a plan should be",
            _mask(A=("plan",), B=("action", "sub_done")),
        ),
        Mistake(
            "neither <sub_done> nor the planner's end token is trained: where to stop is a choice as well",
            _mask(A=("plan",), B=("action",)),
        ),
        Mistake(
            "both roles are trained in both phases: A trains the planner only, B the executor only",
            _mask(A=(*_CHOSEN["A"], *_CHOSEN["B"]), B=(*_CHOSEN["A"], *_CHOSEN["B"])),
        ),
        Mistake(
            "you train everything but the prompt: observations are not chosen either, and one role learns at a time",
            lambda kinds, phase: np.array([kind != "prompt" for kind in kinds]),
        ),
        Mistake("the phases are swapped: A is the planner's, B the executor's", _mask(A=_CHOSEN["B"], B=_CHOSEN["A"])),
        Mistake(
            "you train the prompt: it was given, not chosen",
            _mask(A=("prompt", *_CHOSEN["A"]), B=("prompt", *_CHOSEN["B"])),
        ),
        Mistake(
            "the mask is inverted: true means trained",
            lambda kinds, phase: np.array([kind not in _CHOSEN[phase] for kind in kinds]),
        ),
    ),
    "only what the role that learns chose itself.",
)


# Clipped surrogate: surrogate_loss(logp [T], behaviour [T], advantage [T], clip) → loss of each token [T]


def _surrogate(logp: np.ndarray, behaviour: np.ndarray, adv: np.ndarray, clip: float) -> np.ndarray:
    rho = np.exp(logp - behaviour)
    return -np.minimum(rho * adv, np.clip(rho, 1 - clip, 1 + clip) * adv)


_NEW, _OLD = np.log([0.9, 0.9, 0.1, 0.1, 0.5]), np.log([0.5, 0.5, 0.5, 0.5, 0.5])

CLIPPED_SURROGATE = Exercise(
    "clipped surrogate",
    _surrogate,
    (
        (_NEW, _OLD, np.array([1.0, -1.0, 1.0, -1.0, 2.0]), 0.2),
        (_NEW, _OLD, np.array([0.5, -2.0, 0.0, -0.5, 1.0]), 0.1),
    ),
    (
        Mistake(
            "the sign is missing: an optimizer goes down, so the loss is minus the surrogate",
            lambda new, old, a, c: -_surrogate(new, old, a, c),
        ),
        Mistake(
            "you take the larger of the two terms: the surrogate is the smaller, the pessimistic one",
            lambda new, old, a, c: -np.maximum(np.exp(new - old) * a, np.clip(np.exp(new - old), 1 - c, 1 + c) * a),
        ),
        Mistake(
            "you only clip: without the minimum, a step that went wrong too far gets no gradient to come back",
            lambda new, old, a, c: -np.clip(np.exp(new - old), 1 - c, 1 + c) * a,
        ),
        Mistake("nothing is clipped: that is the plain surrogate", lambda new, old, a, c: -np.exp(new - old) * a),
        Mistake(
            "you take the minimum of the ratios before multiplying: for a negative advantage that is the wrong one",
            lambda new, old, a, c: -np.minimum(np.exp(new - old), np.clip(np.exp(new - old), 1 - c, 1 + c)) * a,
        ),
        Mistake(
            "the ratio is a difference of log-probs without exp: ρ = exp(log π_new − log π_old)",
            lambda new, old, a, c: -np.minimum((new - old) * a, np.clip(new - old, 1 - c, 1 + c) * a),
        ),
        Mistake(
            "the ratio is upside down: new over old",
            lambda new, old, a, c: _surrogate(old, new, a, c),
        ),
    ),
    "as far as the clip allows when it goes well, all the way back when it does not.",
)


def check_group_advantage(answer: Answer) -> bool:
    """``answer(returns, eps)``: float [N] → float [N], (R − mean) / (std + ε) of one group. See `check`."""
    return check(GROUP_ADVANTAGE, answer)


def check_trained_tokens(answer: Answer) -> bool:
    """``answer(kinds, phase)``: T words (prompt, plan, end, action, observation, sub_done), A or B → T truths."""
    return check(TRAINED_TOKENS, answer)


def check_clipped_surrogate(answer: Answer) -> bool:
    """``answer(logp, behaviour, advantage, clip)``: float [T] each → the loss of each token [T]. See `check`."""
    return check(CLIPPED_SURROGATE, answer)
