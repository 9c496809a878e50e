"""The estimate of memory: published sizes, measured bytes, and the micro-batch that fits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import hub
import numpy as np
import pytest
import torch

from himac_lite import cli
from himac_lite.config import TRAIN_PRESETS, Model, Rollout, Train, Update, validate
from himac_lite.policy import decoding as generation
from himac_lite.policy import memory
from himac_lite.policy.loading import LoraSettings, compute_dtype, load_policy
from himac_lite.policy.memory import Tokens, estimate, fit, shape_of
from himac_lite.policy.update import accumulate
from himac_lite.rollout.play import Arena
from himac_lite.tasks.sokoban.levels import load_levels
from himac_lite.tasks.sokoban.task import SokobanTask
from himac_lite.types import Credited, Sampling

QWEN = {"tie_word_embeddings": True, "vocab_size": 151936}
# (hidden, inner, layers, query heads, key heads, head width, parameters as published)
PUBLISHED = {
    "qwen2.5-0.5b": ("Qwen2", 896, 4864, 24, 14, 2, 64, 494_032_768),
    "qwen2.5-1.5b": ("Qwen2", 1536, 8960, 28, 12, 2, 128, 1_543_714_304),
    "qwen3-0.6b": ("Qwen3", 1024, 3072, 28, 16, 8, 128, 596_049_920),
    "qwen3-1.7b": ("Qwen3", 2048, 6144, 28, 16, 8, 128, 1_720_574_976),
}
# What docs/models.md says for a T4 (15 GB, float16), 8 levels × 8 rollouts, in GB: goals 6 for 0.5B and 10 for 1.5B.
GOALS = {"qwen2.5-0.5b": 6, "qwen2.5-1.5b": 10}
LENGTHS = Tokens(prompt=420, answer=400, plan=260)


def config_of(name: str) -> Any:
    import transformers

    kind, hidden, inner, layers, heads, keys, wide, _ = PUBLISHED[name]
    sizes = {
        "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": keys, **({"head_dim": wide} if kind == "Qwen3" else {}),
    }  # fmt: skip
    return getattr(transformers, f"{kind}Config")(**QWEN, **sizes)


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_shapes_have_the_published_number_of_parameters(name: str):
    _, hidden, inner, layers, heads, keys, wide, parameters = PUBLISHED[name]
    shape = shape_of(config_of(name))
    assert shape.linear + shape.rest == parameters
    assert (shape.layers, shape.hidden, shape.inner, shape.query, shape.key) == (
        layers, hidden, inner, heads * wide, keys * wide
    )  # fmt: skip
    # q, k, v, o, gate, up, down: inputs and outputs of each.
    q, k = heads * wide, keys * wide
    assert shape.lora_per_rank == layers * (2 * (hidden + q) + 2 * (hidden + k) + 3 * (hidden + inner))
    if name in GOALS:
        t4 = estimate(shape, LENGTHS, TRAIN_PRESETS[name], torch.float16, 2048, on_cpu=False)
        assert t4.total < GOALS[name] * 1e9


def test_parts_by_hand():
    """One layer, width 2: numbers that a reader can add up."""
    shape = memory.Shape(linear=1024, rest=100, lora_per_rank=40, layers=1, hidden=2, inner=3, vocab=10, query=2, key=1)
    config = Train(model=Model(rank=4), rollout=Rollout(levels=2, group=3, static_cache="off"))
    found = estimate(shape, Tokens(prompt=6, answer=4, plan=4), config, torch.float16, 20, on_cpu=False)
    assert found.weights == 1024 // 2 + 1024 // 64 * 4 + 100 * 2 + 4 * 4 * 40  # NF4, its scales, the rest, LoRA
    assert found.cache == 6 * (10 + 32) * 1 * 2 * 1 * 2  # rows × tokens and slack × layers × (k, v) × width × bytes
    block = 2 * (4 * 2 + 3 * 2 + 2 * 1 + 4 * 3) + 4 * (5 * 2 + 2 + 3)
    assert found.activations == 20 * block + 20 * 4 // 10 * 10 * (2 + 16)
    assert found.optimizer == 3 * 4 * 4 * 40  # gradient and AdamW's two moments
    assert found.total == found.weights + found.optimizer + max(found.cache, found.activations)
    # At fixed shapes: 8 rows at least, 42 tokens rounded to 48; what CUDA graphs point to is held through updates.
    config = replace(config, rollout=Rollout(levels=2, group=3))
    found = estimate(shape, Tokens(prompt=6, answer=4, plan=4), config, torch.float16, 20, on_cpu=False)
    assert found.cache == 8 * 48 * 1 * 2 * 1 * 2
    assert found.total == found.weights + found.optimizer + found.cache + found.activations
    lean = estimate(
        shape, Tokens(6, 4, 4), Train(model=Model(rank=4, checkpointing=True)), torch.float16, 20, on_cpu=False
    )
    assert lean.activations == 20 * 1 * 2 * 2 + max(20 * block, 80 * 18)  # a block is computed again without the logits


def test_the_micro_batch_that_fits_is_the_largest():
    shape, config = shape_of(config_of("qwen2.5-0.5b")), TRAIN_PRESETS["qwen2.5-0.5b"]
    for free, tokens in ((2e9, 256), (2.5e9, 512), (3.5e9, 1024), (6e9, 2048), (80e9, 2048)):
        found = fit(shape, LENGTHS, config, torch.float16, int(free), smallest=256)
        assert found.micro_tokens == tokens
        assert found.total <= 0.9 * free
        more = estimate(shape, LENGTHS, config, torch.float16, 2 * tokens, on_cpu=False)
        assert more.total > 0.9 * free or tokens == 2048
    assert fit(shape, LENGTHS, config, torch.float16, 1).micro_tokens == 1024  # one sequence of 820 tokens, at least


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [(None, torch.float32), ((7, 5), torch.float16), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)],
)
def test_bfloat16_only_where_the_hardware_has_it(capability: Any, dtype: torch.dtype):
    assert compute_dtype(capability) is dtype


# ---- measured ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[False, True], ids=["kept", "checkpointing"])
def measured(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(policy, shape) of a model whose parts have the proportions of a real one."""
    tokenizer = hub.make_tokenizer("qwen2.5")
    folder = tmp_path_factory.mktemp("measured") / "model"
    model = hub.make_model("qwen2.5", tokenizer, width=256)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    policy = load_policy(str(folder), LoraSettings(8, 16), checkpointing=request.param, device="cpu")
    return policy, shape_of(model.config)


