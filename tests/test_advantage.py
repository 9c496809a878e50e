"""Advantages: literals derived by hand, the standard library as second opinion, and laws that hold for every group."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from himac_lite.advantage import (
    best,
    gigpo_advantage,
    group_advantage,
    group_advantage_over_steps,
    hierarchical_advantage,
    same_state_advantage,
    zero_variance,
)

ONE_IN_EIGHT = [[1, 0, 0, 0, 0, 0, 0, 0]]
groups = st.lists(st.lists(st.integers(-20, 20), min_size=4, max_size=4), min_size=1, max_size=5)
quick = settings(max_examples=60, deadline=None)


# ---- literals ----------------------------------------------------------------------------------------------------


def test_one_success_in_eight_population_std():
    # mean 1/8; variance p(1 − p) = 7/64; winner (7/8) / (√7/8) = √7 = 2.6458, loser −(1/8) / (√7/8) = −1/√7 = −0.3780
    a = group_advantage(ONE_IN_EIGHT, eps=0.0)[0]
    np.testing.assert_allclose(a, [2.6457513] + [-0.3779645] * 7, rtol=1e-6)


def test_one_success_in_eight_sample_std():
    # variance (49 + 7) / 64 / 7 = 1/8; winner (7/8) √8 = 2.4749, loser −(1/8) √8 = −0.3536: METHOD.md's +2.47/−0.35
    a = group_advantage(ONE_IN_EIGHT, ddof=1, eps=0.0)[0]
    np.testing.assert_allclose(a, [2.4748737] + [-0.3535534] * 7, rtol=1e-6)


def test_one_success_in_eight_dr_grpo():
    # 1 − 1/8 and 0 − 1/8
    np.testing.assert_array_equal(group_advantage(ONE_IN_EIGHT, scale="none")[0], [0.875] + [-0.125] * 7)


def test_one_success_in_eight_rloo():
    # the winner's seven siblings average 0; a loser's average 1/7
    a = group_advantage(ONE_IN_EIGHT, baseline="leave_one_out", scale="none")[0]
    np.testing.assert_allclose(a, [1.0] + [-1 / 7] * 7, rtol=1e-12)


def test_eps_is_added_to_the_std():
    # returns 0, 2: mean 1, std 1; with ε = 1 the advantage is ±1 / (1 + 1)
    np.testing.assert_array_equal(group_advantage([[0, 2]], eps=1.0), [[-0.5, 0.5]])


def test_batch_baseline_and_scale():
    # all four returns 0 2 4 6: mean 3, variance (9 + 1 + 1 + 9) / 4 = 5; the two groups have std 1 and means 1 and 5
    two = [[0, 2], [4, 6]]
    r5 = math.sqrt(5)
    np.testing.assert_array_equal(group_advantage(two, baseline="batch", scale="none"), [[-3, -1], [1, 3]])
    np.testing.assert_allclose(group_advantage(two, baseline="batch", eps=0.0), [[-3, -1], [1, 3]])
    np.testing.assert_allclose(group_advantage(two, scale="batch", eps=0.0), [[-1 / r5, 1 / r5]] * 2)
    np.testing.assert_allclose(
        group_advantage(two, baseline="batch", scale="batch", eps=0.0), [[-3 / r5, -1 / r5], [1 / r5, 3 / r5]]
    )


@pytest.mark.parametrize("baseline", ["mean", "leave_one_out"])
@pytest.mark.parametrize("scale", ["std", "none", "batch"])
@pytest.mark.parametrize("eps", [0.0, 1e-8, 1e-6])
def test_equal_returns_give_exact_zeros(baseline, scale, eps, recwarn):
    # 0.1 · 3 is not 0.3 in binary: a mean of equal floats can be off by one ulp, which ε = 1e-8 would make visible
    a = group_advantage([[0.1] * 3, [0.7] * 3, [0.0, 1.0, 2.0]], baseline=baseline, scale=scale, eps=eps)
    assert (a[:2] == 0.0).all()
    assert (a[2] != 0.0).any()
    assert not recwarn.list


def test_equal_returns_against_the_batch():
    # group 0 is all 1, group 1 all 0, batch mean ½: without a std of its own group 0 is simply better by ½ …
    two = [[1.0, 1.0], [0.0, 0.0]]
    np.testing.assert_array_equal(group_advantage(two, baseline="batch", scale="none"), [[0.5, 0.5], [-0.5, -0.5]])
    # … ½ over the batch's std of ½ …
    np.testing.assert_array_equal(group_advantage(two, baseline="batch", scale="batch", eps=0.0), [[1, 1], [-1, -1]])
    # … but ½ over its own std of 0 is no number: zero
    np.testing.assert_array_equal(group_advantage(two, baseline="batch", scale="std"), np.zeros((2, 2)))
    # and a batch that is all equal has nothing to compare either
    same = np.full((3, 3), 0.1)
    for scale in ("std", "none", "batch"):
        np.testing.assert_array_equal(group_advantage(same, baseline="batch", scale=scale), np.zeros((3, 3)))


def test_group_of_one_compares_with_nothing():
    np.testing.assert_array_equal(group_advantage([[3.0], [5.0]]), [[0.0], [0.0]])


def test_zero_variance():
    assert zero_variance([[1, 1, 1], [1, 0, 1], [0, 0, 0]]).tolist() == [True, False, True]


def test_statistics_over_steps_or_over_trajectories():
    """METHOD.md: with 2 wins of 4 steps and 6 losses of 15 steps a winner's A is +1.62 or +3.34; both mean ddof 1."""
    returns, steps = [[1, 1, 0, 0, 0, 0, 0, 0]], [[4, 4, 15, 15, 15, 15, 15, 15]]
    # over 8 trajectories: p = 1/4, sample variance 8/7 · 3/16 = 3/14; ¾ √(14/3) = 1.6202 and −¼ √(14/3) = −0.5401
    np.testing.assert_allclose(
        group_advantage(returns, ddof=1, eps=0.0), [[1.6201852] * 2 + [-0.5400617] * 6], rtol=1e-6
    )
    # over 98 steps, 8 of them won: p = 4/49, sample variance 98/97 · p (1 − p); winner √((1 − p) / p · 97/98)
    # = √(45/4 · 97/98) = 3.3369, loser −√(p / (1 − p) · 97/98) = −√(4/45 · 97/98) = −0.2966
    np.testing.assert_allclose(
        group_advantage_over_steps(returns, steps, ddof=1, eps=0.0), [[3.3369453] * 2 + [-0.2966174] * 6], rtol=1e-6
    )
    # with ddof 0 they would be √3 = 1.7321 and √(45/4) = 3.3541
    np.testing.assert_allclose(group_advantage(returns, eps=0.0)[0, 0], 1.7320508, rtol=1e-6)
    np.testing.assert_allclose(group_advantage_over_steps(returns, steps, eps=0.0)[0, 0], 3.3541020, rtol=1e-6)


