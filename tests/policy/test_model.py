"""4 bit and LoRA for real: what is stored, what learns, and that the twin computes the same function."""

from __future__ import annotations

import hashlib
import http.server
import json
import math
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from conftest import one_line
from iterations import shake
from safetensors.torch import load_file, save_file

from himac_lite.advantage import group_advantage
from himac_lite.coevolution import adapt, credit_actions, credit_blueprints, explore
from himac_lite.config import Update
from himac_lite.errors import HimacError, ModelError
from himac_lite.policy import loading
from himac_lite.policy.loading import LoraSettings, load_policy
from himac_lite.policy.model import Policy
from himac_lite.policy.update import accumulate, learn, with_reference
from himac_lite.rollout.play import Arena
from himac_lite.tasks.sokoban.task import SokobanTask
from himac_lite.types import Credited, End, Role, Sampling, TokenSequence

TASK = SokobanTask(max_steps=3, subgoal_budget=3)


def sampling(seed: int = 0) -> Sampling:
    return Sampling(1.0, np.random.default_rng(seed))


def blueprint_groups(policy: Policy, levels: Any) -> list[list[Credited]]:
    groups = explore(Arena(policy, TASK, sampling=sampling()), levels, 8)
    credited = credit_blueprints(groups, group_advantage([[t.ret for t in g.trajectories] for g in groups]))
    assert credited
    return credited


def flat_groups(policy: Policy, levels: Any) -> list[list[Credited]]:
    groups = adapt(Arena(policy, TASK, sampling=sampling()), levels, 8)
    credited = credit_actions(groups, group_advantage([[t.ret for t in g.trajectories] for g in groups]))
    assert credited
    return credited


def sequences(policy: Policy, levels: Any) -> list[TokenSequence]:
    """Real sampled sequences of one role: several that share a prompt, prompts and sequences of several lengths."""
    groups = adapt(Arena(policy, TASK, sampling=sampling()), [levels[0], levels[2], levels[1], levels[2]], 8)
    batch = [s for g in groups for t in g.trajectories for s in t.segments]
    assert len({s.ids[: s.prompt_len] for s in batch}) == 3
    assert len({s.prompt_len for s in batch}) == 2
    assert len({len(s.ids) - s.prompt_len for s in batch}) > 1
    assert max(sum(s.action_mask) for s in batch if s.prompt_len == min(t.prompt_len for t in batch)) > 1
    return batch


