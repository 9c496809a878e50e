"""The path of CUDA: 4-bit products, dtypes, loss scale, memory. Runs on a machine that has a GPU: `pytest -m gpu`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hub
import numpy as np
import pytest
import torch

from himac_lite import cli, memory, runs, training
from himac_lite.config import PRESETS
from himac_lite.loading import LoraSettings, load_policy
from himac_lite.rollout import ReturnRule, Sampling, play_flat
from himac_lite.tasks.sokoban import SokobanTask
from himac_lite.types import Role

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
    played = play_flat(policy, TASK, toy_levels, Sampling(1.0, np.random.default_rng(0)), ReturnRule())
    batch = [s for t in played for s in t.segments]
    scores = policy.log_probs(batch, policy.allowed(TASK, Role.FLAT).to(policy.device))
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


@pytest.mark.download
@pytest.mark.parametrize("name", ["qwen2.5-0.5b", "qwen2.5-1.5b"])
def test_the_estimate_is_within_15_percent_of_the_peak(name: str, tmp_path: Path, capsys: Any):
    torch.cuda.reset_peak_memory_stats()
    settings = ["update.micro_tokens=1024", "test_limit=8", "validate_every=0", "probe_levels=0"]
    argv = ["train", "--preset", name, "--iterations", "1", "--out", str(tmp_path / "run")]
    assert cli.main([*argv, *(a for s in settings for a in ("--set", s))]) == 0
    config = PRESETS[name]
    capsys.readouterr()
    levels = training.load_items(config.task, config.train_levels, "train")
    needed = memory.before_loading(config.model.path, config, training.make_task(config), levels, True)
    assert needed.total == pytest.approx(memory.measured_peak(torch.device("cuda")), rel=0.15)
