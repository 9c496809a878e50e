"""Notebook 03: credit at two levels, other baselines, and how often a group has anything to say."""

from __future__ import annotations

import numpy as np

from himac_lite import advantage
from himac_lite.exercises.checking import Answer, Exercise, Mistake, check

# Leave one out: leave_one_out(returns [N]) → [N]


def _leave_one_out(returns: np.ndarray) -> np.ndarray:
    return advantage.group_advantage(returns[None], baseline="leave_one_out", scale="none")[0]


LEAVE_ONE_OUT = Exercise(
    "leave one out",
    _leave_one_out,
    ((np.array([1.0, 0.0, 0.0, 0.0]),), (np.array([2.0, -1.0, 0.5]),), (np.array([1.0, 1.0]),)),
    (
        Mistake("the baseline is the mean of all members, the one itself included", lambda r: r - r.mean()),
        Mistake("the others are N − 1: divide their sum by that, not by N", lambda r: r - (r.sum() - r) / len(r)),
        Mistake(
            "you divide the whole sum by N − 1: take the member's own return out of it",
            lambda r: r - r.sum() / (len(r) - 1),
        ),
        Mistake("that is the baseline; the advantage is the return minus it", lambda r: (r.sum() - r) / (len(r) - 1)),
        Mistake("the sign is turned round: better than the others is positive", lambda r: -_leave_one_out(r)),
        Mistake("RLOO does not divide by the std", lambda r: _leave_one_out(r) / (r.std() + 1e-6)),
    ),
    "a member is compared with what the others got without it.",
)

# Credit at two levels: credit(return_pg, return_pn, eps) → [P, G + N], macro beside micro


def _row_wise(r: np.ndarray, eps: float) -> np.ndarray:
    out: np.ndarray = (r - r.mean(1, keepdims=True)) / (r.std(1, keepdims=True) + eps)
    return out


def _credit(pg: np.ndarray, pn: np.ndarray, eps: float) -> np.ndarray:
    found = advantage.hierarchical_advantage(pg, pn, eps=eps)
    return np.concatenate([found.macro_pg, found.micro_pn], 1)


def _against_macro(pg: np.ndarray, pn: np.ndarray, eps: float) -> np.ndarray:
    micro = (pn - pg.mean(1, keepdims=True)) / (pg.std(1, keepdims=True) + eps)
    return np.concatenate([_row_wise(pg, eps), micro], 1)


def _whole(r: np.ndarray, eps: float) -> np.ndarray:
    out: np.ndarray = (r - r.mean()) / (r.std() + eps)
    return out


_PG = np.array([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0], [0.5, 0.0, 0.0, 0.25]])
_PN = np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.5, 0.5, 0.5]])

CREDIT = Exercise(
    "credit at two levels",
    _credit,
    ((_PG, _PN, 1e-6), (_PG[:2], 2 * _PN[:2, ::-1], 0.1)),
    (
        Mistake(
            "executions are compared with the blueprints' mean: compare them with executions of the same blueprint",
            _against_macro,
        ),
        Mistake(
            "both groups are thrown together: then a good plan is praised for the dice of its executions",
            lambda pg, pn, eps: _row_wise(np.concatenate([pg, pn], 1), eps),
        ),
        Mistake(
            "mean and std are those of the whole array: every level is a group of its own (axis=1, keepdims=True)",
            lambda pg, pn, eps: np.concatenate([_whole(pg, eps), _whole(pn, eps)], 1),
        ),
        Mistake(
            "mean and std go along the wrong axis: a row is a level, a column a member (axis=1, keepdims=True)",
            lambda pg, pn, eps: np.concatenate([_row_wise(pg.T, eps).T, _row_wise(pn.T, eps).T], 1),
        ),
        Mistake(
            "micro stands before macro", lambda pg, pn, eps: np.concatenate([_row_wise(pn, eps), _row_wise(pg, eps)], 1)
        ),
        Mistake(
            "you do not divide by std + ε",
            lambda pg, pn, eps: np.concatenate([r - r.mean(1, keepdims=True) for r in (pg, pn)], 1),
        ),
    ),
    "blueprints against blueprints, executions against executions.",
)  # fmt: skip

# Useful group: useful_group(p, n) → chance that n returns of 0 or 1 are not all equal

USEFUL_GROUP = Exercise(
    "useful group",
    lambda p, n: 1 - p**n - (1 - p) ** n,
    ((0.5, 8), (0.05, 8), (0.95, 8), (0.3, 2), (0.0, 4), (1.0, 4)),
    (
        Mistake(
            "groups in which everybody succeeds teach nothing either",
            lambda p, n: 1 - (1 - p) ** n,
        ),
        Mistake("groups in which everybody fails teach nothing either", lambda p, n: 1 - p**n),
        Mistake("that is the chance of a group that teaches nothing", lambda p, n: p**n + (1 - p) ** n),
        Mistake("p(1 − p) is the variance of one return, not the chance of a mixed group", lambda p, n: p * (1 - p)),
        Mistake("2p(1 − p) is right for a group of two only; members are n", lambda p, n: 2 * p * (1 - p)),
    ),
    "a level teaches most when it is neither too hard nor too easy.",
)


def check_leave_one_out(answer: Answer) -> bool:
    """``answer(returns)``: float [N] → float [N], each return minus the mean of the N − 1 others (RLOO)."""
    return check(LEAVE_ONE_OUT, answer)


def check_credit(answer: Answer) -> bool:
    """``answer(return_pg, return_pn, eps)``: [P, G] and [P, N] → [P, G + N], macro advantages beside micro ones."""
    return check(CREDIT, answer)


def check_useful_group(answer: Answer) -> bool:
    """``answer(p, n)``: chance of success and size of a group → chance that its returns are not all equal."""
    return check(USEFUL_GROUP, answer)
