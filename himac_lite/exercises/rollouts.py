"""Notebook 04: the log-probability of a sampled token, with temperature, constraint and shift."""

from __future__ import annotations

import numpy as np

from himac_lite.exercises.checking import Exercise, Mistake


def _log_softmax(z: np.ndarray) -> np.ndarray:
    z = z - z.max(-1, keepdims=True)
    out: np.ndarray = z - np.log(np.exp(z).sum(-1, keepdims=True))
    return out


def _at(values: np.ndarray, ids: np.ndarray) -> np.ndarray:
    out: np.ndarray = values[np.arange(len(ids)), ids]
    return out


_LOGITS = np.array([[2.0, 0.0, -1.0, 0.5], [0.0, 1.0, 3.0, -2.0], [1.0, 1.0, 0.0, -1.0], [-0.5, 0.0, 0.25, 2.0]])
_IDS = np.array([3, 1, 0, 2])


def _sampled(logits: np.ndarray, ids: np.ndarray, temperature: float) -> np.ndarray:
    return _at(_log_softmax(logits / temperature), ids)


check_sampled_log_prob = Exercise(
    "log-probability of a sampled token",
    "``answer(logits, ids, temperature)``: [T, V], [T], τ → [T] log-probabilities of ids at that temperature.",
    _sampled,
    ((_LOGITS, _IDS, 1.0), (_LOGITS, _IDS, 0.5), (_LOGITS[::-1].copy(), _IDS, 2.0)),
    (
        Mistake(
            "the temperature has no effect: score a token under the distribution it was sampled from",
            lambda z, ids, t: _at(_log_softmax(z), ids),
        ),
        Mistake("you multiply by the temperature; divide by it", lambda z, ids, t: _at(_log_softmax(z * t), ids)),
        Mistake(
            "you divide the log-probability instead of the logits: the probabilities no longer sum to 1",
            lambda z, ids, t: _at(_log_softmax(z), ids) / t,
        ),
        Mistake("that is the probability; take its logarithm", lambda z, ids, t: np.exp(_sampled(z, ids, t))),
        Mistake(
            "that is the log-probability of the most likely token; take the sampled one, `ids`",
            lambda z, ids, t: _log_softmax(z / t).max(-1),
        ),
        Mistake("these are logits: subtract log Σ exp", lambda z, ids, t: _at(z / t, ids)),
    ),
    "sampled and scored under the same distribution.",
)


def _constrained(logits: np.ndarray, allowed: tuple[int, ...], token: int) -> float:
    return float(_log_softmax(logits[list(allowed)])[allowed.index(token)])


check_constrained_log_prob = Exercise(
    "log-probability under a constraint",
    "``answer(logits, allowed, token)``: [V], the ids that may be sampled, one of them → its log-probability.",
    _constrained,
    ((_LOGITS[0], (1, 2, 3), 3), (_LOGITS[1], (3, 0), 0), (_LOGITS[2], (0, 1, 2, 3), 2), (_LOGITS[3], (2,), 2)),
    (
        Mistake(
            "the softmax runs over the whole vocabulary; tokens that cannot be sampled must get no probability",
            lambda z, allowed, token: _log_softmax(z)[token],
        ),
        Mistake(
            "`token` is an id of the vocabulary: in z[allowed] its index is `allowed.index(token)`",
            lambda z, allowed, token: _log_softmax(z[list(allowed)])[token % len(allowed)],
        ),
        Mistake(
            "a forbidden logit of 0 still gets probability (e⁰ = 1); it has to be −∞",
            lambda z, allowed, token: _log_softmax(np.where(np.isin(np.arange(len(z)), allowed), z, 0.0))[token],
        ),
        Mistake("that is the probability; take its logarithm", lambda z, a, token: np.exp(_constrained(z, a, token))),
    ),
    "only the allowed tokens share the probability.",
)


def _aligned(logits: np.ndarray, ids: np.ndarray) -> np.ndarray:
    return _at(_log_softmax(logits[:-1]), ids[1:])


check_next_token_log_probs = Exercise(
    "aligned logits and tokens",
    "``answer(logits, ids)``: [T, V], [T] → [T − 1] log-probabilities of ids[1:], each from the logits before it.",
    _aligned,
    ((_LOGITS, _IDS), (_LOGITS[:3], np.array([2, 2, 1])), (_LOGITS[2:], np.array([0, 3]))),
    (
        Mistake(
            "logits[t] are compared with ids[t], the token that the model has just read; they predict ids[t + 1]",
            lambda z, ids: _at(_log_softmax(z), ids),
        ),
        Mistake(
            "logits[t] are compared with ids[t], the token that the model has just read; they predict ids[t + 1]. "
            "Dropping the first of both does not shift them",
            lambda z, ids: _at(_log_softmax(z[1:]), ids[1:]),
        ),
        Mistake(
            "the shift goes the wrong way: logits[t] predict ids[t + 1]",
            lambda z, ids: _at(_log_softmax(z[1:]), ids[:-1]),
        ),
        Mistake(
            "logits[t] are compared with ids[t]: drop the last of the logits and the *first* of the ids",
            lambda z, ids: _at(_log_softmax(z[:-1]), ids[:-1]),
        ),
        Mistake("these are logits: subtract log Σ exp", lambda z, ids: _at(z[:-1], ids[1:])),
    ),
    "the logits at t score the token at t + 1.",
)
