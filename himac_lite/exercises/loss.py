"""Notebook 05: the clipped surrogate, its gradient, and the mean over tokens."""

from __future__ import annotations

import numpy as np

from himac_lite.exercises.checking import Exercise, Mistake


def _surrogate(logp: np.ndarray, behaviour: np.ndarray, adv: np.ndarray, clip: float) -> np.ndarray:
    rho = np.exp(logp - behaviour)
    return -np.minimum(rho * adv, np.clip(rho, 1 - clip, 1 + clip) * adv)


_NEW, _OLD = np.log([0.9, 0.9, 0.1, 0.1, 0.5]), np.log([0.5, 0.5, 0.5, 0.5, 0.5])

check_clipped_surrogate = Exercise(
    "clipped surrogate",
    "``answer(logp, behaviour, advantage, clip)``: float [T] each → the loss of each token [T].",
    _surrogate,
    (
        (_NEW, _OLD, np.array([1.0, -1.0, 1.0, -1.0, 2.0]), 0.2),
        (_NEW, _OLD, np.array([0.5, -2.0, 0.0, -0.5, 1.0]), 0.1),
    ),
    (
        Mistake(
            "the sign is missing: an optimizer minimises, so the loss is minus the surrogate",
            lambda new, old, a, c: -_surrogate(new, old, a, c),
        ),
        Mistake(
            "you take the larger of the two terms: the surrogate is the smaller one, the pessimistic bound",
            lambda new, old, a, c: -np.maximum(np.exp(new - old) * a, np.clip(np.exp(new - old), 1 - c, 1 + c) * a),
        ),
        Mistake(
            "you only clip: without the minimum, a token that moved too far the wrong way gets no gradient back",
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
        Mistake("the ratio is upside down: it is new over old", lambda new, old, a, c: _surrogate(old, new, a, c)),
    ),
    "a good move stops at the clip; a bad move keeps its full gradient.",
)


def _gradient(logp: np.ndarray, behaviour: np.ndarray, adv: np.ndarray, clip: float) -> np.ndarray:
    rho = np.exp(logp - behaviour)
    cut = ((adv > 0) & (rho > 1 + clip)) | ((adv < 0) & (rho < 1 - clip))
    return np.where(cut, 0.0, rho * adv)


def _outside(logp: np.ndarray, behaviour: np.ndarray, clip: float) -> np.ndarray:
    out: np.ndarray = np.abs(np.exp(logp - behaviour) - 1) > clip
    return out


check_surrogate_gradient = Exercise(
    "gradient of the surrogate",
    "``answer(logp, behaviour, advantage, clip)``: [T] each → d surrogate / d log-prob of each token [T].",
    _gradient,
    check_clipped_surrogate.cases,
    (
        Mistake(
            "nothing is ever cut off: where the clipped term is the minimum, J is constant and its slope is 0",
            lambda new, old, a, c: np.exp(new - old) * a,
        ),
        Mistake(
            "you cut off both sides: a token that moved too far the wrong way keeps its gradient",
            lambda new, old, a, c: np.where(_outside(new, old, c), 0.0, np.exp(new - old) * a),
        ),
        Mistake(
            "ρ is missing: J = ρA and dρ/dlog π = ρ, so the slope is ρA, not A",
            lambda new, old, a, c: np.where(_gradient(new, old, a, c) == 0, 0.0, a),
        ),
        Mistake(
            "the sign is flipped: that is the slope of the loss, −J",
            lambda new, old, a, c: -_gradient(new, old, a, c),
        ),
        Mistake(
            "that is the surrogate itself; its slope is 0 where the clipped term is the minimum",
            lambda new, old, a, c: -_surrogate(new, old, a, c),
        ),
    ),
    "the clip does only this: it sets the gradient of some tokens to zero.",
)


def _per_sequence(x: np.ndarray, mask: np.ndarray) -> float:
    return float(np.mean([row[m].mean() for row, m in zip(x, mask, strict=True) if m.any()]))


_X = np.array([[1.0, 2.0, 9.0, 9.0], [4.0, 4.0, 4.0, 4.0], [-3.0, 9.0, 0.0, 9.0]])
_MASK = np.array([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 1, 0]], bool)

check_token_mean = Exercise(
    "mean over tokens",
    "``answer(x, mask)``: float [B, T], bool [B, T] → the mean of x over the tokens where the mask is true.",
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
            "multiplying by the mask is not enough: 0 · nan is nan. Select with `x[mask]` or `np.where`",
            lambda x, mask: (x * mask).sum() / mask.sum(),
        ),
    ),
    "every chosen token has the same weight.",
)
