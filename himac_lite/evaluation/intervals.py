"""Intervals and paired tests for tables of variants × seeds × levels: pure NumPy.

Two things are random: the levels in the test split, and the seed of a run. An interval over seeds says nothing about
other levels, and an interval over levels nothing about other seeds; `two_way_interval` covers both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import ArrayLike

from himac_lite.advantage import as_floats
from himac_lite.errors import ConfigError, checked

_T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""Student's t, 97.5 %, for 1 … 30 degrees of freedom. The last one also serves beyond 30, a little too wide."""


def t_interval(values: ArrayLike) -> tuple[float, float]:
    """95 % interval of the mean of a few independent values, such as one per seed.

        mean ± t_{S−1} · s / √S,   s with ddof 1

    Reference: Student 1908.

    Args:
        values: [S], S >= 1.
    Returns: (low, high); (−inf, inf) for a single value, because its spread is unknown.
    Raises: ConfigError if there is no value, or one that is not finite.
    """
    value_s = as_floats(values, "values", 1)
    if not value_s.size or not np.isfinite(value_s).all():
        raise ConfigError(f"values must be finite and of shape [S >= 1], got shape {value_s.shape}")
    if value_s.size == 1:
        return -math.inf, math.inf
    half = _T95[min(value_s.size - 1, len(_T95)) - 1] * value_s.std(ddof=1) / math.sqrt(value_s.size)
    return float(value_s.mean() - half), float(value_s.mean() + half)


@checked
def two_way_interval(
    solved_sl: ArrayLike, rng: np.random.Generator, other_sl: ArrayLike | None = None, draws: int = 2000
) -> tuple[float, float]:
    """95 % bootstrap interval of a success rate, or of the difference of two, over seeds *and* levels.

    Seeds and levels are resampled, each with replacement; the interval holds the middle 95 % of the means. For a
    difference both variants get the same levels, so the interval is paired, and each its own seeds.
    Reference: the "pigeonhole" bootstrap of two crossed factors (Owen 2007), which is a little too wide.

    Args:
        solved_sl: bool [S, L], the levels that each seed solved. other_sl: bool [S', L], subtracted.
        draws: number of resamples.
    Returns: (low, high).
    Raises: ConfigError if the shapes do not fit.
    """
    _at_least_one(draws)
    a_sl = _outcomes(solved_sl)
    b_sl = None if other_sl is None else _outcomes(other_sl)
    if b_sl is not None and b_sl.shape[1] != a_sl.shape[1]:
        raise ConfigError(f"both must have one column per level, got shapes {a_sl.shape} and {b_sl.shape}")
    means = np.empty(draws)
    for i in range(draws):
        level_l = rng.integers(0, a_sl.shape[1], a_sl.shape[1])
        means[i] = a_sl[rng.integers(0, len(a_sl), len(a_sl))][:, level_l].mean()
        if b_sl is not None:
            means[i] -= b_sl[rng.integers(0, len(b_sl), len(b_sl))][:, level_l].mean()
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


@checked
def sign_flip_test(differences: ArrayLike, rng: np.random.Generator, draws: int = 9999) -> float:
    """Two-sided p of "the mean paired difference is zero": the share of sign patterns with as large a mean.

        p = #{ε ∈ {−1, 1}^n : |Σ ε_i d_i| ≥ |Σ d_i|} / 2^n

    All 2^n sign patterns are tried if there are at most `draws`; otherwise `draws` random ones, and
    p = (1 + hits) / (1 + draws). Reference: Fisher's randomisation test (1935).

    Args:
        differences: [n] paired differences, one per level or per seed.
    Returns: p in (0, 1]; 1 if every difference is zero. With n pairs it cannot fall below 2^(1 − n).
    Raises: ConfigError if there is no difference, or one that is not finite.
    """
    _at_least_one(draws)
    d_n = as_floats(differences, "differences", 1)
    if not d_n.size or not np.isfinite(d_n).all():
        raise ConfigError(f"differences must be finite and of shape [n >= 1], got shape {d_n.shape}")
    d_n = d_n[d_n != 0]  # the sign of a zero changes nothing
    if not d_n.size:
        return 1.0
    observed = abs(d_n.sum()) * (1 - 1e-12)  # sums that differ only by rounding are equal
    if 2**d_n.size <= draws:
        signs = np.array(list(product((-1.0, 1.0), repeat=d_n.size))).reshape(-1, d_n.size)
        return float((np.abs(signs @ d_n) >= observed).mean())
    parts = [1000] * (draws // 1000) + [draws % 1000]  # in parts, to bound the memory
    hits = sum(int((np.abs(rng.choice((-1.0, 1.0), (n, d_n.size)) @ d_n) >= observed).sum()) for n in parts)
    return (1 + hits) / (1 + draws)


@checked
def steps_to(spent: Sequence[float], success: Sequence[float], threshold: float) -> float | None:
    """What was spent when a curve first reaches a threshold, interpolated linearly between its points.

    Args:
        spent, success: [X] points of the curve; `spent` rises.
    Returns: in the unit of `spent`; None if it never does.
    Raises: ConfigError if the two have different lengths.
    """
    if len(spent) != len(success):
        raise ConfigError(f"spent and success must have equal lengths, got {len(spent)} and {len(success)}")
    for i, (x, y) in enumerate(zip(spent, success, strict=True)):
        if y >= threshold:
            if i == 0:
                return float(x)
            x0, y0 = spent[i - 1], success[i - 1]
            return float(x0 + (x - x0) * (threshold - y0) / (y - y0))
    return None


def _at_least_one(draws: int) -> None:
    if draws < 1:
        raise ConfigError(f"draws must be at least 1, not {draws}")


def _outcomes(values: ArrayLike) -> np.ndarray:
    array = as_floats(values, "outcomes [seeds, levels]", 2)
    if not array.size:
        raise ConfigError(f"outcomes [seeds, levels] must have at least one, got shape {array.shape}")
    return array
