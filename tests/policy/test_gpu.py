"""The path of CUDA: 4-bit products, dtypes, loss scale, memory. Runs on a machine that has a GPU: `pytest -m gpu`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import hub
import numpy as np
import pytest
import torch
from test_decoding import conversation, random_prompts

from himac_lite import cli
from himac_lite.config import TRAIN_PRESETS, Pretrain
from himac_lite.policy import memory
from himac_lite.policy.decoding import Growing, Stream, decode
from himac_lite.policy.loading import LoraSettings, load_policy
from himac_lite.policy.static_decoding import CudaGraphs, StaticDecoding
from himac_lite.pretraining.driver import make_model
from himac_lite.rollout.play import Arena
from himac_lite.runs import folder as runs
from himac_lite.runs import training
from himac_lite.tasks.sokoban.task import SokobanTask
from himac_lite.types import Sampling

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
TASK = SokobanTask(max_steps=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hub.make_hub(tmp_path_factory.mktemp("gpu") / "base", "qwen2.5")


@pytest.mark.parametrize("checkpointing", [False, True])
def test_rollout_and_update_agree_in_4_bit(folder: Path, toy_levels: Any, checkpointing: bool):
    policy = load_policy(str(folder), LoraSettings(8, 16), checkpointing=checkpointing)
    assert policy.twin is None
    assert all(p.dtype is torch.float32 for p in policy.trainable())
    small = torch.cuda.get_device_capability()[0] < 8
    assert policy.scaler.is_enabled() == small
    played = Arena(policy, TASK).play_flat(toy_levels, Sampling(1.0, np.random.default_rng(0)))
    batch = [s for t in played for s in t.segments]
    scores = policy.log_probs(batch)
    assert (scores.logp - scores.behaviour)[scores.mask].abs().max() < 0.05
    gradients = torch.autograd.grad(scores.logp[scores.mask].sum(), policy.leaves(), allow_unused=False)
    assert any(g.any() for g in gradients)


def test_a_run_and_its_measured_peak(folder: Path, toy_file: str, tmp_path: Path, capsys: Any):
    settings = [f"test_levels={toy_file}", f"validation_levels={toy_file}", "rollout.levels=4", "rollout.max_steps=4"]
    settings += ["model.checkpointing=true", "update.micro_tokens=0", "rollout.progress_share=0.5", "probe_levels=0"]
    argv = ["train", "--model", str(folder), "--variant", "flat_grpo", "--levels", toy_file, "--iterations", "2"]
    torch.cuda.reset_peak_memory_stats()
    assert cli.main([*argv, "--out", str(tmp_path / "run"), *(a for s in settings for a in ("--set", s))]) == 0
    assert "memory, measured" in capsys.readouterr().err
    assert training.load_trained(runs.load_run(tmp_path / "run")).twin is None


# ---- CUDA graphs -------------------------------------------------------------------------------------------------


def test_cuda_graphs_give_the_tokens_of_the_growing_cache_and_are_faster():
    """In float32, where greedy tokens can be compared; 24 narrow layers, so that launching kernels takes the time."""
    model = make_model(Pretrain(width=64, layers=24, heads=2)).eval().cuda()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(3 if p.ndim == 2 else 1)
    prompts = [p for p in random_prompts(1, (3, 20, 45, 45, 9)) for _ in range(8)]
    static = StaticDecoding(CudaGraphs())

    def play(context: Any) -> tuple[list[Stream], float]:
        react = conversation(2, lambda row, turn: 3, lambda row, turn: turn >= 10 + row)
        begun = time.perf_counter()
        out = decode(model, prompts, react, pad_id=0, temperature=0, max_sampled=50, context=context)
        return out, time.perf_counter() - begun

    for _ in range(2):  # computed and recorded; then replayed from the first step on
        ours, fast = play(static.context)
        wanted, slow = play(Growing)
        assert [s.ids for s in ours] == [s.ids for s in wanted]
        for a, b in zip(ours, wanted, strict=True):
            assert a.logp == pytest.approx(b.logp, abs=1e-3)
    assert static.refused == ""
    assert all(step.recorded for step in static._steps.values() if step.calls > 1)
    print(f"50 turns of 40 rows: {slow:.2f} s, replayed {fast:.2f} s")
    assert fast < slow


def test_cuda_graphs_hold_for_4_bit_and_lora_as_it_changes(folder: Path, toy_levels: Any):
    policy = load_policy(str(folder), LoraSettings(8, 16))
    assert policy.static is not None
    for _ in range(3):
        played = Arena(policy, TASK).play_flat(toy_levels * 3, Sampling(1.0, np.random.default_rng(0)))
        batch = [s for t in played for s in t.segments]
        scores = policy.log_probs(batch)
        assert (scores.logp - scores.behaviour)[scores.mask].abs().max() < 0.05
        with torch.no_grad():  # as an optimizer's step: what was recorded must follow
            for p in policy.trainable():
                p.add_(0.02 * torch.randn_like(p))
        policy.changed()
    assert policy.static.refused == ""
    assert any(step.recorded for step in policy.static._steps.values())


@pytest.mark.parametrize("what", ["rollout", "train"])
def test_the_benchmark_prints_its_table(what: str, capsys: Any):
    assert cli.main(["bench", what, "--quick", "--runs", "1", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert all(f["value"] > 0 for f in report["figures"])
    assert any("peak memory" in f["name"] for f in report["figures"])


@pytest.mark.download
@pytest.mark.parametrize("name", ["qwen2.5-0.5b", "qwen2.5-1.5b"])
def test_the_estimate_is_within_15_percent_of_the_peak(name: str, tmp_path: Path, capsys: Any):
    torch.cuda.reset_peak_memory_stats()
    settings = ["update.micro_tokens=1024", "test_limit=8", "validate_every=0", "probe_levels=0"]
    argv = ["train", "--preset", name, "--iterations", "1", "--out", str(tmp_path / "run")]
    assert cli.main([*argv, *(a for s in settings for a in ("--set", s))]) == 0
    config = TRAIN_PRESETS[name]
    capsys.readouterr()
    levels = training.load_items(config.task, config.train_levels, "train")
    needed = memory.before_loading(config.model.path, config, training.make_task(config), levels, True)
    assert needed.total == pytest.approx(memory.measured_peak(torch.device("cuda")), rel=0.15)
