"""Products of bfloat16 factors: what is rounded, gradients, rescored behaviour, equal bits, resumed runs."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from iterations import shake
from safetensors.torch import load_file

from himac_lite.advantage import group_advantage
from himac_lite.coevolution import adapt, credit_actions
from himac_lite.config import Model, Rollout, Train, Update, as_dict, from_dict, validate
from himac_lite.errors import ConfigError
from himac_lite.policy import products, update
from himac_lite.policy.model import Policy
from himac_lite.policy.products import RoundedLinear, precision_here, round_again
from himac_lite.policy.update import accumulate, learn
from himac_lite.rollout.play import Arena
from himac_lite.runs import folder, training
from himac_lite.settings import AUTO, BFLOAT16, FLOAT32
from himac_lite.tasks.sokoban.task import SokobanTask
from himac_lite.types import Credited, Sampling

TASK = SokobanTask(max_steps=3, subgoal_budget=3)


@pytest.fixture
def rounded(new_policy) -> Policy:
    return new_policy(precision=BFLOAT16)


def flat_groups(policy: Policy, levels: Any) -> list[list[Credited]]:
    groups = adapt(Arena(policy, TASK, sampling=Sampling(1.0, np.random.default_rng(0))), levels, 8)
    return credit_actions(groups, group_advantage([[t.ret for t in g.trajectories] for g in groups]))


def exact(x: torch.Tensor) -> torch.Tensor:
    return x.bfloat16().double()


# ---- One product -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [False, True])
def test_a_product_and_its_gradients_are_those_of_the_rounded_factors(bias):
    torch.manual_seed(0)
    plain = torch.nn.Linear(64, 32, bias=bias)
    layer, x, g = RoundedLinear(plain), torch.randn(2, 5, 64, requires_grad=True), torch.randn(2, 5, 32)
    y = layer(x)
    of_x, of_weight = torch.autograd.grad(y, [x, layer.weight], g)
    wanted = exact(x) @ exact(plain.weight).T + (plain.bias.double() if bias else 0)
    # The result is rounded to 8 binary digits once; 2^-8 of the largest value bounds that.
    for found, true in (
        (y, wanted),
        (of_x, exact(g) @ exact(plain.weight)),
        (of_weight, exact(g).flatten(0, 1).T @ exact(x).flatten(0, 1)),
    ):
        assert found.dtype is torch.float32
        assert (found - true).abs().max() <= 2**-8 * true.abs().max()
    with torch.no_grad():
        assert torch.equal(layer(x), y)  # rollouts and updates: the same product
        assert not torch.equal(plain(x), y)  # and not float32's


def test_layers_that_share_an_input_round_it_once():
    x = torch.randn(3, 64)
    kept = products._in_bfloat16(x)
    assert products._in_bfloat16(x) is kept
    assert products._in_bfloat16(x + 1) is not kept


def test_changed_weights_are_rounded_again():
    layer = RoundedLinear(torch.nn.Linear(64, 32, bias=False))
    x = torch.randn(3, 64)
    with torch.no_grad():
        before = layer(x)
        layer.weight.mul_(2)
        round_again(layer)
        assert torch.equal(layer(x), 2 * before)  # times two is exact


# ---- The policy --------------------------------------------------------------------------------------------------


def test_only_adapted_layers_multiply_in_bfloat16(rounded):
    for model in (rounded.twin, rounded.reference):
        names = {f"{name}.weight" for name, m in model.named_modules() if isinstance(m, RoundedLinear)}
        assert names == set(rounded.adapted)
        assert all(p.dtype is torch.float32 for p in model.parameters())
    assert isinstance(rounded.twin.lm_head, torch.nn.Linear)


def test_the_twin_computes_with_new_weights(rounded, toy_levels):
    batch = [item.sequence for group in flat_groups(rounded, toy_levels) for item in group]
    before = rounded.log_probs(batch).logp.detach()
    shake(rounded)
    after = rounded.log_probs(batch).logp.detach()
    assert (after - before).abs().max() > 0.05


def test_gradients_are_close_to_those_in_float32(new_policy, rounded, toy_levels):
    plain = new_policy()
    groups = flat_groups(plain, toy_levels)
    batch, found = [item for group in groups for item in group], []
    for policy in (plain, rounded):
        shake(policy)
        accumulate(policy, batch, Update(beta=0.0), 1.0, {})
        found.append(torch.cat([p.grad.flatten() for p in policy.trainable()]))
    assert torch.nn.functional.cosine_similarity(*found, dim=0) > 0.999
    assert not torch.equal(*found)


def test_in_the_first_step_every_ratio_is_one(rounded, toy_levels, monkeypatch):
    """The criterion is 1e-3. A rollout's noise of up to 0.03 nats, here 0.02 for every token, must not remain."""
    shake(rounded)
    groups = [
        [replace(i, sequence=replace(i.sequence, logp=tuple(v - 0.02 for v in i.sequence.logp))) for i in group]
        for group in flat_groups(rounded, [*toy_levels, *toy_levels])
    ]
    off: list[float] = []
    own = update.micro_batch_loss

    def watched(policy: Policy, part: Any, *rest: Any) -> Any:
        new = policy.log_probs([item.sequence for item in part])
        off.append((((new.logp - new.behaviour).exp() - 1).abs() * new.mask).max().item())
        return own(policy, part, *rest)

    monkeypatch.setattr(update, "micro_batch_loss", watched)
    optimizer = torch.optim.AdamW(rounded.trainable(), lr=0.0)
    settings = Update(beta=0.0, epochs=1, minibatches=2, groups_per_step=1, micro_tokens=64)
    learn(rounded, optimizer, groups, settings, 1.0, np.random.default_rng(0))
    assert len(off) >= 4
    assert max(off) <= 1e-3


