"""Shared by the tests of one iteration: a corridor with its script, one iteration, credited sequences, gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TOY_STEPS

from himac_lite import coevolution
from himac_lite.advantage import group_advantage
from himac_lite.coevolution import (
    Iteration,
    Learner,
    adapt,
    choose,
    credit_actions,
    credit_blueprints,
    explore,
    iterate,
    optimizers_for,
)
from himac_lite.config import Rollout, Train, Update
from himac_lite.hierarchy import PRESETS, Hierarchy
from himac_lite.policy.model import Policy
from himac_lite.policy.update import accumulate, micro_batches, with_reference
from himac_lite.rollout.play import Arena
from himac_lite.rollout.rules import ReturnRule
from himac_lite.tasks.sokoban.task import SokobanTask
from himac_lite.types import Credited, Level, Role, Sampling

TASK = SokobanTask(max_steps=TOY_STEPS, subgoal_budget=TOY_STEPS)
CONFIG = Train(
    rollout=Rollout(min_length=0, levels=4, group=8, max_steps=TOY_STEPS, subgoal_budget=TOY_STEPS),
    update=Update(groups_per_step=1, epochs=1, minibatches=2),
)
RULE = ReturnRule()
CORRIDOR = Level(("#######", "#@$  .#", "#######"))
FAR = "push the box at (1,2) right to (1,5)"
NEAR = "push the box at (1,2) right to (1,3)"
PLAYED = (
    # 4 blueprints of the corridor: near (fails), far (solves), none (invalid), far and near (solves at once)
    f"\n{NEAR}<end>", f"\n{FAR}<end>", "<end>", f"\n{FAR}\n{NEAR}<end>",
    # their greedy executions; the invalid one has none, and the two that begin with far are one
    "\nright<sub_done>", "\nright\nright\nright",
)  # fmt: skip
SAMPLED = ("\nright\nright\nright", "\nright\nright<sub_done>", "<sub_done>", "\nup\nright\nright")
FOUR = replace(CONFIG, rollout=replace(CONFIG.rollout, group=4))


def sampling(seed: int = 0, temperature: float = 1.0) -> Sampling:
    return Sampling(temperature, np.random.default_rng(seed))


def one_iteration(
    policy: Any, levels: Sequence[Level], variant: str | Hierarchy, config: Train = CONFIG, seed: int = 5
) -> Iteration:
    hierarchy = PRESETS[variant] if isinstance(variant, str) else variant
    return iterate(learner_of(policy, hierarchy, config), levels, np.random.SeedSequence(seed))


def learner_of(policy: Any, hierarchy: Hierarchy, config: Train = CONFIG) -> Learner:
    params = policy.trainable() if isinstance(policy, Policy) else [torch.nn.Parameter(torch.zeros(1))]
    optimizers = optimizers_for(params, hierarchy, 1e-2)
    return Learner(policy, optimizers, TASK, hierarchy, config)


def macro_items(policy: Policy, levels: Sequence[Level]) -> list[list[Credited]]:
    groups = explore(Arena(policy, TASK, returns=RULE, sampling=sampling()), levels, 8)
    return credit_blueprints(groups, group_advantage([[t.ret for t in g.trajectories] for g in groups]))


def micro_items(policy: Policy, levels: Sequence[Level]) -> list[list[Credited]]:
    groups = explore(Arena(policy, TASK, returns=RULE, sampling=sampling()), levels, 8)
    best_p = np.array([[t.ret for t in g.trajectories] for g in groups]).argmax(1)
    done = adapt(
        Arena(policy, TASK, returns=RULE, sampling=sampling(1)),
        [g.level for g in groups],
        8,
        choose(TASK, groups, best_p),
    )
    return credit_actions(done, group_advantage([[t.ret for t in g.trajectories] for g in done]))


def flat(groups: Sequence[Sequence[Credited]]) -> list[Credited]:
    return [item for group in groups for item in group]


def accumulated(policy: Policy, items: Sequence[Credited], settings: Update, totals: dict[str, float]) -> int:
    (items,) = with_reference(policy, [items], settings, 1.0)
    return accumulate(policy, items, settings, 1.0, totals)


def gradient(policy: Policy, items: Sequence[Credited], settings: Update = Update()) -> list[torch.Tensor]:
    for p in policy.trainable():
        p.grad = None
    accumulated(policy, items, settings, {})
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in policy.trainable()]


def watch_learning(monkeypatch: pytest.MonkeyPatch) -> list[tuple[set[Role], float]]:
    """Of each call of `learn`: its roles, and the largest |log ρ| under the weights that it starts from."""
    seen: list[tuple[set[Role], float]] = []
    real = coevolution.learn

    def watched(policy: Policy, optimizer: Any, groups: Any, settings: Any, tau: float, rng: Any) -> Any:
        gaps = []
        for part in micro_batches(flat(groups), 4096):
            with torch.no_grad():
                scores = policy.log_probs([item.sequence for item in part], tau)
            gaps.append(float((scores.logp - scores.behaviour)[scores.mask].abs().max()))
        seen.append(({item.sequence.role for item in flat(groups)}, max(gaps, default=0.0)))
        return real(policy, optimizer, groups, settings, tau, rng)

    monkeypatch.setattr(coevolution, "learn", watched)
    return seen


def shake(policy: Policy) -> Policy:
    """LoRA's B away from zero, so that A has a gradient and the KL is not zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in policy.named_trainable():
            if "lora_B" in name:
                p.copy_(0.03 * torch.randn(p.shape, generator=generator))
    policy.changed()
    return policy