def frozen_bytes(policy: Policy) -> dict[str, str]:
    """SHA-256 of every tensor of the model that is not LoRA's, with the scales of the 4-bit weights."""
    out = {}
    for name, value in policy.peft_model.state_dict().items():
        if "lora_" not in name and isinstance(value, torch.Tensor):
            out[name] = hashlib.sha256(value.detach().contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
    return out


# ---- 4 bit -------------------------------------------------------------------------------------------------------


def test_every_adapted_layer_is_nf4(policy):
    import bitsandbytes as bnb

    adapted = {n: m for n, m in policy.peft_model.named_modules() if hasattr(m, "lora_A") and hasattr(m, "base_layer")}
    # 2 blocks × (query, key, value, output, gate, up, down)
    assert len(adapted) == 14
    assert {n.rpartition(".")[2] for n in adapted} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip
    for layer in adapted.values():
        base = layer.base_layer
        assert isinstance(base, bnb.nn.Linear4bit)
        weight = base.weight
        assert isinstance(weight, bnb.nn.Params4bit)
        assert weight.dtype == torch.uint8
        assert weight.numel() * 2 == base.in_features * base.out_features  # two weights a byte
        assert (weight.quant_type, weight.quant_state.quant_type) == ("nf4", "nf4")
        assert not weight.requires_grad
    # No linear layer of the blocks was left out.
    linear = [n for n, m in policy.peft_model.named_modules() if n.endswith("_proj") and hasattr(m, "weight")]
    assert sorted(linear) == sorted(adapted)


def test_full_precision_on_request(new_policy):
    policy = new_policy(four_bit=False)
    weights = [
        m.base_layer.weight for m in policy.peft_model.modules() if hasattr(m, "lora_A") and hasattr(m, "base_layer")
    ]
    assert {w.dtype for w in weights} == {torch.float32}
    assert len(policy.adapted) == 14


def test_twin_holds_the_dequantised_weights(policy, new_policy):
    from bitsandbytes.functional import dequantize_4bit

    names = policy.adapted
    assert len(names) == 14
    exact, dense = base_weights(new_policy(four_bit=False)), base_weights(policy)
    for name, layer in names.items():
        weight = layer.base_layer.weight
        assert torch.equal(dense[name], dequantize_4bit(weight.data, weight.quant_state))
        difference = (dense[name] - exact[name]).abs().max()
        assert 0 < difference < 0.2  # NF4 rounds: this is not the full-precision weight
    for name in set(dense) - set(names):
        assert torch.equal(dense[name], exact[name])


def test_adapter_starts_at_nothing_from_its_seed(new_policy, tiny_model):
    first, again = new_policy(), new_policy()
    other = load_policy(str(tiny_model), LoraSettings(4, 8, seed=1), device="cpu")
    for (name, p), (_, q), (_, r) in zip(
        first.named_trainable(), again.named_trainable(), other.named_trainable(), strict=True
    ):
        assert torch.equal(p, q)
        assert p.shape[0 if "lora_A" in name else 1] == 4
        if "lora_B" in name:
            assert not p.any()
        else:
            assert not torch.equal(p, r)


# ---- the twin computes what the 4-bit model computes -------------------------------------------------------------


def base_weights(policy: Policy) -> dict[str, torch.Tensor]:
    """The dequantised base, by the twin's names."""
    return dict(policy.reference.named_parameters())


def lora_gradients(policy: Policy, total: torch.Tensor) -> list[torch.Tensor]:
    """d total / d LoRA, the way an update takes it."""
    for p in policy.trainable():
        p.grad = None
    policy.pull_back(torch.autograd.grad(total, policy.leaves()))
    return [p.grad.clone() for p in policy.trainable() if p.grad is not None]


def freely(batch: list[TokenSequence]) -> list[TokenSequence]:
    """The same sequences without a constraint."""
    return [replace(s, allowed=None) for s in batch]


def own_log_probs(policy: Policy, batch: list[TokenSequence]) -> list[torch.Tensor]:
    """Of the sampled tokens, sequence by sequence, by the forward pass of the 4-bit peft model itself.

    In training mode (there is no dropout): in evaluation mode bitsandbytes computes in bfloat16 where the CPU can,
    after repacking the weights for good.
    """
    policy.peft_model.train()
    out = []
    for s in batch:
        logits = policy.peft_model(input_ids=torch.tensor([s.ids]), use_cache=False).logits[0].float()
        places = [t for t, mine in enumerate(s.action_mask) if mine]
        ids = [s.ids[t] for t in places]
        rows = logits[[t - 1 for t in places]]
        if s.allowed is not None:
            rows = rows[:, list(s.allowed)]
            ids = [s.allowed.index(i) for i in ids]
        out.append(rows.log_softmax(-1)[torch.arange(len(ids)), ids])
    return out


@pytest.mark.parametrize("shaken", [False, True], ids=["lora_at_start", "lora_nonzero"])
def test_twin_agrees_with_the_4bit_model(policy, new_policy, toy_levels, shaken):
    if shaken:
        shake(policy)
    constrained = sequences(policy, toy_levels)
    assert constrained[0].allowed is not None
    for batch in (constrained, freely(constrained)):
        scores = policy.log_probs(batch)
        own = own_log_probs(policy, batch)
        for logp, mask, wanted in zip(scores.logp, scores.mask, own, strict=True):
            torch.testing.assert_close(logp[mask], wanted, rtol=0, atol=1e-3)
    # What 1e-3 would not have hidden: 4 bit against full precision, and the adapter.
    exact = new_policy(four_bit=False).log_probs(batch)
    assert (exact.logp - policy.log_probs(batch).logp)[exact.mask].abs().max() > 0.01
    if shaken:
        moved = policy.log_probs(batch).logp - new_policy().log_probs(batch).logp
        assert moved[exact.mask].abs().max() > 0.1


@pytest.mark.parametrize("shaken", [False, True], ids=["lora_at_start", "lora_nonzero"])
def test_recorded_log_probs_are_those_of_the_4bit_model(policy, toy_levels, shaken):
    if shaken:
        shake(policy)
    batch = sequences(policy, toy_levels)
    for s, wanted in zip(batch, own_log_probs(policy, batch), strict=True):
        recorded = torch.tensor([p for p, mine in zip(s.logp, s.action_mask, strict=True) if mine])
        torch.testing.assert_close(recorded, wanted.detach(), rtol=0, atol=1e-3)
    scores = policy.log_probs(batch)
    torch.testing.assert_close(scores.logp[scores.mask], scores.behaviour[scores.mask], rtol=0, atol=1e-4)


def test_log_probs_are_aligned_with_their_tokens(policy, toy_levels):
    """Sequences with shared and different prompts, of different lengths, give together what each gives alone."""
    batch = sequences(policy, toy_levels)
    together = policy.log_probs(batch, 0.7)
    for row, s in enumerate(batch):
        alone = policy.log_probs([s], 0.7)
        part = slice(0, len(s.ids) - s.prompt_len)
        assert alone.mask[0].tolist() == list(s.action_mask[s.prompt_len :])
        assert together.mask[row, part].tolist() == alone.mask[0].tolist()
        assert int(together.mask[row].sum()) == sum(s.action_mask)
        torch.testing.assert_close(together.behaviour[row, part], torch.tensor(s.logp[s.prompt_len :]))
        mine = alone.mask[0]
        torch.testing.assert_close(together.logp[row, part][mine], alone.logp[0][mine], rtol=0, atol=1e-4)
        torch.testing.assert_close(together.entropy[row, part][mine], alone.entropy[0][mine], rtol=0, atol=1e-4)
    assert 0 < together.entropy[together.mask].max() <= math.log(4) + 1e-6  # four actions may be sampled


def test_reference_is_the_model_without_its_adapter(policy, new_policy, toy_levels):
    batch = freely(sequences(policy, toy_levels))
    shake(policy)
    scores = policy.log_probs(batch, reference=True)
    assert not scores.logp.requires_grad
    with torch.no_grad(), policy.peft_model.disable_adapter():
        own = own_log_probs(policy, batch)
    for logp, mask, wanted in zip(scores.logp, scores.mask, own, strict=True):
        torch.testing.assert_close(logp[mask], wanted, rtol=0, atol=1e-3)
    # The very same numbers as before the adapter learnt anything; and not those of the adapted model.
    fresh = new_policy().log_probs(batch).logp.detach()
    assert torch.equal(scores.logp, fresh)
    assert (policy.log_probs(batch).logp - scores.logp)[scores.mask].abs().max() > 0.1


@pytest.mark.parametrize("shaken", [False, True], ids=["lora_at_start", "lora_nonzero"])
def test_gradient_through_merged_weights_equals_that_of_the_4bit_model(policy, toy_levels, shaken):
    if shaken:
        shake(policy)
    batch = sequences(policy, toy_levels)
    weight = torch.randn(len(batch), generator=torch.Generator().manual_seed(0))

    named = policy.named_trainable()
    scores = policy.log_probs(batch)
    total = (torch.where(scores.mask, scores.logp, 0.0).sum(1) * weight).sum()
    twin = dict(zip([n for n, _ in named], lora_gradients(policy, total), strict=True))
    total = sum(w * logp.sum() for w, logp in zip(weight, own_log_probs(policy, batch), strict=True))
    own = dict(zip([n for n, _ in named], torch.autograd.grad(total, [p for _, p in named]), strict=True))
    assert len(own) == 28
    for name, wanted in own.items():
        if "lora_A" in name and not shaken:
            assert not wanted.any()  # B = 0 cuts A off
            assert not twin[name].any()
        else:
            assert wanted.norm() > 0
            assert (twin[name] - wanted).norm() <= 1e-3 * wanted.norm(), name


def test_without_a_twin_the_4bit_model_computes_the_same(policy, toy_levels):
    """The path of CUDA, on a CPU: log-probabilities, reference and gradient by the peft model in shared prompts."""
    shake(policy)
    policy.peft_model.train()  # see own_log_probs
    batch = sequences(policy, toy_levels)

    def compute() -> list[torch.Tensor]:
        scores = policy.log_probs(batch)
        gradient = lora_gradients(policy, scores.logp[scores.mask].sum())
        reference = policy.log_probs(batch, reference=True)
        return [scores.logp[scores.mask], scores.entropy[scores.mask], reference.logp[scores.mask], *gradient]

    by_twin = compute()
    policy.twin = None
    for own, twin in zip(compute(), by_twin, strict=True):
        assert (own - twin).norm() <= 1e-3 * twin.norm()


# ---- what learns, and what does not ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["planner", "flat"])
def test_only_lora_learns_and_the_4bit_weights_keep_their_bytes(policy, toy_levels, kind):
    shake(policy)  # so that A has a gradient too
    groups = (blueprint_groups if kind == "planner" else flat_groups)(policy, toy_levels)
    frozen, before = frozen_bytes(policy), {n: p.detach().clone() for n, p in policy.named_trainable()}
    assert sum("absmax" in name for name in frozen) >= 14  # the scales are among what is compared
    dense = {name: p.clone() for name, p in base_weights(policy).items()}
    with_gradient: set[str] = set()

    class Watched(torch.optim.AdamW):
        def step(self, closure: Any = None) -> Any:
            models = {"": policy.peft_model, "twin.": policy.twin}
            with_gradient.update(
                prefix + n
                for prefix, m in models.items()
                for n, p in m.named_parameters()
                if p.grad is not None and p.grad.any()
            )
            return super().step(closure)

    optimizer = Watched(policy.trainable(), lr=1e-2)
    learn(policy, optimizer, groups, Update(groups_per_step=1, epochs=1, minibatches=2), 1.0, np.random.default_rng(0))

    assert with_gradient == {n for n, _ in policy.named_trainable()}
    assert len(with_gradient) == 28
    assert all("lora_" in name for name in with_gradient)
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {id(p) for p in policy.trainable()}
    assert all(not torch.equal(p, before[n]) for n, p in policy.named_trainable())
    assert frozen_bytes(policy) == frozen
    assert all(torch.equal(p, dense[name]) for name, p in base_weights(policy).items() if name in policy.adapted)


def test_rollouts_after_an_update_use_the_new_weights(policy, toy_levels):
    prompt = policy.encode(TASK.start(toy_levels[0]).prompt(Role.FLAT))
    allowed = [policy.encode(t)[0] for t in ("\nup", "\nright")]

    def probability_of_right() -> float:
        (stream,) = policy.decode(
            [prompt], lambda row, token: None, allowed=allowed, sampling=Sampling(0.0), max_sampled=1
        )
        p = math.exp(stream.logp[0])
        return p if stream.ids == allowed[1:] else 1 - p

    before = probability_of_right()
    optimizer = torch.optim.AdamW(policy.trainable(), lr=1e-2)
    learn(policy, optimizer, flat_groups(policy, toy_levels), Update(), 1.0, np.random.default_rng(0))
    after = probability_of_right()
    assert abs(after - before) > 1e-3
    right = replace(_one_token(policy, prompt, "\nright"), allowed=tuple(allowed))
    scores = policy.log_probs([right])
    assert after == pytest.approx(scores.logp.exp().item(), abs=1e-4)


def _one_token(policy: Policy, prompt: list[int], text: str) -> TokenSequence:
    n = len(prompt)
    (token,) = policy.encode(text, prompt=False)
    return TokenSequence(Role.FLAT, (*prompt, token), n, (*[False] * n, True), (0.0,) * (n + 1), End.BUDGET)


def test_a_saved_adapter_comes_back(policy, new_policy, toy_levels, tmp_path):
    shake(policy)
    policy.peft_model.save_pretrained(str(tmp_path), save_embedding_layers=False)
    again = new_policy(adapter=tmp_path)
    for (name, p), (other, q) in zip(policy.named_trainable(), again.named_trainable(), strict=True):
        assert name == other
        assert torch.equal(p, q)
        assert q.requires_grad
    batch = sequences(policy, toy_levels)
    assert torch.equal(policy.log_probs(batch).logp, again.log_probs(batch).logp)


def test_a_gradient_that_is_not_finite_is_not_applied(policy, toy_levels):
    groups = flat_groups(policy, toy_levels)
    broken = [[Credited(i.sequence, float("nan")) for i in group] for group in groups]
    before = [p.detach().clone() for p in policy.trainable()]
    optimizer = torch.optim.AdamW(policy.trainable(), lr=1e-2)
    with pytest.raises(HimacError, match="not finite"):
        learn(policy, optimizer, broken, Update(), 1.0, np.random.default_rng(0))
    assert all(torch.equal(p, q) for p, q in zip(policy.trainable(), before, strict=True))
    assert all(p.grad is None for p in policy.trainable())
    # The trainer can go on with what is sound.
    items = [item for group in groups for item in group]
    (items,) = with_reference(policy, [items], Update(), 1.0)
    assert accumulate(policy, items, Update(), 1.0, {}) == sum(sum(i.sequence.action_mask) for i in items)


# ---- text and tokens ---------------------------------------------------------------------------------------------


def test_text_and_tokens(policy):
    text = "\nup moved (2,3)<sub_done>"
    assert len(policy.encode(text)) == 3
    assert policy.text(policy.encode(text)) == text
    policy.encode(text).append(-1)  # a caller may change what it got
    assert len(policy.encode(text)) == 3
    up, down, left, right, done = (policy.encode(t)[0] for t in (*TASK.actions, "<sub_done>"))
    codes = policy.codes(TASK)
    assert codes.actions == {up: (0, ()), down: (1, ()), left: (2, ()), right: (3, ())}
    assert (codes.prefix, codes.sub_done, codes.end) == ((), done, policy.encode("<end>")[0])
    assert codes.allowed(with_sub_done=False) == [up, down, left, right]
    assert codes.allowed(with_sub_done=True) == [up, down, left, right, done]


def test_an_action_may_have_several_tokens(policy):
    task = SokobanTask(actions=("\nup(1,2)", "\ndown(1,2)(3,4)"))
    up, down, one, three = (policy.encode(t)[0] for t in ("\nup", "\ndown", "(1,2)", "(3,4)"))
    assert policy.codes(task).actions == {up: (0, (one,)), down: (1, (one, three))}


def test_actions_that_begin_alike(policy):
    with pytest.raises(ModelError) as error:
        policy.codes(SokobanTask(actions=("\nup(1,1)", "\ndown", "\nup(2,2)")))
    assert all(part in one_line(error) for part in ("up(1,1)", "up(2,2)", "one token"))


@pytest.mark.parametrize("text", ["<finished>", "<sub_done><sub_done>", "\nup moved (2,3)"])
def test_sub_done_must_be_told_by_one_token(policy, text):
    with pytest.raises(ModelError) as error:
        policy.codes(SokobanTask(sub_done=text))
    assert repr(text) in one_line(error)


# ---- what is no model --------------------------------------------------------------------------------------------


def damage_nothing_there(folder: Path) -> None:
    shutil.rmtree(folder)


def damage_empty(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def damage_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "llama", ')


def damage_unknown_architecture(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "abacus", "architectures": ["Abacus"]}))