# ---- Settings and runs -------------------------------------------------------------------------------------------


def test_auto_asks_the_cpu(monkeypatch):
    for found, wanted in (({"avx512_bf16": True}, BFLOAT16), ({"amx_bf16": True}, BFLOAT16), ({}, FLOAT32)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=found: found)
        assert precision_here(AUTO) == wanted
        assert [precision_here(kept) for kept in (FLOAT32, BFLOAT16)] == [FLOAT32, BFLOAT16]


def test_a_precision_must_be_known():
    with pytest.raises(ConfigError, match="auto, float32 or bfloat16, not 'half'"):
        validate(Train(model=Model(precision="half")))


def test_runs_of_earlier_versions_were_in_float32():
    data = as_dict(Train())
    del data["model"]["precision"]
    assert from_dict(data).model.precision == FLOAT32


@pytest.mark.parametrize("precision", [FLOAT32, BFLOAT16])
def test_runs_repeat_bit_for_bit_and_resume_in_their_precision(tiny_model, toy_file, tmp_path, monkeypatch, precision):
    config = Train(
        train_levels=toy_file, validation_levels=toy_file, test_levels=toy_file, test_limit=1,
        iterations=2, validate_every=0, probe_levels=0, record_levels=0, checkpoint_every=1,
        model=Model(str(tiny_model), rank=4, alpha=8, precision=precision),
        rollout=Rollout(levels=4, group=8, min_length=0, max_steps=3, subgoal_budget=3),
    )  # fmt: skip
    whole = training.train(config, tmp_path / "whole")
    assert json.loads((whole.folder / "manifest.json").read_text())["config"]["model"]["precision"] == precision
    training.train(replace(config, iterations=1), tmp_path / "again")
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)  # as on a machine without bfloat16 products
    asked = replace(config, model=replace(config.model, precision=AUTO))  # it would be float32 here
    training.train(asked, tmp_path / "again", resume=True)
    one, two = (
        load_file(tmp_path / name / "checkpoints/000002/adapter_model.safetensors") for name in ("whole", "again")
    )
    assert any(value.abs().max() > 0 for name, value in one.items() if "lora_B" in name)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert training.load_trained(folder.load_run(tmp_path / "again")).precision == precision
