"""Variants as values: the presets differ in few axes, and what cannot be is refused when it is made."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from himac_lite import advantage, hierarchy
from himac_lite.errors import ConfigError
from himac_lite.hierarchy import (
    PRESETS,
    BySegment,
    Fallback,
    Hierarchy,
    SameState,
    by_difference,
    choose_best,
    choose_oracle,
    choose_random,
    choose_softmax,
    fixed_steps,
    full_history,
    preset,
    subgoal_bonus,
    turns,
    verified,
)


def test_presets_change_few_axes():
    himac = PRESETS["himac"]
    assert himac == Hierarchy()
    assert himac.macro_advantage is himac.micro_advantage is advantage.group_advantage
    different = {
        name: [f.name for f in fields(Hierarchy) if getattr(variant, f.name) != getattr(himac, f.name)]
        for name, variant in PRESETS.items()
    }
    assert different == {
        "himac": [], "random_blueprint": ["choose"], "no_sub_done": ["end"], "joint_update": ["schedule"],
        "flat_grpo": ["depth"], "flat_dr_grpo": ["depth", "micro_advantage"],
        "flat_rloo": ["depth", "micro_advantage"], "flat_gigpo": ["depth", "credit", "state"],
        "replan": ["exhausted"], "keep_or_switch": ["end", "exhausted"], "gigpo_segments": ["credit", "state"],
        "three_levels": ["depth"],
    }  # fmt: skip
    assert all(preset(name) is variant for name, variant in PRESETS.items())
    assert [name for name, variant in PRESETS.items() if not variant.planner] == [
        "flat_grpo", "flat_dr_grpo", "flat_rloo", "flat_gigpo",
    ]  # fmt: skip


def test_the_advantages_of_the_flat_baselines_by_hand():
    """One success among four: mean 1/4, std √3/4."""
    returns = np.array([[1.0, 0.0, 0.0, 0.0]])
    assert PRESETS["flat_grpo"].advantages("micro", returns)[0] == pytest.approx([3**0.5, *[-(3**-0.5)] * 3], abs=1e-5)
    assert PRESETS["flat_dr_grpo"].advantages("micro", returns)[0] == pytest.approx([0.75, -0.25, -0.25, -0.25])
    # RLOO: the mean of the three others is 0 for the winner and 1/3 for each loser
    assert PRESETS["flat_rloo"].advantages("micro", returns)[0] == pytest.approx([1, -1 / 3, -1 / 3, -1 / 3])


def test_an_unknown_variant_lists_the_known():
    with pytest.raises(ConfigError) as error:
        preset("himack")
    assert "'himack'" in str(error.value)
    assert all(name in str(error.value) for name in PRESETS)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ({"depth": 4}, "depth must be 1, 2 or 3, not 4"),
        ({"sharing": "two"}, "sharing must be 'one' or 'each', not 'two'"),
        ({"schedule": "both"}, "schedule must be one of 'alternate', 'joint', 'planner', 'executor', not 'both'"),
        ({"exhausted": "stop"}, "exhausted must be 'next', 'abort' or 'replan', not 'stop'"),
        ({"used_up": "stop"}, "used_up must be 'end', 'keep' or 'replan', not 'stop'"),
        ({"optimizer": "none"}, "optimizer must be 'shared' or 'per_phase', not 'none'"),
        ({"midway": 1.5}, "midway must lie between 0 and 1; it is 1.5"),
        ({"depth": 3, "at_test": Fallback("replan")}, "depth=3 clashes with at_test=Fallback"),
        ({"depth": 1, "at_test": Fallback("replan")}, "depth=1 clashes with at_test=Fallback"),
        ({"depth": 1, "schedule": "joint"}, "depth=1 clashes with schedule='joint'"),
        ({"depth": 1, "choose": choose_random}, "depth=1 clashes with choose=choose_random"),
        ({"depth": 1, "end": fixed_steps(3)}, r"depth=1 clashes with end=Ending\(.*steps=3"),
        ({"depth": 1, "context": full_history}, "depth=1 clashes with context=full_history"),
        ({"depth": 1, "sharing": "each"}, "depth=1 clashes with sharing='each'"),
        ({"depth": 3, "schedule": "joint"}, "depth=3 clashes with schedule='joint'"),
        ({"depth": 3, "exhausted": "replan"}, "depth=3 clashes with exhausted='replan'"),
        ({"sharing": "each", "schedule": "joint"}, "sharing='each' clashes with schedule='joint'"),
        ({"exhausted": "abort", "end": fixed_steps(3)}, "exhausted='abort' clashes with end="),
        ({"credit": SameState()}, r"credit=SameState\(.*\) clashes with state=None"),
        ({"credit": BySegment()}, r"credit=BySegment\(.*\) clashes with reward=None"),
    ],
)
def test_what_cannot_be_is_refused(axes, words):
    with pytest.raises(ConfigError, match=words) as error:
        Hierarchy(**axes)
    assert "\n" not in str(error.value)


def test_a_sub_goal_lasts_at_least_a_step():
    with pytest.raises(ConfigError, match="at least 1 step, not 0"):
        fixed_steps(0)


def test_what_can_be_is_not_refused():
    """Neighbours of the clashes, and the axes together."""
    Hierarchy(exhausted="abort")
    Hierarchy(exhausted="abort", end=verified(lambda episode, subgoal: False))
    Hierarchy(depth=3, choose=choose_random)
    Hierarchy(depth=1, reward=subgoal_bonus(lambda episode, subgoal: False))
    both = Hierarchy(credit=SameState(), state=str, sharing="each", schedule=turns(2, 1), exhausted="replan")
    assert both.rules.fallback.exhausted == "replan"
    assert not both.rules.tactics
    assert Hierarchy(depth=3).rules.tactics
    assert Hierarchy().rules == hierarchy.Rules()


def test_a_schedule_by_iteration():
    assert [Hierarchy().phase(i) for i in range(2)] == ["alternate"] * 2
    variant = Hierarchy(schedule=turns(2, 1))
    assert [variant.phase(i) for i in range(6)] == ["planner", "planner", "executor"] * 2
    with pytest.raises(ConfigError, match=r"schedule must be one of .* not 'nobody'"):
        Hierarchy(schedule=lambda i: "nobody").phase(0)


# ---- the advantage hook ------------------------------------------------------------------------------------------


def test_any_function_of_the_returns_is_an_advantage():
    returns = np.array([[1.0, 0.0], [0.0, 0.0]])
    variant = Hierarchy(micro_advantage=lambda r: (2 * r - 1).tolist())
    found = variant.advantages("micro", returns)
    assert found.dtype == np.float64
    assert found.tolist() == [[1.0, -1.0], [-1.0, -1.0]]


def of_one_level(return_pn):
    return return_pn[0]


def divided_by_zero(return_pn):
    return np.where(return_pn > 0, 1.0, np.nan)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (of_one_level, r"macro_advantage=of_one_level returned shape \(3,\) for returns of shape \[P, N\] = \(2, 3\)"),
        (divided_by_zero, "macro_advantage=divided_by_zero returned 5 advantages that are not finite"),
    ],
)
def test_a_wrong_advantage_is_named_at_the_first_call(function, words):
    returns = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    with pytest.raises(ConfigError, match=words):
        Hierarchy(macro_advantage=function).advantages("macro", returns)


# ---- the choice of z* --------------------------------------------------------------------------------------------


def test_the_best_blueprint_is_the_first_of_the_highest():
    returns = np.array([[0.0, 1.0, 1.0], [0.0, 0.0, 0.0], [0.05, 0.0, 0.1]])
    assert choose_best(returns, np.random.default_rng(0)).tolist() == [1, 0, 2]
    assert choose_oracle(returns, np.random.default_rng(0)).tolist() == [hierarchy.ORACLE] * 3


def test_a_random_blueprint_is_uniform_whatever_it_returned():
    returns = np.zeros((8000, 4))
    returns[:, 2] = 1.0
    chosen = choose_random(returns, np.random.default_rng(0))
    counts = np.bincount(chosen, minlength=4)
    # 2000 each; 3 degrees of freedom: 99.9 % of samples have chi-square below 16.27
    assert ((counts - 2000) ** 2 / 2000).sum() < 16.27
    assert (choose_random(returns, np.random.default_rng(0)) == chosen).all()
    assert (choose_random(returns, np.random.default_rng(1)) != chosen).any()


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([0, 3], r"choose=wrong returned the index 3; it should return 2 integers, -1 or below 3"),
        ([-2, 0], r"choose=wrong returned the index -2"),
        ([0], r"choose=wrong returned int64 of shape \(1,\)"),
        ([0.0, 1.0], r"choose=wrong returned float64 of shape \(2,\)"),
    ],
)
def test_a_wrong_choice_is_named(found, words):
    def wrong(return_pg, rng):
        return np.array(found)

    with pytest.raises(ConfigError, match=words):
        Hierarchy(choose=wrong).pick(np.zeros((2, 3)), np.random.default_rng(0))


def test_a_softmax_choice_has_the_softmax_distribution():
    returns = np.tile([1.0, 0.0, 0.0], (6000, 1))
    counts = np.bincount(choose_softmax(0.5)(returns, np.random.default_rng(0)), minlength=3)
    # exp(2) : 1 : 1 of 9.389: 4722, 639, 639; 2 degrees of freedom: 99.9 % of samples are below 13.82
    expected = np.array([4721.9, 639.05, 639.05])
    assert ((counts - expected) ** 2 / expected).sum() < 13.82


def test_a_variant_is_changed_like_any_value():
    assert replace(PRESETS["himac"], schedule="joint") == PRESETS["joint_update"]
    with pytest.raises(AttributeError):
        Hierarchy().depth = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: Fallback(reached="x"), "reached must be Check"),
        (lambda: Fallback(used_up="stop"), "used_up must be 'end', 'keep' or 'replan', not 'stop'"),
        (lambda: by_difference(2.0), "least must lie between 0 and 1; it is 2.0"),
        (lambda: by_difference("x"), "least must be float, not 'x'"),
    ],
)
def test_the_values_of_an_axis_are_refused_when_they_are_made(made, words):
    with pytest.raises(ConfigError, match=words):
        made()
