"""One iteration: who is credited, who learns, and that the gradient is the one that the method says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ScriptedPolicy, planned
from iterations import (
    CONFIG,
    CORRIDOR,
    FAR,
    FOUR,
    NEAR,
    PLAYED,
    RULE,
    SAMPLED,
    TASK,
    accumulated,
    flat,
    gradient,
    macro_items,
    micro_items,
    one_iteration,
    sampling,
    shake,
    watch_learning,
)

from himac_lite.advantage import group_advantage
from himac_lite.coevolution import (
    adapt,
    credit_actions,
    credit_blueprints,
)
from himac_lite.config import Update
from himac_lite.policy.model import Policy
from himac_lite.policy.update import learn, micro_batches
from himac_lite.rollout.play import Arena
from himac_lite.types import (
    Blueprint,
    Credited,
    End,
    Group,
    Level,
    Role,
    SubGoal,
    TokenSequence,
    Trajectory,
)

# ---- credit, by hand ---------------------------------------------------------------------------------------------


def sequence(role: Role, mark: int) -> TokenSequence:
    return TokenSequence(role, (1, mark), 1, (False, True), (0.0, -1.0), End.PLAN)


def trajectory(ret: float, *marks: int) -> Trajectory:
    segments = tuple(sequence(Role.EXECUTOR, m) for m in marks)
    return Trajectory(Blueprint("z"), segments, "", ret, ret == 1.0, len(marks), (1,) * len(marks))


def test_blueprints_get_the_advantage_of_their_execution():
    plans = tuple(sequence(Role.PLANNER, m) for m in range(4))
    returns = [[1.0, 0.0, 0.0, 0.0], [1.0] * 4, [0.0] * 4, [0.0, 1.0, 1.0, 0.0]]
    groups = [planned(CORRIDOR, plans, tuple(trajectory(r, 90, 91) for r in row)) for row in returns]
    credited = credit_blueprints(groups, group_advantage(returns, eps=0.0))
    # Group 1: mean ¼, std √(¼·¾) = √3/4: 1 is worth (3/4)/(√3/4) = √3, 0 is worth −(1/4)/(√3/4) = −1/√3. The groups in
    # which all returns are equal are left out. The last: mean ½, std ½: ±1.
    assert [[c.advantage for c in group] for group in credited] == [
        pytest.approx([math.sqrt(3), *[-1 / math.sqrt(3)] * 3]),
        pytest.approx([-1, 1, 1, -1]),
    ]
    # Blueprints and nothing of the executions.
    assert [[c.sequence for c in group] for group in credited] == [list(plans), list(plans)]


def test_all_segments_get_the_advantage_of_their_trajectory():
    returns = [[0.0, 0.0], [1.0, 0.0]]
    groups = [
        Group(CORRIDOR, (trajectory(0.0, 5), trajectory(0.0, 6))),
        Group(CORRIDOR, (trajectory(1.0, 10, 11, 12), trajectory(0.0, 20))),
    ]
    (credited,) = credit_actions(groups, group_advantage(returns, eps=0.0))
    assert [(c.sequence.ids[1], c.advantage) for c in credited] == [(10, 1.0), (11, 1.0), (12, 1.0), (20, -1.0)]


# ---- one iteration, by hand --------------------------------------------------------------------------------------


BOARD = "\n#######\n#@$  .#\n#######\n\n"


def test_an_iteration_of_himac_by_hand(learnt):
    policy = ScriptedPolicy(*PLAYED, *SAMPLED)
    step = one_iteration(policy, [CORRIDOR], "himac", FOUR)
    assert policy.unused == 0
    # Blueprints are sampled, executed greedily; z* is executed by sampling.
    assert [(c["rows"], c["temperature"]) for c in policy.calls] == [(4, 1.0), (2, 0.0), (4, 1.0)]
    # z* is the first of the two that solved the level, and all of the micro group are given it.
    assert [t.ret for t in step.macro[0].trajectories] == [0.0, 1.0, 0.0, 1.0]
    assert step.best_p.tolist() == [1]
    assert step.micro[0].blueprint == Blueprint(f"\n{FAR}", (SubGoal(FAR),))
    assert policy.prompts[-4:] == [f"<act>{BOARD}\n{FAR}<again>{BOARD}"] * 4
    assert [t.ret for t in step.micro[0].trajectories] == [1.0, 0.0, 0.0, 0.0]
    # Macro: mean ½, std ½. Micro: as above, √3 and −1/√3. (ε = 1e-6 is below the tolerance.)
    assert step.macro_adv_pg[0] == pytest.approx([-1, 1, -1, 1], abs=1e-5)
    assert step.micro_adv_pn[0] == pytest.approx([math.sqrt(3), *[-1 / math.sqrt(3)] * 3], abs=1e-5)
    # Phase A learns from the blueprints, phase B from the executions of z*: two calls, roles apart.
    (phase_a,), (phase_b,) = learnt
    assert [c.sequence for c in phase_a] == [t.blueprint_tokens for t in step.macro[0].trajectories]
    assert {c.sequence.role for c in phase_a} == {Role.PLANNER}
    assert [c.sequence for c in phase_b] == [s for t in step.micro[0].trajectories for s in t.segments]
    assert {c.sequence.role for c in phase_b} == {Role.EXECUTOR}
    assert [c.advantage for c in phase_b] == pytest.approx(step.micro_adv_pn[0].tolist())
    # Steps: executions 1 + 3 + 0 + 3, then 3 + 2 + 0 + 3.
    assert step.env_steps == 15
    # Tokens chosen by the model: blueprints 5 + 5 + 1 + 9; executions 2 + 3 + 0 + 3 (with <sub_done>), 3 + 3 + 1 + 3.
    assert step.tokens == 20 + 8 + 10
    assert step.metrics == pytest.approx(
        {
            "macro/return": 0.5, "macro/success": 0.5, "macro/zero_variance": 0.0, "macro/any_success": 1.0,
            "macro/steps": 7 / 4, "macro/blueprint_valid": 0.75, "macro/blueprint_length": (1 + 1 + 0 + 2) / 4,
            "micro/return": 0.25, "micro/success": 0.25, "micro/zero_variance": 0.0, "micro/any_success": 1.0,
            "micro/steps": 8 / 4, "micro/blueprint_valid": 1.0, "micro/blueprint_length": 1.0,
        }
    )  # fmt: skip


def test_joint_update_learns_once_from_both(learnt):
    step = one_iteration(ScriptedPolicy(*PLAYED, *SAMPLED), [CORRIDOR], "joint_update", FOUR)
    ((blueprints, actions),) = learnt
    assert [c.sequence for c in blueprints] == [t.blueprint_tokens for t in step.macro[0].trajectories]
    assert [c.sequence for c in actions] == [s for t in step.micro[0].trajectories for s in t.segments]


def test_flat_grpo_has_no_planner(learnt):
    policy = ScriptedPolicy("\nright\nright\nright", "\nup\nright\nright", "\nup\nup\nup", "\nleft\nright\nup")
    step = one_iteration(policy, [CORRIDOR], "flat_grpo", FOUR)
    assert policy.prompts == [f"<play>{BOARD}<again>{BOARD}"] * 4
    assert step.macro == ()
    assert step.macro_adv_pg.size == 0
    assert not any(name.startswith("macro/") for name in step.metrics)
    ((actions,),) = learnt
    assert {c.sequence.role for c in actions} == {Role.FLAT}
    assert [c.advantage for c in actions] == pytest.approx([math.sqrt(3), *[-1 / math.sqrt(3)] * 3], abs=1e-5)
    assert step.micro[0].blueprint is None
    assert (step.env_steps, step.tokens) == (12, 12)
    assert step.metrics["micro/success"] == 0.25
    assert "micro/blueprint_valid" not in step.metrics


def test_random_blueprint_is_not_the_best(learnt):
    """A group of one good blueprint and three bad ones: a random choice is a bad one in most of 8 levels."""
    scripts = [f"\n{FAR}<end>", "<end>", "<end>", "<end>"] * 8 + ["\nright\nright\nright"]
    best = one_iteration(ScriptedPolicy(*scripts, *["<sub_done>"] * 32), [CORRIDOR] * 8, "himac", FOUR)
    assert best.best_p.tolist() == [0] * 8
    chance = one_iteration(ScriptedPolicy(*scripts, *["<sub_done>"] * 32), [CORRIDOR] * 8, "random_blueprint", FOUR)
    assert set(chance.best_p.tolist()) > {0}
    for group, micro, z in zip(chance.macro, chance.micro, chance.best_p, strict=True):
        assert micro.blueprint == group.trajectories[z].blueprint
        # An invalid z* is executed by nobody, and its group teaches nothing.
        assert all(t.segments == () for t in micro.trajectories) == (z != 0)


def test_groups_without_variance_teach_nothing(policy, learnt):
    """Levels that nobody solves: no step is taken, not even one of the KL alone."""
    unknown = Level(("########", "#.    $#", "#  $ @ #", "#.     #", "########"))
    before = [p.detach().clone() for p in shake(policy).trainable()]
    for variant in ("himac", "random_blueprint", "joint_update", "flat_grpo"):
        step = one_iteration(policy, [unknown] * 2, variant, FOUR)
        assert step.metrics["micro/zero_variance"] == 1.0
        assert "micro/loss" not in step.metrics
    assert learnt == [[]] * 6  # two calls of himac and of random_blueprint, one of joint_update and of flat_grpo
    assert all(torch.equal(p, q) for p, q in zip(policy.trainable(), before, strict=True))


def test_levels_with_and_without_variance_side_by_side(learnt):
    plans = [f"\n{FAR}<end>", f"\n{NEAR}<end>", f"\n{NEAR}<end>", f"\n{FAR}<end>"]
    executions = ["\nright\nright\nright", "\nright<sub_done>"]  # of far and of near, on either level
    samples = ["\nright\nright\nright"] * 4 + ["<sub_done>", "\nright\nright\nright"] * 2
    # Level 0 as above; level 1 is solved by all four of its blueprints.
    policy = ScriptedPolicy(
        *plans, *[f"\n{FAR}<end>"] * 4, *executions, *samples,
    )  # fmt: skip
    step = one_iteration(policy, [CORRIDOR, CORRIDOR], "himac", FOUR)
    phase_a, phase_b = learnt
    assert [[c.sequence for c in group] for group in phase_a] == [
        [t.blueprint_tokens for t in step.macro[0].trajectories]
    ]
    assert [[c.advantage for c in group] for group in phase_b] == [pytest.approx([-1, 1, -1, 1], abs=1e-5)]
    assert step.metrics["macro/zero_variance"] == step.metrics["micro/zero_variance"] == 0.5
    assert step.best_p.tolist() == [0, 0]


# ---- one iteration, by a real policy -----------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize(
    ("variant", "calls"), [("himac", 2), ("random_blueprint", 2), ("joint_update", 1), ("flat_grpo", 1)]
)
def test_every_phase_starts_on_policy(policy, toy_levels, monkeypatch, variant, calls, temperature):
    """What `learn` is given was sampled by the very weights that it starts from, at the temperature it scores with."""
    seen = watch_learning(monkeypatch)
    before = [p.detach().clone() for p in policy.trainable()]
    config = replace(CONFIG, rollout=replace(CONFIG.rollout, temperature=temperature))
    step = one_iteration(policy, toy_levels, variant, config, seed=6)
    roles = [role for role, _ in seen]
    assert len(roles) == calls
    wanted = {"joint_update": [{Role.PLANNER, Role.EXECUTOR}], "flat_grpo": [{Role.FLAT}]}
    assert roles == wanted.get(variant, [{Role.PLANNER}, {Role.EXECUTOR}])
    assert max(gap for _, gap in seen) < 1e-4
    assert any(not torch.equal(p, q) for p, q in zip(policy.trainable(), before, strict=True))
    if variant in ("himac", "joint_update"):
        return_pg = np.array([[t.ret for t in g.trajectories] for g in step.macro])
        assert (return_pg[np.arange(4), step.best_p] == return_pg.max(1)).all()
    for group, z, micro in zip(step.macro, step.best_p, step.micro, strict=False):
        assert micro.blueprint == group.trajectories[z].blueprint
        assert {t.blueprint for t in micro.trajectories} == {micro.blueprint}
    assert all(math.isfinite(v) for v in step.metrics.values())


def test_an_iteration_depends_on_its_seed_alone(new_policy, toy_levels):
    def run() -> tuple[Any, list[torch.Tensor]]:
        policy = new_policy()
        torch.manual_seed(int(torch.randint(1000, ())))  # global state plays no part
        return one_iteration(policy, toy_levels, "himac"), [p.detach() for p in policy.trainable()]

    (first, weights), (again, same) = run(), run()
    assert first.metrics == again.metrics
    assert first.macro == again.macro
    assert first.micro == again.micro
    assert all(torch.equal(p, q) for p, q in zip(weights, same, strict=True))


# ---- which tokens have gradient ----------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [macro_items, micro_items], ids=["phase_a", "phase_b"])
def test_only_tokens_the_model_chose_have_gradient(policy, toy_levels, make, monkeypatch):
    """At the logits of every observation, and of padding, the gradient is exactly zero; at every choice it is not."""
    monkeypatch.setattr(Policy, "workers", 1)  # so that logits and scores come in one order
    items = flat(make(shake(policy), toy_levels))
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    real_logits, real_log_probs = policy._logits, policy.log_probs
    kept: list[torch.Tensor] = []

    def logits(*args: Any) -> torch.Tensor:
        out = real_logits(*args)
        if out.requires_grad:
            out.retain_grad()
            kept.append(out)
        return out

    def log_probs(batch: Any, *args: Any, **kwargs: Any) -> Any:
        scores = real_log_probs(batch, *args, **kwargs)
        if not kwargs.get("reference"):
            # From the sequences themselves, not from the scores' own mask.
            mask = torch.zeros(scores.mask.shape, dtype=torch.bool)
            for row, s in enumerate(batch):
                own = s.action_mask[s.prompt_len :]
                mask[row, : len(own)] = torch.tensor(own)
            seen.append((kept[-1], mask[:, mask.any(0)]))  # logits are computed where at least one row chose
        return scores

    policy._logits, policy.log_probs = logits, log_probs
    accumulated(policy, items, Update(micro_tokens=100), {})

    assert len(seen) > 1
    chosen = masked = 0
    for out, mask in seen:
        size = out.grad.abs().amax(-1)  # [B, T]
        assert (size[~mask] == 0).all()
        assert (size[mask] > 0).all()
        chosen, masked = chosen + int(mask.sum()), masked + int((~mask).sum())
    assert chosen == sum(sum(i.sequence.action_mask) for i in items)
    assert masked > 0


def test_sub_done_is_an_action_token(policy, toy_levels):
    items = flat(micro_items(policy, toy_levels))
    done = policy.codes(TASK).sub_done
    places = [(s.sequence, t) for s in items for t, token in enumerate(s.sequence.ids) if token == done]
    assert places
    assert all(s.action_mask[t] and s.logp[t] < 0 for s, t in places)


@pytest.mark.parametrize("make", [macro_items, micro_items], ids=["phase_a", "phase_b"])
def test_what_stands_at_masked_tokens_does_not_matter(policy, toy_levels, make):
    items = flat(make(shake(policy), toy_levels))
    wanted = gradient(policy, items)
    assert all(g.any() for g in wanted)
    noise = np.random.default_rng(0)

    def disturbed(item: Credited) -> Credited:
        s = item.sequence
        logp = tuple(p if m else float(noise.normal(0, 50)) for p, m in zip(s.logp, s.action_mask, strict=True))
        return Credited(replace(s, logp=logp), item.advantage)

    for g, h in zip(wanted, gradient(policy, [disturbed(i) for i in items]), strict=True):
        assert torch.equal(g, h)


def test_a_masked_role_has_no_gradient_at_all(policy, toy_levels):
    """Executions beside the blueprints, all their tokens masked: the gradient of the blueprints, to the last bit."""
    blueprints, actions = flat(macro_items(shake(policy), toy_levels)), flat(micro_items(policy, toy_levels))
    frozen = [Credited(replace(i.sequence, action_mask=(False,) * len(i.sequence.ids)), i.advantage) for i in actions]
    for g, h in zip(gradient(policy, blueprints), gradient(policy, blueprints + frozen), strict=True):
        assert torch.equal(g, h)


# ---- micro-batches -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [macro_items, micro_items], ids=["phase_a", "phase_b"])
def test_the_gradient_does_not_depend_on_micro_tokens(policy, toy_levels, make):
    items = flat(make(shake(policy), toy_levels))
    parts = {n: len(list(micro_batches(items, n))) for n in (1, 64, 256, 100_000)}
    assert parts[1] == len(items)
    # How long the sampled executions are depends on the machine's arithmetic; they are never so short as 64 tokens.
    assert parts[64] >= parts[256] >= parts[100_000] == 1
    assert parts[64] > 1
    whole = gradient(policy, items, Update(micro_tokens=100_000))
    total = math.sqrt(sum(float(g.norm() ** 2) for g in whole))
    for n in (1, 64, 256):
        cut = gradient(policy, items, Update(micro_tokens=n))
        difference = math.sqrt(sum(float((g - h).norm() ** 2) for g, h in zip(cut, whole, strict=True)))
        assert difference <= 1e-5 * total


def test_the_gradient_of_both_roles_together_is_their_weighted_sum(policy, toy_levels):
    blueprints, actions = flat(macro_items(shake(policy), toy_levels)), flat(micro_items(policy, toy_levels))
    n, m = (sum(sum(i.sequence.action_mask) for i in items) for items in (blueprints, actions))
    both = gradient(policy, blueprints + actions)
    parts = zip(gradient(policy, blueprints), gradient(policy, actions), strict=True)
    for g, (a, b) in zip(both, parts, strict=True):
        torch.testing.assert_close(g, (n * a + m * b) / (n + m), rtol=1e-3, atol=1e-6)


def test_micro_batches_hold_one_role_and_no_more_than_they_may(policy, toy_levels):
    items = flat(macro_items(policy, toy_levels)) + flat(micro_items(policy, toy_levels))
    for limit in (1, 50, 200, 1000):
        parts = list(micro_batches(items, limit))
        assert sorted(map(id, items)) == sorted(id(i) for part in parts for i in part)
        for part in parts:
            batch = [i.sequence for i in part]
            assert len({s.role for s in batch}) == 1
            prompts = {s.ids[: s.prompt_len] for s in batch}
            tokens = sum(map(len, prompts)) + len(batch) * max(len(s.ids) - s.prompt_len for s in batch)
            assert len(part) == 1 or tokens <= limit


# ---- learning ----------------------------------------------------------------------------------------------------


def learnt_once(policy: Policy, optimizer: torch.optim.Optimizer, groups: Any, settings: Update) -> dict[str, float]:
    return learn(policy, optimizer, groups, settings, 1.0, np.random.default_rng(0))


def hand_made(
    policy: Policy, role: Role, prompt: str, texts: Sequence[str], advantages: Sequence[float]
) -> list[Credited]:
    """A group of which every token was chosen, with the log-probabilities that the policy gives them now."""
    out = []
    for text, a in zip(texts, advantages, strict=True):
        ids, n = policy.encode(prompt), len(policy.encode(prompt))
        own = policy.encode(text, prompt=False)
        s = TokenSequence(role, (*ids, *own), n, (*[False] * n, *[True] * len(own)), (0.0,) * (n + len(own)), End.PLAN)
        with torch.no_grad():
            scores = policy.log_probs([s])
        out.append(Credited(replace(s, logp=(*[0.0] * n, *scores.logp[0].tolist())), a))
    return out


def probabilities(policy: Policy, group: Sequence[Credited]) -> list[float]:
    """Log-probability of each member as a whole."""
    with torch.no_grad():
        batch = [i.sequence for i in group]
        scores = policy.log_probs(batch)
    return torch.where(scores.mask, scores.logp, 0.0).sum(1).tolist()


def groups_by_hand(policy: Policy, level: Level, role: Role, advantages: Sequence[float]) -> list[Credited]:
    prompt = TASK.start(level).prompt(role, SubGoal(FAR) if role is Role.EXECUTOR else None)
    texts = {
        Role.PLANNER: (f"\n{FAR}<end>", f"\n{NEAR}<end>"),
        Role.EXECUTOR: ("\nright<sub_done>", "\nup\nleft"),
        Role.FLAT: ("\nright\nright", "\nleft\nup"),
    }
    return hand_made(policy, role, prompt, texts[role], advantages)


@pytest.mark.parametrize("role", [Role.PLANNER, Role.EXECUTOR, Role.FLAT], ids=lambda r: r.value)
@pytest.mark.parametrize("advantages", [(1.0, -1.0), (-1.0, 1.0)], ids=["first", "second"])
def test_one_step_favours_the_member_that_did_better(policy, role, advantages):
    group = groups_by_hand(shake(policy), CORRIDOR, role, advantages)
    before = probabilities(policy, group)
    optimizer = torch.optim.AdamW(policy.trainable(), lr=1e-4)
    metrics = learnt_once(policy, optimizer, [group], Update(groups_per_step=1, epochs=1, minibatches=1))
    after = probabilities(policy, group)
    for a, old, new in zip(advantages, before, after, strict=True):
        assert (new - old) * a > 1e-4
    assert metrics["clip_fraction"] == 0.0  # ρ = 1 everywhere before the first step


def test_the_loss_of_the_first_step_by_hand(policy):
    # ρ = 1: the surrogate of a token is its advantage. 5 tokens at +2, 5 tokens at −1 and, with <end> alone, 1 token at
    # +3: L = −(10 − 5 + 3)/11 = −8/11. The KL is zero, because LoRA is.
    prompt = TASK.start(CORRIDOR).prompt(Role.PLANNER)
    group = hand_made(policy, Role.PLANNER, prompt, (f"\n{FAR}<end>", f"\n{NEAR}<end>", "<end>"), (2.0, -1.0, 3.0))
    totals: dict[str, float] = {}
    assert accumulated(policy, group, Update(), totals) == 11
    assert totals["loss"] / 11 == pytest.approx(-8 / 11, abs=1e-5)
    assert totals["kl"] == pytest.approx(0.0, abs=1e-5)
    assert totals["clip_fraction"] == 0.0
    # In parts, the same.
    parts: dict[str, float] = {}
    accumulated(policy, group, Update(micro_tokens=1), parts)
    assert parts == pytest.approx(totals, rel=1e-4, abs=1e-4)


def test_the_metrics_are_means_over_all_tokens_of_the_phase(policy, toy_levels):
    groups = macro_items(shake(policy), toy_levels)
    settings = Update(groups_per_step=1, minibatches=3, epochs=2, lr=0.0)
    metrics = learnt_once(policy, torch.optim.SGD(policy.trainable(), lr=0.0), groups, settings)
    # With a learning rate of 0 every pass sees the same: the means are those of one pass over everything.
    totals: dict[str, float] = {}
    n = accumulated(policy, flat(groups), settings, totals)
    for name in ("loss", "entropy", "kl", "clip_fraction"):
        assert metrics[name] == pytest.approx(totals[name] / n, rel=1e-4, abs=1e-6), name
    assert metrics["kl"] > 1e-3
    assert metrics["entropy"] > 1e-3
    assert metrics["grad_norm"] > 0


def test_the_kl_pulls_towards_the_base_model(policy):
    group = groups_by_hand(shake(policy), CORRIDOR, Role.PLANNER, (0.0, 0.0))
    before = {}
    for beta in (0.0, 1.0):
        totals: dict[str, float] = {}
        for p in policy.trainable():
            p.grad = None
        accumulated(policy, group, Update(beta=beta), totals)
        before[beta] = [p.grad.norm().item() for p in policy.trainable()]
    assert not any(before[0.0])  # no advantage and no KL: nothing to learn
    assert all(before[1.0])
    optimizer = torch.optim.AdamW(policy.trainable(), lr=1e-4)
    first = learnt_once(policy, optimizer, [group], Update(groups_per_step=1, epochs=1, beta=1.0, minibatches=1))
    again = learnt_once(policy, optimizer, [group], Update(groups_per_step=1, epochs=1, beta=1.0, minibatches=1))
    assert 0 < again["kl"] < first["kl"]


@pytest.mark.parametrize(
    ("minibatches", "groups_per_step", "epochs", "steps"),
    # 4 groups: as many steps a pass as minibatches, but not more than ⌈4 / groups_per_step⌉
    [(1, 1, 1, 1), (3, 1, 1, 3), (3, 1, 2, 6), (100, 1, 1, 4), (4, 2, 1, 2), (4, 3, 1, 2), (4, 5, 2, 2)],
)
def test_how_often_a_phase_steps(policy, toy_levels, minibatches, groups_per_step, epochs, steps):
    groups = macro_items(policy, toy_levels)
    assert len(groups) == 4
    taken = 0

    class Counting(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            nonlocal taken
            taken += 1
            norm = math.sqrt(sum(float(p.grad.norm() ** 2) for p in policy.trainable()))
            assert norm <= 0.01 + 1e-5  # clipped
            return super().step(closure)

    optimizer = Counting(policy.trainable(), lr=0.1)
    settings = Update(groups_per_step=groups_per_step, minibatches=minibatches, epochs=epochs, grad_clip=0.01)
    learnt_once(policy, optimizer, groups, settings)
    assert taken == steps
    assert all(p.grad is None for p in policy.trainable())


def test_the_ratio_is_clipped_in_the_later_steps(policy, toy_levels):
    groups = macro_items(policy, toy_levels)
    optimizer = torch.optim.AdamW(policy.trainable(), lr=3e-2)
    metrics = learnt_once(policy, optimizer, groups, Update(groups_per_step=1, minibatches=1, epochs=4))
    assert 0 < metrics["clip_fraction"] < 1


def test_flat_rollouts_come_in_groups(policy, toy_levels):
    groups = adapt(Arena(policy, TASK, returns=RULE, sampling=sampling()), toy_levels, 8)
    assert [g.level for g in groups] == toy_levels
    assert [len(g.trajectories) for g in groups] == [8] * 4
    assert all(len(t.segments) == 1 for g in groups for t in g.trajectories)
    assert 0 < np.mean([t.success for g in groups for t in g.trajectories]) < 1