def peak_of(work: Any) -> int:
    """The most bytes that PyTorch's CPU allocator held more than at the start, as its profiler saw them."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        kept = work()
    del kept
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = np.cumsum([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())])
    return int(held.max())


def test_weights_cache_and_activations_are_within_15_percent(measured: Any, monkeypatch: Any):
    policy, shape = measured
    monkeypatch.setattr(type(policy), "workers", property(lambda self: 1))
    task = SokobanTask(max_steps=12)
    level = next(lv for lv in load_levels("core/test") if (lv.optimal_moves or 0) > 16)  # nobody solves it in 12 moves
    config = Train(model=Model(rank=8, checkpointing=policy.checkpointing), rollout=Rollout(levels=1, group=8))
    played = Arena(policy, task).play_flat([level] * 8, Sampling(1.0, np.random.default_rng(0)))
    batch = [s for t in played for s in t.segments]
    answer = max(len(s.ids) - s.prompt_len for s in batch)
    prompt = batch[0].prompt_len
    # With checkpointing every row has its prompt; without, rows share it.
    micro = 8 * answer + (8 * prompt if policy.checkpointing else prompt)
    share = Tokens(micro - 8 * answer, 8 * answer, 0)
    found = estimate(shape, share, config, torch.float32, micro, on_cpu=True)

    tensors = {}
    for owner in (policy.peft_model, policy.twin, policy.reference):
        for p in owner.parameters():
            tensors[p.data_ptr()] = p.nbytes
            if (state := getattr(p, "quant_state", None)) is not None:
                tensors[state.absmax.data_ptr()] = state.absmax.nbytes
    assert found.weights == pytest.approx(sum(tensors.values()), rel=0.15)

    rooms: dict[int, int] = {}
    kept = generation._GrowingLayer.update

    def update(self: Any, *args: Any, **keywords: Any) -> Any:
        out = kept(self, *args, **keywords)
        held = sum(t.nbytes for t in self.room or (self.keys, self.values))
        rooms[id(self)] = max(rooms.get(id(self), 0), held)
        return out

    monkeypatch.setattr(generation._GrowingLayer, "update", update)
    Arena(policy, task).play_flat([level] * 8, Sampling(1.0, np.random.default_rng(0)))
    monkeypatch.setattr(generation._GrowingLayer, "update", kept)
    cache = estimate(shape, Tokens(prompt, answer, 0), config, torch.float32, micro, on_cpu=True).cache
    assert cache == pytest.approx(sum(rooms.values()), rel=0.15)

    items = [Credited(s, 1.0) for s in batch]
    settings = Update(beta=0.0, micro_tokens=10**6)
    policy.computing()
    peak = peak_of(lambda: accumulate(policy, items, settings, 1.0, {}))
    gradients = found.optimizer - 4 * 2 * 8 * shape.lora_per_rank  # all but AdamW's moments, which are not made here
    assert found.activations + gradients == pytest.approx(peak, rel=0.15)


# ---- the command -------------------------------------------------------------------------------------------------


def test_the_command_says_it_before_anything_is_loaded(
    tmp_path: Path, toy_file: str, capsys: pytest.CaptureFixture[str]
):
    folder = hub.make_hub(tmp_path / "hub", "qwen3")
    (folder / "model.safetensors").unlink()  # config and tokenizer are enough
    assert cli.main(["memory", "--model", str(folder), "--levels", toy_file]) == 0
    assert "memory, an estimate: at most" in capsys.readouterr().out
    with pytest.raises(Exception, match="micro_tokens must lie"):
        validate(Train(update=Update(micro_tokens=-1)))
    assert cli.main(["memory", "--model", str(tmp_path / "none")]) == 2
