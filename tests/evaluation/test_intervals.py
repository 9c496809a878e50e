"""Intervals and paired tests, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from himac_lite.evaluation.intervals import sign_flip_test, steps_to, t_interval, two_way_interval


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_t_interval_by_hand():
    # mean 2, s = 1, t_2 = 4.303: half 4.303/√3 = 2.4843
    assert t_interval([1.0, 2.0, 3.0]) == pytest.approx((2 - 2.4843, 2 + 2.4843), abs=1e-4)
    # mean 1/2, s = 1/√2, t_1 = 12.706: half 12.706/2 = 6.353
    assert t_interval([0.0, 1.0]) == pytest.approx((0.5 - 6.353, 0.5 + 6.353))
    assert t_interval([0.7] * 5) == pytest.approx((0.7, 0.7))
    assert t_interval([0.7]) == (-math.inf, math.inf)


def test_t_interval_covers():
    draws = np.random.default_rng(1).normal(3.0, 2.0, (4000, 5))
    inside = [low <= 3.0 <= high for low, high in map(t_interval, draws)]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.012)  # ± 3.5 standard errors


@pytest.mark.parametrize("values", [[], [[1.0]], [math.nan, 1.0]])
def test_t_interval_wants_numbers(values):
    with pytest.raises(ValueError, match="values must"):
        t_interval(values)


def test_sign_flips_by_hand():
    # Sums of ±1 ±2 ±3: 6, 4, 2, 0, 0, −2, −4, −6. |sum| ≥ 6: 2 of 8.
    assert sign_flip_test([1.0, 2.0, 3.0], rng()) == 2 / 8
    # |1 + 2 − 3| = 0: every sum is as large.
    assert sign_flip_test([1.0, 2.0, -3.0], rng()) == 1.0
    # Five seeds of one sign: 2 of 32, the least that five pairs can say.
    assert sign_flip_test([0.1] * 5, rng()) == 2 / 32
    # Zeros have no sign to flip.
    assert sign_flip_test([0.0, 0.0, 0.1, 0.1, 0.1, 0.1, 0.1], rng()) == 2 / 32
    assert sign_flip_test([0.0, 0.0], rng()) == 1.0
    assert sign_flip_test([1.0], rng()) == 1.0


def test_many_sign_flips_are_drawn():
    # 30 differences of one sign: the exact p is 2/2^30; none of 9,999 draws is as large: 1/10,000
    assert sign_flip_test([1.0] * 30, rng()) == pytest.approx(1e-4)
    # A symmetric case: p is near the normal one. Σ = 10 of 100 ±1: P(|S| ≥ 10) = 2·P(B ≥ 55), B ~ Bin(100, ½): 0.3682
    found = sign_flip_test([1.0] * 55 + [-1.0] * 45, rng())
    assert found == pytest.approx(0.3682, abs=0.016)  # ± 3.3 standard errors


def test_a_test_of_nothing_is_seldom_significant():
    noise = np.random.default_rng(2).normal(size=(1000, 8))
    below = np.mean([sign_flip_test(row, rng()) <= 0.05 for row in noise])
    assert below == pytest.approx(0.05, abs=0.023)


def test_two_way_interval():
    assert two_way_interval(np.ones((3, 50)), rng()) == (1.0, 1.0)
    # One seed, half of 400 levels: the interval of a proportion, ½ ± 1.96·½/20 = ½ ± 0.049
    low, high = two_way_interval(np.tile([0, 1], (1, 200)), rng())
    assert (low, high) == pytest.approx((0.451, 0.549), abs=0.006)
    # Seeds that differ widen it: 0, ½, 1 on average of all levels alike; three seeds drawn again are all 0 in 1 of 27
    seeds = np.array([[0] * 400, [0, 1] * 200, [1] * 400])
    assert two_way_interval(seeds, rng()) == pytest.approx((0.0, 1.0), abs=0.01)
    # A difference of equals is zero, whatever levels are drawn.
    same = np.tile([0, 1], (1, 200))
    assert two_way_interval(same, rng(), same) == (0.0, 0.0)
    with pytest.raises(ValueError, match=r"one column per level, got shapes \(1, 400\) and \(1, 3\)"):
        two_way_interval(same, rng(), [[0, 1, 0]])


def test_steps_to():
    spent, success = [0.0, 100.0, 200.0], [0.4, 0.6, 0.9]
    assert steps_to(spent, success, 0.5) == 50.0  # half way from 0.4 to 0.6
    assert steps_to(spent, success, 0.65) == pytest.approx(100 + 100 * 0.05 / 0.3)
    assert steps_to(spent, success, 0.4) == 0.0
    assert steps_to(spent, success, 0.95) is None
    # The first time counts, whatever comes after.
    assert steps_to([0, 1, 2], [0.0, 1.0, 0.0], 0.5) == 0.5