def test_over_steps_without_std_and_per_group():
    # group 0: steps 1 and 3, mean (1·4 + 3·0) / 4 = 1; group 1: all equal
    a = group_advantage_over_steps([[4.0, 0.0], [0.1, 0.1]], [[1, 3], [2, 7]], scale="none")
    np.testing.assert_array_equal(a, [[3.0, -1.0], [0.0, 0.0]])


def test_best_is_the_first_of_the_highest():
    assert best([[0, 1, 1], [2, 0, 2], [0, 0, 0]]).tolist() == [1, 0, 0]


def test_hierarchical_advantage():
    # P = 2, G = 4, N = 2. Macro, level 0: mean 1, variance (1 + 1 + 1 + 9) / 4 = 3; level 1: mean 1, variance 1.
    # Micro, level 0: ±1; level 1: all equal.
    h = hierarchical_advantage([[0, 0, 0, 4], [2, 0, 2, 0]], [[3, 1], [5, 5]], eps=0.0)
    r3 = math.sqrt(3)
    np.testing.assert_allclose(h.macro_pg, [[-1 / r3, -1 / r3, -1 / r3, 3 / r3], [1, -1, 1, -1]])
    np.testing.assert_array_equal(h.micro_pn, [[1, -1], [0, 0]])
    assert h.best_p.tolist() == [3, 0]


def test_hierarchical_choices_reach_both_levels():
    h = hierarchical_advantage([[0, 4]], [[0, 8]], scale="none")
    assert h.macro_pg.tolist() == [[-2, 2]]
    assert h.micro_pn.tolist() == [[-4, 4]]


