"""Speed and memory of rollouts by group size, episode length and model size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from himac_lite.bench import Figure, measure, memory_since, start_memory
from himac_lite.policy.model import Policy
from himac_lite.pretraining.driver import make_model
from himac_lite.rollout.play import Arena
from himac_lite.runs.training import make_task
from himac_lite.settings import Pretrain, Train
from himac_lite.tasks import Task
from himac_lite.tasks.sokoban.levels import load_levels
from himac_lite.types import Level, Sampling

SIZES = ((64, 4), (128, 8), (256, 12), (512, 12))
"""Width and layers of models with random weights."""


def growth(policy: Policy, runs: int) -> list[Figure]:
    """Flat episodes per second on 32 levels, by group size, steps and model size, each with its peak memory."""
    out: list[Figure] = []
    levels = load_levels("core/validation")[:32]
    for group, steps in ((4, 50), (8, 50), (16, 50), (8, 25), (8, 100)):
        out += _one(f"flat, group {group}, {steps} steps", policy, levels, group, steps, runs)
    for width, layers in SIZES:
        fresh = with_fresh_weights(policy, width, layers)
        millions = sum(p.numel() for p in fresh.twin.parameters()) / 1e6
        out += _one(f"flat, model of {millions:.1f}M weights", fresh, levels, 8, 50, runs)
    return out


def _one(name: str, policy: Policy, levels: Sequence[Level], group: int, steps: int, runs: int) -> list[Figure]:
    config = Train()
    task: Task = make_task(replace(config, rollout=replace(config.rollout, max_steps=steps)))
    jobs = [level for level in levels for _ in range(group)]

    def play() -> float:
        return float(len(Arena(policy, task).play_flat(jobs, Sampling(1.0, np.random.default_rng(0)))))

    start_memory()
    return [measure(name, "episodes/s", play, max(1, runs // 2)), memory_since(f"{name}: memory")]


def with_fresh_weights(policy: Policy, width: int, layers: int) -> Policy:
    """The policy's tokenizer with a random Llama of another size: speed does not depend on skill."""
    model: Any = make_model(replace(Pretrain(), width=width, layers=layers, heads=max(1, width // 32)))
    return replace(policy, twin=model.requires_grad_(False).eval(), reference=model, adapted={}, _stale=False)
