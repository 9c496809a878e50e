"""`himac-lite bench rollout`: episodes per second, ours and a loop over `model.generate` with equal weights and levels.

On a CPU it also compares whole iterations with TRL's trainer (`bench.trl`) and measures growth (`bench.growth`). On a
GPU it measures real architectures, with and without CUDA graphs (`bench.qwen`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from himac_lite.bench import Figure, Report, measure, peak_memory, peers, qwen, ratio, trl
from himac_lite.bench.growth import growth
from himac_lite.bench.loop import generate_each_turn
from himac_lite.coevolution import iterate
from himac_lite.hierarchy import preset
from himac_lite.policy.loading import load_policy
from himac_lite.policy.model import Policy
from himac_lite.policy.parallel import cores, one_thread_a_worker
from himac_lite.rollout.play import Arena
from himac_lite.rollout.rules import ReturnRule
from himac_lite.runs.training import make_learner, make_task, resolve_model
from himac_lite.settings import Train
from himac_lite.tasks import Task
from himac_lite.tasks.sokoban.levels import load_levels
from himac_lite.types import Level, Sampling

RULE = ReturnRule()


def bench(*, runs: int, quick: bool) -> Report:
    """Flat episodes against the loop, hierarchical episodes; then TRL and growth, or real architectures."""
    one_thread_a_worker()
    policy, task = load_policy(resolve_model("sokoban-base")), make_task(Train())
    levels = load_levels("core/validation")[: 2 if quick else 32]
    jobs = [level for level in levels for _ in range(2 if quick else 8)]

    def flat(policy: Policy = policy, task: Task = task, jobs: Sequence[Level] = jobs) -> float:
        return float(len(Arena(policy, task, returns=RULE).play_flat(jobs, Sampling(1.0, np.random.default_rng(0)))))

    ours = measure(f"flat, {len(jobs)} episodes at once", "episodes/s", flat, runs)

    def by_generate() -> float:
        torch.set_num_threads(cores())  # one call at a time, so it uses all cores
        try:
            return float(len(generate_each_turn(policy, task, jobs)))
        finally:
            one_thread_a_worker()

    note = "the whole conversation encoded every turn"
    loop = measure("the same, generate() every turn", "episodes/s", by_generate, runs, note)
    figures = [ours, loop, ratio("flat: ours / generate()", ours, loop)]
    figures.append(measure("HiMAC: blueprints, greedy", "episodes/s", lambda: planned(policy, task, levels), runs))
    if torch.cuda.is_available():
        for size in (qwen.TINY,) if quick else qwen.SIZES:
            figures += qwen.rollouts(size, runs)
    elif not quick:
        figures += against_trl(policy, runs)
        figures += growth(policy, runs)
    return Report("rollouts of sokoban-base", (*figures, peak_memory()), qwen.here())


def against_trl(policy: Policy, runs: int, n_levels: int = 8, group: int = 8) -> list[Figure]:
    """Whole iterations of flat GRPO with one optimizer step: ours, and TRL's in its own environment."""
    config = replace(Train(), update=replace(Train().update, epochs=1, minibatches=1, lr=0.0))
    learner, levels = make_learner(config, preset("flat_grpo")), load_levels("core/validation")[:n_levels]
    counted = max(1, runs // 2)

    def ours() -> float:
        seed = np.random.SeedSequence(0)
        iterate(learner, levels, seed)
        return float(n_levels * group)

    mine = measure(f"flat GRPO, {n_levels} × {group} episodes and an update", "episodes/s", ours, counted)
    where = [Path(__file__).parents[2], policy.name, n_levels, group, counted, learner.task.max_steps]
    theirs, _ = peers.figures(
        "trl", "the same, TRL's GRPOTrainer", "episodes/s", trl.SCRIPT, *where,
        note="float32 base, its own generation every turn",
    )  # fmt: skip
    return [mine, theirs, ratio("flat GRPO: ours / TRL", mine, theirs)]


def planned(policy: Policy, task: Task, levels: Sequence[Level]) -> float:
    """Phase A: 8 blueprints per level, each executed greedily."""
    plans = Arena(policy, task).blueprints(levels, 8, Sampling(1.0, np.random.default_rng(0)))
    jobs = [(level, plan) for level, group in zip(levels, plans, strict=True) for _, plan in group]
    return float(len(Arena(policy, task, returns=RULE).execute(jobs)))