# τ_0 takes a step in state a, then one in b, and is rewarded at its end; τ_1 passes a and c and is not
REWARDS, STATES = [[0.0, 1.0], [0.0, 0.0]], [["a", "b"], ["a", "c"]]


def test_same_state_advantage():
    # γ = ½: G_0 = (½, 1), G_1 = (0, 0). In a: ½ and 0, mean ¼. b and c are met once: nothing to compare.
    plain = same_state_advantage(REWARDS, STATES, gamma=0.5, scale="none")
    assert [a.tolist() for a in plain] == [[0.25, 0.0], [-0.25, 0.0]]
    # with the std of ¼: ±1
    scaled = same_state_advantage(REWARDS, STATES, gamma=0.5, eps=0.0)
    assert [a.tolist() for a in scaled] == [[1.0, 0.0], [-1.0, 0.0]]


def test_same_state_within_one_trajectory():
    # one trajectory waits in a (reward 0), comes back to a and scores 1; γ = ½: G = (½, 1), mean ¾
    (a,) = same_state_advantage([[0.0, 1.0]], [["a", "a"]], gamma=0.5, scale="none")
    assert a.tolist() == [-0.25, 0.25]


def test_gigpo_advantage():
    # episode: returns 1 and 0, mean ½, without std ±½; step: ±¼ in a, weighted by ω = 2
    a = gigpo_advantage(REWARDS, STATES, omega=2.0, gamma=0.5, scale="none")
    assert [x.tolist() for x in a] == [[1.0, 0.5], [-1.0, -0.5]]
    # the paper's γ = 0.95 and ω = 1: both terms ±1 once divided by their std
    a = gigpo_advantage(REWARDS, STATES, eps=0.0)
    np.testing.assert_allclose(np.stack(a), [[2.0, 1.0], [-2.0, -1.0]])


def test_same_state_takes_trajectories_of_different_length():
    # γ = 1: G_0 = (1), G_1 = (3, 3, 2), G_2 = (). In s: 1, 3, 3 with mean 7/3; e is met once
    a = same_state_advantage([[1], [0, 1, 2], []], [["s"], ["s", "s", "e"], []], gamma=1.0, scale="none")
    np.testing.assert_allclose(a[0], [-4 / 3])
    np.testing.assert_allclose(a[1], [2 / 3, 2 / 3, 0.0])
    assert a[2].shape == (0,)


# ---- second opinion ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ddof", [0, 1])
def test_parity_with_the_statistics_module(ddof):
    r_pn = np.random.default_rng(0).normal(size=(6, 8)).tolist()
    spread = statistics.stdev if ddof else statistics.pstdev
    expected = [[(r - statistics.fmean(g)) / (spread(g) + 1e-6) for r in g] for g in r_pn]
    np.testing.assert_allclose(group_advantage(r_pn, ddof=ddof), expected, rtol=1e-10)
    loo = [[r - statistics.fmean(g[:i] + g[i + 1 :]) for i, r in enumerate(g)] for g in r_pn]
    np.testing.assert_allclose(group_advantage(r_pn, baseline="leave_one_out", scale="none"), loo, rtol=1e-10)


def test_parity_of_same_state_with_a_double_loop():
    rng = np.random.default_rng(1)
    lengths = [3, 6, 1, 5]
    rewards = [rng.normal(size=n).tolist() for n in lengths]
    states = [rng.integers(0, 4, size=n).tolist() for n in lengths]
    to_go = [[sum(0.9 ** (u - s) * r[u] for u in range(s, len(r))) for s in range(len(r))] for r in rewards]
    met = defaultdict(list)
    for g, s in zip(chain(*to_go), chain(*states), strict=True):
        met[s].append(g)
    for a, gs, ss in zip(same_state_advantage(rewards, states, gamma=0.9, scale="none"), to_go, states, strict=True):
        np.testing.assert_allclose(a, [g - statistics.fmean(met[s]) for g, s in zip(gs, ss, strict=True)], atol=1e-12)


# ---- laws --------------------------------------------------------------------------------------------------------


@quick
@given(groups, st.integers(-100, 100), st.sampled_from(["mean", "leave_one_out", "batch"]))
def test_a_constant_added_to_all_returns_changes_nothing(r_pn, shift, baseline):
    shifted = np.array(r_pn) + shift
    np.testing.assert_allclose(
        group_advantage(shifted, baseline=baseline), group_advantage(r_pn, baseline=baseline), atol=1e-9
    )


