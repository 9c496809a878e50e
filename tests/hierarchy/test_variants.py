"""Variants in training: the middle level by hand, schedules, an adapter a role, and every preset really learns."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ScriptedPolicy
from iterations import (
    CONFIG,
    CORRIDOR,
    FAR,
    FOUR,
    NEAR,
    PLAYED,
    SAMPLED,
    TASK,
    flat,
    gradient,
    learner_of,
    macro_items,
    one_iteration,
    shake,
    watch_learning,
)

from himac_lite import coevolution
from himac_lite.coevolution import optimizers_for
from himac_lite.errors import ConfigError
from himac_lite.hierarchy import (
    PRESETS,
    Hierarchy,
    by_difference,
    choose_oracle,
    gain_over_flat,
    judged_by,
    mean_of,
    turns,
)
from himac_lite.policy.loading import LoraSettings, load_policy
from himac_lite.policy.model import OF_EXECUTOR, Policy
from himac_lite.tasks.sokoban.goals import carried_out
from himac_lite.types import Blueprint, Credited, Role, SubGoal

TWO = replace(CONFIG, rollout=replace(CONFIG.rollout, group=2))


def test_an_iteration_of_three_levels_by_hand(learnt):
    right3, right = "\nright\nright\nright", "\nright<sub_done>"
    policy = ScriptedPolicy(
        f"\n{NEAR}<end>", f"\n{FAR}<end>",  # two blueprints of the top level
        f"\n{NEAR}<end>", f"\n{FAR}<end>",  # divided greedily: near stays near, far stays far
        right, right3,  # and executed greedily: the second solves it, z* = far
        f"\n{NEAR}<end>", f"\n{FAR}\n{NEAR}<end>",  # middle level: two ways to divide far
        right, right3,  # executed greedily: the second solves it
        right3, "\nup\nup\nup",  # bottom level: two executions of the second way, as it was told
    )  # fmt: skip
    step = one_iteration(policy, [CORRIDOR], "three_levels", TWO)
    assert policy.unused == 0
    assert [(c["rows"], c["temperature"]) for c in policy.calls] == [
        (2, 1.0), (2, 0.0), (2, 0.0), (2, 1.0), (2, 0.0), (2, 1.0),
    ]  # fmt: skip
    assert step.best_p.tolist() == [1]
    assert step.micro[0].blueprint == Blueprint(f"\n{FAR}", (SubGoal(FAR),))
    top, middle, bottom = learnt
    assert [(c.sequence.role, round(c.advantage)) for c in flat(top)] == [(Role.PLANNER, -1), (Role.PLANNER, 1)]
    assert [c.sequence for c in flat(top)] == [
        t.blueprint_tokens for t in step.macro[0].trajectories
    ]  # not what the frozen middle level wrote
    assert [(c.sequence.text, round(c.advantage)) for c in flat(middle)] == [
        (f"\n{NEAR}", -1), (f"\n{FAR}\n{NEAR}", 1),
    ]  # fmt: skip
    assert [(c.sequence.role, round(c.advantage)) for c in flat(bottom)] == [(Role.EXECUTOR, 1), (Role.EXECUTOR, -1)]
    assert {name.split("/")[0] for name in step.metrics} == {"macro", "middle", "micro"}
    assert step.metrics["middle/success"] == 0.5
    # Steps: 1 + 3, 1 + 3, 3 + 3. Tokens: blueprints 5 + 5; divisions 5 + 5, 5 + 9; actions 2 + 3, 2 + 3, 3 + 3.
    assert step.env_steps == 14
    assert step.tokens == 10 + 10 + 14 + 5 + 5 + 6


@pytest.mark.parametrize(
    ("phase", "roles"), [("planner", [{Role.PLANNER}]), ("executor", [{Role.EXECUTOR}])], ids=["planner", "executor"]
)
def test_who_does_not_learn_is_not_played_for_nothing(learnt, phase, roles):
    scripts = PLAYED if phase == "planner" else (*PLAYED, *SAMPLED)
    policy = ScriptedPolicy(*scripts)
    step = one_iteration(policy, [CORRIDOR], Hierarchy(schedule=phase), FOUR)
    assert policy.unused == 0
    assert [{c.sequence.role for c in flat(groups)} for groups in learnt] == roles
    assert bool(step.micro) == (phase == "executor")
    assert any(name.startswith("micro/") for name in step.metrics) == (phase == "executor")


def test_midway_groups_begin_where_a_plan_ended(learnt):
    """Of four blueprints for the corridor one ends too early. Four more are compared for the board that it left."""
    rest = "push the box at (1,3) right to (1,5)"
    later = (f"\n{rest}<end>", "<end>", "<end>", "<end>", "\nright\nright")
    step = one_iteration(ScriptedPolicy(*PLAYED, *later), [CORRIDOR], Hierarchy(schedule="planner", midway=1.0), FOUR)
    first, second = step.macro
    assert second.level.rows == ("#######", "# @$ .#", "#######")
    assert [t.ret for t in second.trajectories] == [1.0, 0.0, 0.0, 0.0]
    assert step.macro_adv_pg[1] == pytest.approx([math.sqrt(3), *[-1 / math.sqrt(3)] * 3], abs=1e-3)
    assert (step.metrics["macro/success"], step.metrics["midway/success"]) == (0.5, 0.25)
    assert step.env_steps == sum(t.steps for t in (*first.trajectories, *second.trajectories))
    (groups,) = learnt
    assert [item.advantage for item in groups[1]] == list(step.macro_adv_pg[1])


def test_no_midway_group_where_no_plan_leaves_a_board(learnt):
    """Invalid blueprints make no step."""
    step = one_iteration(ScriptedPolicy(*["<end>"] * 4), [CORRIDOR], Hierarchy(schedule="planner", midway=1.0), FOUR)
    assert len(step.macro) == 1


@pytest.mark.parametrize(
    ("live", "groups"), [(None, 4), ((1.0, 0.5), 2), ((0.5, 0.5), 4), ((1.0, 0.0), 1), ((0.0, 0.0), 4)]
)
def test_phase_b_is_spent_where_executions_differ(policy, toy_levels, live, groups):
    learner = learner_of(policy, Hierarchy(spend=by_difference(0.25)))
    step = coevolution.iterate(learner, toy_levels[:4], np.random.SeedSequence(5), live=live)
    assert (len(step.macro), len(step.micro)) == (4, groups)


@pytest.mark.parametrize("share", [float("nan"), 1.5, -0.1])
def test_a_wrong_share_is_named(policy, toy_levels, share):
    learner = learner_of(policy, Hierarchy(spend=lambda macro, micro: share))
    with pytest.raises(ConfigError, match=f"spend=<lambda> returned {share!r}, not a share"):
        coevolution.iterate(learner, toy_levels[:4], np.random.SeedSequence(5), live=(0.5, 0.5))


@pytest.mark.parametrize("own", [True, False], ids=["per_phase", "shared"])
def test_the_first_step_of_phase_b_with_and_without_the_moments_of_phase_a(policy, toy_levels, monkeypatch, own):
    """With a state a phase, phase B learns as if the gradients of phase A had never entered the moments."""
    learner = learner_of(policy, Hierarchy(optimizer="per_phase" if own else "shared"))
    real, compared = coevolution.learn, []

    def watched(policy, optimizer, groups, settings, temperature, rng):
        before, again = [p.detach().clone() for p in policy.trainable()], copy.deepcopy(rng)
        metrics = real(policy, optimizer, groups, settings, temperature, rng)
        after = [p.detach().clone() for p in policy.trainable()]
        with torch.no_grad():
            for p, value in zip(policy.trainable(), before, strict=True):
                p.copy_(value)
        policy.changed()
        fresh = optimizers_for(policy.trainable(), Hierarchy(), 1e-2)["macro"]
        real(policy, fresh, groups, settings, temperature, again)
        compared.append(all(torch.equal(p, value) for p, value in zip(policy.trainable(), after, strict=True)))
        return metrics

    monkeypatch.setattr(coevolution, "learn", watched)
    coevolution.iterate(learner, toy_levels[:4], np.random.SeedSequence(5))
    assert compared == [True, own]  # phase A begins with a fresh state in both


def test_turns_go_by_the_iteration(learnt):
    variant = Hierarchy(schedule=turns(1, 1))
    for iteration, scripts in ((0, PLAYED), (1, (*PLAYED, *SAMPLED))):
        learner = learner_of(ScriptedPolicy(*scripts), variant, FOUR)
        coevolution.iterate(learner, [CORRIDOR], np.random.SeedSequence(5), iteration)
    assert [{c.sequence.role for c in flat(groups)} for groups in learnt] == [{Role.PLANNER}, {Role.EXECUTOR}]


def test_the_oracle_as_teacher(learnt):
    policy = ScriptedPolicy(*PLAYED, *SAMPLED)
    step = one_iteration(policy, [CORRIDOR], Hierarchy(choose=choose_oracle), FOUR)
    assert step.best_p.tolist() == [-1]
    assert step.micro[0].blueprint == Blueprint(f"\n{FAR}", (SubGoal(FAR),))  # the solver's, not a member's


def test_the_mean_of_several_executions(learnt):
    """Two sampled executions a blueprint: 1 and 0 for far, 0 and 0 for near."""
    policy = ScriptedPolicy(
        f"\n{FAR}<end>", f"\n{NEAR}<end>",
        "\nright\nright\nright", "\nup\nup\nup", "\nright<sub_done>", "<sub_done>",
        "\nright\nright\nright", "<sub_done>",
    )  # fmt: skip
    step = one_iteration(policy, [CORRIDOR], Hierarchy(score=mean_of(2)), TWO)
    assert policy.unused == 0
    assert [t.ret for t in step.macro[0].trajectories] == [0.5, 0.0]
    assert step.env_steps == (3 + 3 + 1 + 0) + (3 + 0)  # all that was played is counted


def test_the_gain_over_play_without_a_plan(learnt):
    scripts = [f"\n{FAR}<end>", f"\n{NEAR}<end>", "\nright\nright\nright"]  # flat play solves it
    policy = ScriptedPolicy(*scripts, "\nright\nright\nright", "\nright<sub_done>", *["<sub_done>"] * 2)
    step = one_iteration(policy, [CORRIDOR], Hierarchy(score=gain_over_flat), TWO)
    assert [t.ret for t in step.macro[0].trajectories] == [0.0, -1.0]
    assert step.env_steps == 3 + 3 + 1


def test_a_perfect_judge_praises_what_this_executor_cannot_do(learnt):
    policy = ScriptedPolicy(f"\n{FAR}<end>", f"\n{NEAR}<end>", "\nup\nup\nup", "<sub_done>", *["<sub_done>"] * 2)
    step = one_iteration(policy, [CORRIDOR], Hierarchy(score=judged_by(carried_out)), TWO)
    assert [(t.ret, t.success) for t in step.macro[0].trajectories] == [(1.0, False), (0.0, False)]


def test_a_wrong_advantage_stops_the_run_at_the_first_iteration(learnt):
    variant = Hierarchy(micro_advantage=lambda return_pn: return_pn.mean(1))
    with pytest.raises(ConfigError, match=r"micro_advantage=<lambda> returned shape \(1,\)"):
        one_iteration(ScriptedPolicy(*PLAYED, *SAMPLED), [CORRIDOR], variant, FOUR)


def test_a_score_of_too_few_is_named(learnt):
    variant = Hierarchy(score=lambda table, jobs, planner: table.execute(jobs[:1]))
    with pytest.raises(ConfigError, match="score returned 1 trajectories for 4 blueprints"):
        one_iteration(ScriptedPolicy(*PLAYED), [CORRIDOR], variant, FOUR)


# ---- by a real policy --------------------------------------------------------------------------------------------


IN_COEVOLUTION = ("himac", "random_blueprint", "joint_update", "flat_grpo")
"""Those of test_every_phase_starts_on_policy."""


@pytest.mark.parametrize("variant", [name for name in PRESETS if name not in IN_COEVOLUTION])
def test_every_preset_learns_on_policy(policy, toy_levels, monkeypatch, variant):
    """What `learn` is given was sampled by the weights that it starts from, under the constraint it scores with."""
    seen = watch_learning(monkeypatch)
    before = [p.detach().clone() for p in policy.trainable()]
    step = one_iteration(policy, toy_levels, variant, seed=6)
    assert any(roles for roles, _ in seen)
    assert max(gap for _, gap in seen) < 1e-4
    assert any(not torch.equal(p, q) for p, q in zip(policy.trainable(), before, strict=True))
    assert all(math.isfinite(v) for v in step.metrics.values())


def test_an_advantage_a_token_is_the_one_of_the_sequence_where_all_are_equal(policy, toy_levels):
    items = flat(macro_items(shake(policy), toy_levels))
    spread = [Credited(i.sequence, (i.advantage,) * (len(i.sequence.ids) - i.sequence.prompt_len)) for i in items]
    for g, h in zip(gradient(policy, items), gradient(policy, spread), strict=True):
        assert torch.equal(g, h)


# ---- an adapter a role -------------------------------------------------------------------------------------------


def of(policy: Policy, adapter: str) -> list[torch.Tensor]:
    return [p.detach().clone() for n, p in policy.named_trainable() if f".{adapter}." in n]


def test_each_role_changes_its_own_adapter(tiny_model, toy_levels):
    policy = load_policy(str(tiny_model), LoraSettings(4, 8, each_role=True), device="cpu")
    assert len(of(policy, "default")) == len(of(policy, OF_EXECUTOR)) > 0
    for phase, changed in (("planner", "default"), ("executor", OF_EXECUTOR)):
        before = {name: of(policy, name) for name in ("default", OF_EXECUTOR)}
        one_iteration(policy, toy_levels, Hierarchy(sharing="each", schedule=phase), seed=6)
        same = {
            name: all(torch.equal(p, q) for p, q in zip(of(policy, name), values, strict=True))
            for name, values in before.items()
        }
        assert same == {"default": changed != "default", OF_EXECUTOR: changed != OF_EXECUTOR}
    # The roles compute with what is their own.
    prompt = TASK.start(CORRIDOR).prompt(Role.FLAT)
    ids = torch.tensor([policy.encode(prompt)])

    def seen(role: Role) -> torch.Tensor:
        policy.act_as(role)
        with torch.no_grad():
            return policy.computing()(ids).logits

    assert not torch.equal(seen(Role.PLANNER), seen(Role.EXECUTOR))
    assert torch.equal(seen(Role.EXECUTOR), seen(Role.DRIVEN))


def test_both_adapters_are_kept(tiny_model, toy_levels, tmp_path):
    policy = load_policy(str(tiny_model), LoraSettings(4, 8, each_role=True), device="cpu")
    one_iteration(policy, toy_levels, Hierarchy(sharing="each"), seed=6)
    policy.peft_model.save_pretrained(str(tmp_path), save_embedding_layers=False)
    again = load_policy(str(tiny_model), LoraSettings(4, 8), adapter=tmp_path, device="cpu")
    for name in ("default", OF_EXECUTOR):
        for p, q in zip(of(policy, name), of(again, name), strict=True):
            assert torch.equal(p, q)
    assert all(p.requires_grad for n, p in again.named_trainable() if ".default." in n)
