"""Notebook 07: NF4 quantisation, its memory, and LoRA's merged weight."""

from __future__ import annotations

import numpy as np

from himac_lite.exercises.checking import Exercise, Mistake

_CODES = np.array([-1.0, -0.5, -0.1, 0.0, 0.2, 0.6, 1.0])


def _nearest(x: np.ndarray, codes: np.ndarray) -> np.ndarray:
    out: np.ndarray = codes[np.abs(x[:, None] - codes).argmin(1)]
    return out


def _quantise(w: np.ndarray, codes: np.ndarray) -> np.ndarray:
    return _nearest(w / np.abs(w).max(), codes) * np.abs(w).max()


def _below(w: np.ndarray, codes: np.ndarray) -> np.ndarray:
    scale = np.abs(w).max()
    out: np.ndarray = codes[np.searchsorted(codes, w / scale, side="right") - 1] * scale
    return out


check_quantise = Exercise(
    "quantise a block",
    "``answer(weights, codes)``: [n], the allowed values in [−1, 1] → [n], the dequantised weights.",
    _quantise,
    ((np.array([0.02, -0.05, 0.031, 0.0, 0.0449]), _CODES), (np.array([3.0, -1.4, 0.5, -0.2, -4.0, 1.1]), _CODES)),
    (
        Mistake(
            "the scale is missing: divide the block by its largest absolute value first, and multiply back at the end",
            _nearest,
        ),
        Mistake(
            "you never multiply back: these are codes, not weights",
            lambda w, codes: _nearest(w / np.abs(w).max(), codes),
        ),
        Mistake(
            "the scale is max(w): the largest absolute value may belong to a negative weight",
            lambda w, codes: _nearest(w / w.max(), codes) * w.max(),
        ),
        Mistake("you round down: take the nearest code", _below),
        Mistake(
            "you scale by the std: weights beyond one std are cut off. Use the largest absolute value",
            lambda w, codes: _nearest(w / w.std(), codes) * w.std(),
        ),
    ),
    "16 codes and one scale per block: that is NF4.",
)


check_nf4_bytes = Exercise(
    "bytes in 4-bit",
    "``answer(weights, block)``: number of weights, weights per float32 scale → bytes.",
    lambda n, block: n / 2 + 4 * n / block,
    ((64, 64), (1_000_000, 64), (4096, 128)),
    (
        Mistake("each block also keeps its scale, a float32 of 4 bytes", lambda n, block: n / 2),
        Mistake("4 bits are half a byte, not 4 bytes", lambda n, block: 4 * n + 4 * n / block),
        Mistake("these are bits: 8 of them are one byte", lambda n, block: 4 * n + 32 * n / block),
        Mistake("there is one scale per block, not per weight", lambda n, block: n / 2 + 4 * n),
        Mistake("a float32 scale has 4 bytes, not 1", lambda n, block: n / 2 + n / block),
    ),
    "4.5 bits per weight with blocks of 64.",
)


_RNG = np.random.default_rng(0)
_SQUARE = (_RNG.normal(size=(4, 4)), _RNG.normal(size=(2, 4)), _RNG.normal(size=(4, 2)), 4.0)
_WIDE = (_RNG.normal(size=(4, 4)), _RNG.normal(size=(1, 4)), _RNG.normal(size=(4, 1)), 0.5)

check_merged = Exercise(
    "merged weight",
    "``answer(w, a, b, alpha)``: [out, in], [r, in], [out, r], scalar → W + alpha / r · B A.",
    lambda w, a, b, alpha: w + alpha / len(a) * b @ a,
    (_SQUARE, _WIDE),
    (
        Mistake("the scale alpha / r is missing", lambda w, a, b, alpha: w + b @ a),
        Mistake("the scale is alpha / r: r is the number of rows of A", lambda w, a, b, alpha: w + alpha * b @ a),
        Mistake("the base weight is missing: LoRA adds to it", lambda w, a, b, alpha: alpha / len(a) * b @ a),
        Mistake("LoRA's part is transposed: it is B A", lambda w, a, b, alpha: w + alpha / len(a) * (b @ a).T),
        Mistake("the scale is upside down: alpha / r", lambda w, a, b, alpha: w + len(a) / alpha * b @ a),
        Mistake("LoRA's part is added, not subtracted", lambda w, a, b, alpha: w - alpha / len(a) * b @ a),
    ),
    "the base never changes; the low-rank product does.",
)
