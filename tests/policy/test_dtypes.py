"""Loss scaling, activations computed again, micro-batches that are halved: the same gradient each time."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from himac_lite.advantage import group_advantage
from himac_lite.coevolution import adapt, credit_actions
from himac_lite.config import Update
from himac_lite.errors import RunError
from himac_lite.policy import update
from himac_lite.policy.distributed import Team
from himac_lite.policy.update import accumulate, learn, step, with_reference
from himac_lite.rollout.play import Arena
from himac_lite.tasks.sokoban.task import SokobanTask
from himac_lite.types import Credited, Sampling

TASK = SokobanTask(max_steps=3)
SETTINGS = Update(groups_per_step=1, epochs=1, minibatches=2)


def groups_of(policy: Any, levels: Any) -> list[list[Credited]]:
    groups = adapt(Arena(policy, TASK, sampling=Sampling(1.0, np.random.default_rng(0))), levels, 8)
    return credit_actions(groups, group_advantage([[t.ret for t in g.trajectories] for g in groups]))


def learnt(policy: Any, groups: Any) -> list[torch.Tensor]:
    optimizer = torch.optim.AdamW(policy.trainable(), lr=1e-2)
    learn(policy, optimizer, groups, SETTINGS, 1.0, np.random.default_rng(0))
    return [p.detach() for p in policy.trainable()]


def test_a_loss_scale_changes_no_bit(new_policy: Any, toy_levels: Any):
    plain, scaled = new_policy(), new_policy()
    groups = groups_of(plain, toy_levels)
    scaled.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    for p, q in zip(learnt(plain, groups), learnt(scaled, groups), strict=True):
        assert torch.equal(p, q)  # a power of two moves the exponent only
    assert scaled.scaler.get_scale() == 2.0**16
    again = torch.amp.GradScaler("cpu")
    again.load_state_dict(json.loads(json.dumps(scaled.scaler.state_dict())))  # as a checkpoint keeps it
    assert again.get_scale() == 2.0**16


def test_an_overflow_leaves_the_step_out_and_halves_the_scale(new_policy: Any, toy_levels: Any):
    policy = new_policy()
    groups = [[Credited(item.sequence, 1e6 * item.advantage) for item in g] for g in groups_of(policy, toy_levels)]
    policy.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    before = [p.detach().clone() for p in policy.trainable()]
    assert all(torch.equal(p, q) for p, q in zip(learnt(policy, groups[:1]), before, strict=True))
    assert policy.scaler.get_scale() == 2.0**126
    assert all(p.grad is None for p in policy.trainable())


def test_a_scale_that_is_used_up_is_an_error(new_policy: Any, toy_levels: Any):
    policy = new_policy()
    policy.scaler = torch.amp.GradScaler("cpu", init_scale=0.5)
    broken = [[Credited(item.sequence, float("nan")) for item in g] for g in groups_of(policy, toy_levels)]
    before = [p.detach().clone() for p in policy.trainable()]
    with pytest.raises(RunError, match="not finite"):
        learnt(policy, broken)
    assert all(torch.equal(p, q) for p, q in zip(policy.trainable(), before, strict=True))


def gradient(policy: Any, groups: Any, tokens: int = 2048) -> list[torch.Tensor]:
    ready = with_reference(policy, groups, SETTINGS, 1.0)
    items = [item for group in ready for item in group]
    accumulate(policy, items, Update(micro_tokens=tokens), 1.0, {})
    return [p.grad for p in policy.trainable()]


def test_activations_computed_again_give_the_same_gradient(new_policy: Any, toy_levels: Any):
    plain, lean = new_policy(), new_policy(checkpointing=True)
    assert any(getattr(m, "gradient_checkpointing", False) for m in lean.twin.modules())
    groups = groups_of(plain, toy_levels)
    for p, q in zip(gradient(lean, groups), gradient(plain, groups), strict=True):
        assert (p - q).norm() <= 1e-4 * q.norm()


def test_a_micro_batch_that_does_not_fit_is_halved(new_policy: Any, toy_levels: Any, monkeypatch: Any):
    whole, cut = new_policy(), new_policy()
    groups = groups_of(whole, toy_levels)
    wanted, sizes, real = gradient(whole, groups), [], Team.add_gradient

    def small(team: Team, policy: Any, *rest: Any) -> None:
        sizes.append(update.micro_tokens(policy, 2048))
        if sizes[-1] > 512:
            raise torch.OutOfMemoryError("as on a GPU")
        real(team, policy, *rest)

    monkeypatch.setattr(Team, "add_gradient", small)
    for p, q in zip(gradient(cut, groups), wanted, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-7)
    assert sizes == [2048, 1024, 512]

    def never(*_: Any) -> int:
        raise torch.OutOfMemoryError("as on a GPU")

    monkeypatch.setattr(Team, "add_gradient", never)
    with pytest.raises(RunError, match=r"update\.micro_tokens"):
        gradient(cut, groups)


def test_a_step_without_a_gradient_is_one_too(new_policy: Any):
    policy = new_policy()
    assert step(policy, torch.optim.AdamW(policy.trainable(), lr=1e-2), 1.0) == 0
