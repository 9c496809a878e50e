"""Scores: intervals and bins by hand, the random policy by its seed, and the three modes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conftest import TOY_STEPS, ScriptedPolicy

from himac_lite.errors import ConfigError
from himac_lite.rollout.evaluate import evaluate, play_random, profile, score, wilson
from himac_lite.rollout.rules import Fallback, ReturnRule, Rules, fixed_steps
from himac_lite.tasks.sokoban.task import SokobanTask
from himac_lite.types import Blueprint, Invalid, Level, SubGoal, Trajectory

CORRIDOR = Level(("#######", "#@$  .#", "#######"))
FAR = "push the box at (1,2) right to (1,5)"


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # z² = 3.8416. 8 of 10: centre 0.8 + z²/20 = 0.99208, half 1.96 √(0.16/10 + z²/400) = 1.96 √0.025604 = 0.31362,
        # both over 1 + z²/10 = 1.38416: (0.67846, 1.30570)/1.38416.
        (8, 10, 0.49016, 0.94332),
        # 0 of 10: centre and half are both z²/20 = 0.19208: (0, 0.38416)/1.38416
        (0, 10, 0.0, 0.27754),
        (10, 10, 0.72246, 1.0),
        # 1 of 2: centre 0.5 + z²/4 = 1.4604, half 1.96 √(0.125 + z²/16) = 1.96 √0.3651 = 1.18430, over 2.9208
        (1, 2, 0.09453, 0.90547),
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson_by_hand(successes, n, low, high):
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_covers():
    """The interval holds the true share in about 95 % of samples, also near 1, where ± 1.96 σ does not."""
    rng = np.random.default_rng(0)
    for p in (0.02, 0.3, 0.8, 0.98):
        inside = [low <= p <= high for low, high in (wilson(int(k), 100) for k in rng.binomial(100, p, 2000))]
        assert 0.93 < np.mean(inside) < 0.985


def done(success: bool, ret: float = 0.0, steps: int = 1, blueprint: Blueprint | None = None) -> Trajectory:
    return Trajectory(blueprint, (), "", ret, success, steps)


def level(moves: int | None) -> Level:
    return Level(CORRIDOR.rows, "", moves, moves)


def test_a_score_by_hand():
    # Bins by optimal moves, both ends inclusive: 0–8, 9–12, 13–16, 17–25, 26+.
    lengths = [1, 8, 9, 12, 13, 17, 25, 26, 300]
    wins = [True, False, True, True, False, True, True, False, True]
    result = score(
        "flat", SokobanTask(), [level(n) for n in lengths], [done(w, float(w), 10 + i) for i, w in enumerate(wins)]
    )
    assert result.by_length == {
        "0-8": {"n": 2, "success": 0.5},
        "9-12": {"n": 2, "success": 1.0},
        "13-16": {"n": 1, "success": 0.0},
        "17-25": {"n": 2, "success": 1.0},
        "26+": {"n": 2, "success": 0.5},
    }
    assert (result.mode, result.n, result.success) == ("flat", 9, pytest.approx(6 / 9))
    assert result.ci95 == wilson(6, 9)
    assert (result.mean_return, result.mean_steps) == (pytest.approx(6 / 9), pytest.approx(14.0))
    assert result.blueprint_valid is None  # there was none
    assert json.loads(json.dumps(result.as_dict()))["by_length"]["26+"]["n"] == 2


def test_bins_without_levels_are_left_out():
    assert list(score("flat", SokobanTask(), [level(10)], [done(True)]).by_length) == ["9-12"]


def test_the_share_of_valid_blueprints():
    good, bad = Blueprint("z", (SubGoal("z"),)), Blueprint("", (), Invalid.EMPTY)
    result = score("himac", SokobanTask(), [level(1)] * 4, [done(False, blueprint=b) for b in (good, bad, good, good)])
    assert result.blueprint_valid == 0.75


def test_the_optimal_length_is_looked_up_or_solved():
    assert SokobanTask().difficulty(level(17)) == 17
    assert SokobanTask().difficulty(CORRIDOR) == 3
    assert SokobanTask().difficulty(Level(("#####", "#$@.#", "#####"))) == 0  # the box cannot leave its corner


# ---- modes -------------------------------------------------------------------------------------------------------


def test_himac_scores_one_greedy_episode_a_level():
    policy = ScriptedPolicy(
        f"\n{FAR}<end>", "<end>", f"\n{FAR}<end>",
        "\nright\nright\nright", "\nright<sub_done>",
    )  # fmt: skip
    taller = Level(("#######", "#@$  .#", "#######", "#######"))  # another level, on which the same plan is played
    result = evaluate(policy, SokobanTask(), [CORRIDOR, CORRIDOR, taller], "himac")
    assert [(c["rows"], c["temperature"]) for c in policy.calls] == [(3, 0.0), (2, 0.0)]
    assert (result.success, result.n, result.mode) == (pytest.approx(1 / 3), 3, "himac")
    assert result.blueprint_valid == pytest.approx(2 / 3)
    assert result.mean_steps == pytest.approx((3 + 0 + 1) / 3)
    assert result.by_length == {"0-8": {"n": 3, "success": pytest.approx(1 / 3)}}


def test_flat_scores_one_greedy_episode_a_level():
    policy = ScriptedPolicy("\nright\nright\nright", "\nup\nup\nup\nup")
    result = evaluate(policy, SokobanTask(max_steps=4), [CORRIDOR] * 2, "flat")
    assert (result.success, result.mean_steps, result.blueprint_valid) == (0.5, 3.5, None)
    assert policy.calls[0]["temperature"] == 0.0


def test_random_play_is_worth_what_the_return_rule_says():
    half = Level(("#######", "#@$ .*#", "#######"))  # one of two boxes is on its target, whatever one step does
    (played,) = play_random(SokobanTask(max_steps=1), [half], 0, ReturnRule(0.2))
    assert played.ret == pytest.approx(0.2 * 1 / 2)


@pytest.mark.parametrize(("policy", "mode"), [(None, "himac"), (None, "flat"), ("any", "beam"), (None, "")])
def test_an_unknown_mode_lists_the_known(policy: Any, mode):
    with pytest.raises(ConfigError) as error:
        evaluate(policy, SokobanTask(), [CORRIDOR], mode)
    assert repr(mode) in str(error.value)
    assert "himac, flat, random" in str(error.value)


# ---- the random policy -------------------------------------------------------------------------------------------


def test_the_random_policy_depends_on_its_seed_alone():
    task, levels = SokobanTask(max_steps=6), [CORRIDOR] * 40

    def moves(seed: int) -> list[str]:
        np.random.seed(seed + 100)  # noqa: NPY002  (a global state that must not matter)
        return [t.moves for t in play_random(task, levels, seed, ReturnRule())]

    assert moves(0) == moves(0)
    assert moves(0) != moves(1)
    assert evaluate(None, task, levels, "random", seed=3) == evaluate(None, task, levels, "random", seed=3)
    assert len(set(moves(0))) > 30  # every level is played anew


def test_the_random_policy_solves_what_chance_solves():
    # One push to the right, all other moves blocked: within 3 steps with probability 1 − (3/4)³ = 37/64 = 0.578.
    # 1000 levels: standard deviation √(0.578 · 0.422 / 1000) = 0.0156, four of them 0.063.
    one = Level(("#####", "#@$.#", "#####"))
    result = evaluate(None, SokobanTask(max_steps=3), [one] * 1000, "random")
    assert result.success == pytest.approx(37 / 64, abs=0.063)
    assert result.mean_return == result.success
    # Steps: 1 with ¼, 2 with 3/16, 3 otherwise: 0.25 + 0.375 + 27/16 = 2.3125
    assert result.mean_steps == pytest.approx(2.3125, abs=0.1)


def test_the_random_policy_stops_at_success_and_at_the_limit():
    for t in play_random(SokobanTask(max_steps=5), [CORRIDOR] * 60, 0, ReturnRule()):
        assert t.steps == len(t.moves) <= 5
        assert t.success == (t.moves.count("R") == 3)
        assert t.success or t.steps == 5
        assert not t.success or t.moves.endswith("R")


# ---- the profile of a base model ---------------------------------------------------------------------------------


def test_the_profile_of_a_real_policy(policy, toy_levels):
    task = SokobanTask(max_steps=TOY_STEPS, subgoal_budget=TOY_STEPS)
    result = profile(policy, task, toy_levels, n=8, seed=1)
    assert result == profile(policy, task, toy_levels, n=8, seed=1)
    assert all(0 <= v <= 1 for v in result.values())
    assert result["greedy_himac"] == evaluate(policy, task, toy_levels, "himac").success
    assert result["greedy_flat"] == evaluate(policy, task, toy_levels, "flat").success
    for way in ("himac", "flat"):
        assert result[f"sampled_{way}"] < result[f"pass8_{way}"]  # some of 8 samples against one
    assert 0 < result["blueprint_valid"] < 1
    assert result["executor_on_oracle"] == 1.0
    hasty = Rules(end=fixed_steps(1))  # two levels end with a push of two moves
    other = profile(policy, task, toy_levels, n=8, seed=1, rules=hasty)
    assert other["greedy_himac"] == evaluate(policy, task, toy_levels, "himac", hasty).success
    assert other["executor_on_oracle"] == 0.5
    kept = profile(policy, task, toy_levels, n=8, seed=1, rules=replace(hasty, fallback=Fallback("keep")))
    assert kept["greedy_himac"] > other["greedy_himac"]
    assert kept["executor_on_oracle"] == 0.5  # nothing follows the oracle's blueprint
