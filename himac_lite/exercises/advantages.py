"""Notebook 03: the leave-one-out baseline, credit at two levels, and how often a group teaches something."""

from __future__ import annotations

import numpy as np

from himac_lite import advantage
from himac_lite.exercises.checking import Exercise, Mistake


def _leave_one_out(returns: np.ndarray) -> np.ndarray:
    return advantage.group_advantage(returns[None], baseline="leave_one_out", scale="none")[0]


check_leave_one_out = Exercise(
    "leave one out",
    "``answer(returns)``: float [N] → float [N], each return minus the mean of the N − 1 others (RLOO).",
    _leave_one_out,
    ((np.array([1.0, 0.0, 0.0, 0.0]),), (np.array([2.0, -1.0, 0.5]),), (np.array([1.0, 1.0]),)),
    (
        Mistake("your baseline is the mean of all members, including the member itself", lambda r: r - r.mean()),
        Mistake("there are N − 1 others: divide their sum by N − 1, not by N", lambda r: r - (r.sum() - r) / len(r)),
        Mistake(
            "you divide the whole sum by N − 1: subtract the member's own return from the sum first",
            lambda r: r - r.sum() / (len(r) - 1),
        ),
        Mistake(
            "that is the baseline; the advantage is the return minus the baseline",
            lambda r: (r.sum() - r) / (len(r) - 1),
        ),
        Mistake("the sign is flipped: better than the others must be positive", lambda r: -_leave_one_out(r)),
        Mistake("RLOO does not divide by the std", lambda r: _leave_one_out(r) / (r.std() + 1e-6)),
    ),
    "each member is compared with the mean of the others.",
)


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

check_credit = Exercise(
    "credit at two levels",
    "``answer(return_pg, return_pn, eps)``: [P, G] and [P, N] → [P, G + N], macro advantages beside micro ones.",
    _credit,
    ((_PG, _PN, 1e-6), (_PG[:2], 2 * _PN[:2, ::-1], 0.1)),
    (
        Mistake(
            "executions are compared with the blueprints' mean: compare them with executions of the same blueprint",
            _against_macro,
        ),
        Mistake(
            "both groups are pooled: a blueprint then gets credit for the luck of sampled executions",
            lambda pg, pn, eps: _row_wise(np.concatenate([pg, pn], 1), eps),
        ),
        Mistake(
            "mean and std are taken over the whole array: each row is its own group (axis=1, keepdims=True)",
            lambda pg, pn, eps: np.concatenate([_whole(pg, eps), _whole(pn, eps)], 1),
        ),
        Mistake(
            "mean and std are taken along the wrong axis: a row is one group (axis=1, keepdims=True)",
            lambda pg, pn, eps: np.concatenate([_row_wise(pg.T, eps).T, _row_wise(pn.T, eps).T], 1),
        ),
        Mistake(
            "the order is wrong: macro comes first",
            lambda pg, pn, eps: np.concatenate([_row_wise(pn, eps), _row_wise(pg, eps)], 1),
        ),
        Mistake(
            "you do not divide by std + ε",
            lambda pg, pn, eps: np.concatenate([r - r.mean(1, keepdims=True) for r in (pg, pn)], 1),
        ),
    ),
    "blueprints against blueprints, executions against executions.",
)


check_useful_group = Exercise(
    "useful group",
    "``answer(p, n)``: chance of success and size of a group → chance that its returns are not all equal.",
    lambda p, n: 1 - p**n - (1 - p) ** n,
    ((0.5, 8), (0.05, 8), (0.95, 8), (0.3, 2), (0.0, 4), (1.0, 4)),
    (
        Mistake("groups in which all members succeed teach nothing either", lambda p, n: 1 - (1 - p) ** n),
        Mistake("groups in which all members fail teach nothing either", lambda p, n: 1 - p**n),
        Mistake("that is the chance of a group that teaches nothing", lambda p, n: p**n + (1 - p) ** n),
        Mistake("p(1 − p) is the variance of one return, not the chance of a mixed group", lambda p, n: p * (1 - p)),
        Mistake("2p(1 − p) is right only for a group of two; here the size is n", lambda p, n: 2 * p * (1 - p)),
    ),
    "a level teaches most when it is neither too hard nor too easy.",
)