@quick
@given(groups, st.sampled_from([0.01, 0.5, 3.0, 1000.0]))
def test_the_unit_of_the_reward_cancels_with_std_and_only_then(r_pn, factor):
    scaled = np.array(r_pn) * factor
    np.testing.assert_allclose(group_advantage(scaled, eps=0.0), group_advantage(r_pn, eps=0.0), atol=1e-9)
    np.testing.assert_allclose(
        group_advantage(scaled, scale="none"), factor * group_advantage(r_pn, scale="none"), atol=1e-9
    )


@quick
@given(groups, st.sampled_from(["mean", "leave_one_out"]), st.sampled_from(["std", "none", "batch"]))
def test_advantages_of_a_group_sum_to_zero(r_pn, baseline, scale):
    np.testing.assert_allclose(group_advantage(r_pn, baseline=baseline, scale=scale).sum(axis=1), 0.0, atol=1e-9)


@quick
@given(groups)
def test_rloo_is_dr_grpo_times_n_over_n_minus_one(r_pn):
    # R_i − (S − R_i) / (N − 1) = N / (N − 1) · (R_i − S / N), here with N = 4
    loo = group_advantage(r_pn, baseline="leave_one_out", scale="none")
    np.testing.assert_allclose(loo, 4 / 3 * group_advantage(r_pn, scale="none"), atol=1e-9)


@quick
@given(groups, st.lists(st.integers(1, 30), min_size=4, max_size=4))
def test_over_steps_the_sum_over_steps_is_zero(r_pn, steps_n):
    steps_pn = np.tile(steps_n, (len(r_pn), 1))
    a_pn = group_advantage_over_steps(r_pn, steps_pn)
    np.testing.assert_allclose((steps_pn * a_pn).sum(axis=1), 0.0, atol=1e-9)


@quick
@given(groups)
def test_the_input_is_left_alone_and_groups_do_not_see_each_other(r_pn):
    given_pn = np.array(r_pn, dtype=float)
    together = group_advantage(given_pn)
    np.testing.assert_array_equal(given_pn, r_pn)
    for p, r_n in enumerate(r_pn):
        np.testing.assert_array_equal(together[p], group_advantage([r_n])[0])


# ---- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [[1.0, 2.0], [[[1.0]]], [], [[]], 3.0])
@pytest.mark.parametrize("function", [group_advantage, zero_variance, best])
def test_wrong_rank(function, bad):
    with pytest.raises(ValueError, match=r"\[P, [NG]\] must have rank 2"):
        function(bad)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_returns_must_be_finite(bad):
    with pytest.raises(ValueError, match="finite"):
        group_advantage([[0.0, bad]])


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"baseline": "median"}, "baseline must be one of mean, leave_one_out, batch"),
        ({"scale": "var"}, "scale must be one of std, none, batch"),
        ({"baseline": "leave_one_out"}, "N >= 2"),
        ({"ddof": 1}, "ddof < number of returns"),
        ({"ddof": -1}, "ddof < number of returns"),
        ({"scale": "batch", "ddof": 1}, "ddof < number of returns"),
    ],
)
def test_choices_that_are_not_allowed_for_a_group_of_one(choices, message):
    with pytest.raises(ValueError, match=message):
        group_advantage([[1.0]], **choices)


@pytest.mark.parametrize("steps", [[[1]], [[1, 0]], [[1.5, 2.0]]])
def test_steps_must_match(steps):
    with pytest.raises(ValueError, match="steps_pn must hold integers >= 1"):
        group_advantage_over_steps([[0.0, 1.0]], steps)


def test_over_steps_has_no_batch():
    with pytest.raises(ValueError, match="not defined over steps"):
        group_advantage_over_steps([[0.0, 1.0]], [[1, 2]], scale="batch")


def test_levels_must_agree_about_p():
    with pytest.raises(ValueError, match="must share P"):
        hierarchical_advantage([[0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]])


def test_rewards_and_states_must_match():
    with pytest.raises(ValueError, match="one reward and one state a step"):
        same_state_advantage([[0.0, 1.0]], [["a"]])
    with pytest.raises(ValueError, match="gamma"):
        same_state_advantage([[0.0]], [["a"]], gamma=95)
