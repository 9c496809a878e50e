"""Notebook 00: the advantage of a group, and the tokens that it trains."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from himac_lite import advantage
from himac_lite.exercises.checking import Answer, Exercise, Mistake


def _group(returns: np.ndarray, eps: float) -> np.ndarray:
    return advantage.group_advantage(returns[None], eps=eps)[0]


check_group_advantage = Exercise(
    "group advantage",
    "``answer(returns, eps)``: float [N] → float [N], (R − mean) / (std + ε) of one group.",
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
            "you divide by the std but do not subtract the mean: a success among successes should get zero",
            lambda r, eps: r / (r.std() + eps),
        ),
        Mistake(
            "your ε has no effect, so a group whose returns are all equal divides 0 by 0: add ε to the std",
            lambda r, eps: (r - r.mean()) / r.std(),
        ),
        Mistake(
            "you add ε under the root; add it to the std itself",
            lambda r, eps: (r - r.mean()) / np.sqrt(r.var() + eps),
        ),
        Mistake(
            "the sign is flipped: better than the group must be positive",
            lambda r, eps: (r.mean() - r) / (r.std() + eps),
        ),
        Mistake(
            "you may be subtracting the best return instead of the mean", lambda r, eps: (r - r.max()) / (r.std() + eps)
        ),
    ),
    "better than the group is positive, worse is negative, and an all-equal group gets zero.",
)


_CHOSEN = {"A": ("plan", "end"), "B": ("action", "sub_done")}
_PLAN = ["prompt", "prompt", "plan", "plan", "plan", "end"]
_SEGMENT = ["prompt", "prompt", "prompt", "action", "observation", "action", "observation", "sub_done"]


def _mask(**chosen: Sequence[str]) -> Answer:
    return lambda kinds, phase: np.array([kind in chosen[phase] for kind in kinds])


check_trained_tokens = Exercise(
    "trained tokens",
    "``answer(kinds, phase)``: T strings (prompt, plan, end, action, observation, sub_done), A or B → T booleans.",
    _mask(**_CHOSEN),
    tuple((kinds, phase) for kinds in (_PLAN, _SEGMENT) for phase in "AB"),
    (
        Mistake(
            "you train observations: the environment wrote them, the model did not choose them",
            _mask(A=("plan", "end"), B=("action", "sub_done", "observation")),
        ),
        Mistake(
            "<sub_done> is an action too: the executor chooses when to end its sub-goal, and has to learn it",
            _mask(A=("plan", "end"), B=("action",)),
        ),
        Mistake(
            "the planner chooses its end token too: without it, the planner never learns how long a plan should be",
            _mask(A=("plan",), B=("action", "sub_done")),
        ),
        Mistake(
            "neither <sub_done> nor the planner's end token is trained: where to stop is a choice too",
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
        Mistake(
            "the phases are swapped: phase A trains the planner, phase B the executor",
            _mask(A=_CHOSEN["B"], B=_CHOSEN["A"]),
        ),
        Mistake(
            "you train the prompt: it was given, not chosen",
            _mask(A=("prompt", *_CHOSEN["A"]), B=("prompt", *_CHOSEN["B"])),
        ),
        Mistake(
            "the mask is inverted: true means trained",
            lambda kinds, phase: np.array([kind not in _CHOSEN[phase] for kind in kinds]),
        ),
    ),
    "only the tokens that the learning role chose.",
)
