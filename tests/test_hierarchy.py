"""Variants as values: the presets differ in exactly one axis, and what cannot be is refused when it is made."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from himac_lite import advantage
from himac_lite.errors import ConfigError
from himac_lite.hierarchy import PRESETS, Hierarchy, choose_best, choose_random, preset


def test_presets_change_one_axis_each():
    himac = PRESETS["himac"]
    assert himac == Hierarchy()
    assert himac.macro_advantage is himac.micro_advantage is advantage.group_advantage
    different = {
        name: [f.name for f in fields(Hierarchy) if getattr(variant, f.name) != getattr(himac, f.name)]
        for name, variant in PRESETS.items()
    }
    wanted = {"himac": [], "random_blueprint": ["choose"], "joint_update": ["schedule"], "flat_grpo": ["planner"]}
    assert {name: different[name] for name in wanted} == wanted
    assert all(preset(name) is variant for name, variant in PRESETS.items())


def test_an_unknown_variant_lists_the_known():
    with pytest.raises(ConfigError) as error:
        preset("himack")
    assert "'himack'" in str(error.value)
    assert all(name in str(error.value) for name in PRESETS)
    assert "\n" not in str(error.value)


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="schedule must be 'alternate' or 'joint', not 'both'"):
        Hierarchy(schedule="both")
    with pytest.raises(ConfigError, match=r"planner=False clashes with schedule='joint'"):
        Hierarchy(planner=False, schedule="joint")


def test_the_best_blueprint_is_the_first_of_the_highest():
    returns = np.array([[0.0, 1.0, 1.0], [0.0, 0.0, 0.0], [0.05, 0.0, 0.1]])
    assert choose_best(returns, np.random.default_rng(0)).tolist() == [1, 0, 2]


def test_a_random_blueprint_is_uniform_whatever_it_returned():
    returns = np.zeros((8000, 4))
    returns[:, 2] = 1.0
    chosen = choose_random(returns, np.random.default_rng(0))
    counts = np.bincount(chosen, minlength=4)
    # 2000 each; 3 degrees of freedom: 99.9 % of samples have chi-square below 16.27
    assert ((counts - 2000) ** 2 / 2000).sum() < 16.27
    assert (choose_random(returns, np.random.default_rng(0)) == chosen).all()
    assert (choose_random(returns, np.random.default_rng(1)) != chosen).any()
