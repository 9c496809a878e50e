"""Notebook 05: the clipped surrogate, its gradient, and the one denominator of an update."""

from __future__ import annotations

import numpy as np

from himac_lite.exercises.checking import Answer, Exercise, Mistake, check

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


# Gradient of the surrogate: surrogate_gradient(logp [T], behaviour [T], advantage [T], clip) → dJ/dlogp [T]


def _gradient(logp: np.ndarray, behaviour: np.ndarray, adv: np.ndarray, clip: float) -> np.ndarray:
    rho = np.exp(logp - behaviour)
    cut = ((adv > 0) & (rho > 1 + clip)) | ((adv < 0) & (rho < 1 - clip))
    return np.where(cut, 0.0, rho * adv)


def _outside(logp: np.ndarray, behaviour: np.ndarray, clip: float) -> np.ndarray:
    out: np.ndarray = np.abs(np.exp(logp - behaviour) - 1) > clip
    return out


SURROGATE_GRADIENT = Exercise(
    "gradient of the surrogate",
    _gradient,
    CLIPPED_SURROGATE.cases,
    (
        Mistake(
            "nothing is ever cut off: where the clipped term is the smaller one it is a constant, and its slope is 0",
            lambda new, old, a, c: np.exp(new - old) * a,
        ),
        Mistake(
            "you cut off on both sides: a step that went wrong too far keeps its gradient, to come back",
            lambda new, old, a, c: np.where(_outside(new, old, c), 0.0, np.exp(new - old) * a),
        ),
        Mistake(
            "ρ is missing: J = ρA and dρ/dlog π = ρ, so the slope is ρA, not A",
            lambda new, old, a, c: np.where(_gradient(new, old, a, c) == 0, 0.0, a),
        ),
        Mistake(
            "the sign is turned round: that is the slope of the loss, −J",
            lambda new, old, a, c: -_gradient(new, old, a, c),
        ),
        Mistake(
            "that is the surrogate itself; its slope is 0 where the clipped term is the smaller one",
            lambda new, old, a, c: -_surrogate(new, old, a, c),
        ),
    ),
    "this is all that the clip does: it switches some tokens off.",
)

# One denominator: token_mean(x [B, T], mask [B, T]) → float


def _per_sequence(x: np.ndarray, mask: np.ndarray) -> float:
    return float(np.mean([row[m].mean() for row, m in zip(x, mask, strict=True) if m.any()]))


_X = np.array([[1.0, 2.0, 9.0, 9.0], [4.0, 4.0, 4.0, 4.0], [-3.0, 9.0, 0.0, 9.0]])
_MASK = np.array([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 1, 0]], bool)

TOKEN_MEAN = Exercise(
    "mean over tokens",
    lambda x, mask: float(x[mask].mean()),
    ((_X, _MASK), (_X[:2], _MASK[:2]), (np.where(_MASK, -_X, np.nan), _MASK)),
    (
        Mistake(
            "you average each sequence first: tokens of long sequences then count less than those of short ones",
            _per_sequence,
        ),
        Mistake("tokens that are masked out are in the mean", lambda x, mask: x.mean()),
        Mistake(
            "the sum is right, but the denominator counts masked tokens too",
            lambda x, mask: np.where(mask, x, 0.0).sum() / x.size,
        ),
        Mistake("that is the sum: divide by the tokens that count", lambda x, mask: np.where(mask, x, 0.0).sum()),
        Mistake(
            "you divide by the number of sequences, not of tokens",
            lambda x, mask: np.where(mask, x, 0.0).sum() / len(x),
        ),
        Mistake(
            "multiplying by the mask is not enough: 0 · nan is nan. Choose, as `x[mask]` or `np.where` do",
            lambda x, mask: (x * mask).sum() / mask.sum(),
        ),
    ),
    "every chosen token has the same weight, whatever stands beside it.",
)


def check_clipped_surrogate(answer: Answer) -> bool:
    """``answer(logp, behaviour, advantage, clip)``: float [T] each → the loss of each token [T]. See `check`."""
    return check(CLIPPED_SURROGATE, answer)


def check_surrogate_gradient(answer: Answer) -> bool:
    """``answer(logp, behaviour, advantage, clip)``: [T] each → slope of each token's surrogate in its log-prob [T]."""
    return check(SURROGATE_GRADIENT, answer)


def check_token_mean(answer: Answer) -> bool:
    """``answer(x, mask)``: float [B, T], bool [B, T] → the mean of x over the tokens where the mask is true."""
    return check(TOKEN_MEAN, answer)