def damage_size(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 128}))


def damage_weights_cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])


def damage_weights_garbage(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"not tensors at all " * 50)


def damage_weights_gone(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def damage_a_block_missing(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    kept = {name: t for name, t in tensors.items() if ".layers.1." not in name}
    assert len(kept) < len(tensors)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def damage_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")


@pytest.mark.parametrize(
    "damage",
    [
        damage_nothing_there, damage_empty, damage_config, damage_unknown_architecture, damage_size, damage_weights_cut,
        damage_weights_garbage, damage_weights_gone, damage_a_block_missing, damage_tokenizer,
    ],
    ids=lambda f: f.__name__.removeprefix("damage_"),
)  # fmt: skip
@pytest.mark.parametrize("four_bit", [True, False], ids=["nf4", "full"])
def test_what_is_no_model_is_named_in_one_line(tiny_model, tmp_path, damage, four_bit):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    damage(folder)
    with pytest.raises(ModelError) as error:
        load_policy(str(folder), device="cpu", four_bit=four_bit)
    assert str(folder) in one_line(error)


def test_a_file_is_no_model(tmp_path):
    file = tmp_path / "levels.xsb"
    file.write_text("#####\n#@$.#\n#####\n")
    with pytest.raises(ModelError) as error:
        load_policy(str(file), device="cpu")
    assert str(file) in one_line(error)


@pytest.mark.parametrize("broken", ["missing", "cut", "config"])
def test_a_damaged_adapter_is_named(policy, new_policy, tmp_path, broken):
    folder = tmp_path / "adapter"
    policy.peft_model.save_pretrained(str(folder))
    if broken == "missing":
        (folder / "adapter_model.safetensors").unlink()
    elif broken == "cut":
        (folder / "adapter_model.safetensors").write_bytes((folder / "adapter_model.safetensors").read_bytes()[:100])
    else:
        (folder / "adapter_config.json").write_text("{")
    with pytest.raises(ModelError) as error:
        new_policy(adapter=folder)
    assert str(folder) in one_line(error)


class Answers(http.server.BaseHTTPRequestHandler):
    asked: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self.asked.append(self.path)
        self.send_error(404)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub of this machine, at a port; port 9 has none."""
    from huggingface_hub import constants

    def at(port: int) -> None:
        template = f"http://127.0.0.1:{port}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(loading, "PATIENCE", 0.0)
    at(9)
    return at


def test_a_hub_that_cannot_be_reached_is_said_at_once(hub, tmp_path):
    begun = time.monotonic()
    with pytest.raises(ModelError, match=r"'some/name' is not a folder, and the hub cannot be reached: .*refused"):
        load_policy("some/name")
    assert time.monotonic() - begun < 30  # half a second; the library's own attempts go on for longer than this
    (tmp_path / "models--some--name" / "refs").mkdir(parents=True)
    (tmp_path / "models--some--name" / "refs" / "main").write_text("abc")
    kept = tmp_path / "models--some--name" / "snapshots" / "abc"
    kept.mkdir(parents=True)
    (kept / "config.json").write_text("{}")
    loading._reach("some/name", "main")  # was fetched before: no hub is needed


def test_a_hub_that_answers_is_left_to_the_library(hub):
    with http.server.HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        hub(server.server_port)
        loading._reach("some/name", "v1")
        server.shutdown()
        thread.join()
    assert Answers.asked == ["/some/name/resolve/v1/config.json"]
    loading._reach("no hub id: spaces", "main")
