"""`himac-lite bench train`: tokens per second of an update, and its share of this machine's matrix-product speed.

The matrix products are measured in the same run, with the model's sizes and the same number of workers. FLOPs per token
are 6 N (forward 2 N, backward 4 N) plus 2 N for the base model, with N the weights of all products. Attention counts 4
d per layer and pair of tokens, three times for forward and backward and once for the base. On a GPU the benchmark
measures real architectures instead (`bench.qwen`).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from himac_lite.bench import Figure, Report, machine, measure, peak_memory, qwen
from himac_lite.coevolution import adapt, iterate
from himac_lite.hierarchy.credit import credit_actions
from himac_lite.policy.microbatches import micro_batches
from himac_lite.policy.parallel import cores, map_in_order, one_thread_a_worker
from himac_lite.policy.update import learn
from himac_lite.rollout.play import Arena
from himac_lite.runs.training import draw_levels, make_learner
from himac_lite.settings import Train, Update
from himac_lite.tasks.sokoban.levels import load_levels
from himac_lite.types import Credited, Sampling

KINDS = {
    "matrix products": ("mm", "addmm", "bmm", "linear", "matmul"),
    "attention": ("scaled_dot_product", "flash_attention"),
    "copies and concatenation": ("copy_", "cat", "index", "clone", "contiguous", "_to_copy"),
}


def bench(*, runs: int, quick: bool) -> Report:
    """Update, matrix products, time by kind of operation, and iterations per minute of the default run."""
    one_thread_a_worker()
    if torch.cuda.is_available():
        real = [figure for size in ((qwen.TINY,) if quick else qwen.SIZES) for figure in qwen.updates(size, runs)]
        return Report("updates of real architectures", tuple(real), qwen.here())
    config = Train()
    config = replace(config, rollout=replace(config.rollout, levels=2 if quick else config.rollout.levels))
    learner = make_learner(config)
    levels = [lv for lv in load_levels("core/train") if (lv.optimal_moves or 0) >= config.rollout.min_length]
    groups = episodes(learner.policy, learner.task, draw_levels(levels, config, 0), config.rollout.group)
    once = replace(Update(), epochs=1, lr=0.0)
    tokens, weights, attention = work(learner.policy, groups, once)

    def update() -> float:
        learn(learner.policy, learner.optimizers["macro"], groups, once, 1.0, np.random.default_rng(0))
        return tokens

    updated = measure("update of flat episodes, one pass", "tokens/s", update, runs, "prompts counted once a group")
    width, inner = learner.policy.twin.config.hidden_size, learner.policy.twin.config.intermediate_size
    products = measure("matrix products of the model's size", "GFLOP/s", lambda: multiply(width, inner), runs)
    share = 100 * updated.value / tokens / 1e9 / products.value
    figures = [
        updated, products,
        Figure("share of the machine's products", "%", share * (weights + attention), note="attention's included"),
        Figure("the same, the weights' products only", "%", share * weights),
        *shares(update),
    ]  # fmt: skip
    if not quick:

        def iteration() -> float:
            iterate(learner, draw_levels(levels, config, 0), np.random.SeedSequence(0))
            return 60.0

        for group in learner.optimizers["macro"].param_groups:
            group["lr"] = 0.0  # so that every measured iteration equals the first
        figures.append(measure("iterations of the default run", "a minute", iteration, max(1, runs // 2)))
    return Report("updates of sokoban-base", (*figures, peak_memory()), machine())


def episodes(policy: Any, task: Any, levels: Any, n: int) -> list[list[Credited]]:
    """Flat episodes with random advantages, as input of an update."""
    groups = adapt(Arena(policy, task, sampling=Sampling(1.0, np.random.default_rng(0))), levels, n)
    return credit_actions(groups, np.random.default_rng(1).standard_normal((len(levels), n)))


def work(policy: Any, groups: list[list[Credited]], settings: Update) -> tuple[int, float, float]:
    """The work of one pass with the base model: tokens, FLOPs of the weights' products, FLOPs of attention.

    Each group's prompt counts once; attention counts causal pairs only.
    """
    tokens, pairs = 0, 0.0
    for part in micro_batches([item for group in groups for item in group], settings.micro_tokens):
        prompts = {item.sequence.ids[: item.sequence.prompt_len] for item in part}
        own = [(i.sequence.prompt_len, len(i.sequence.ids) - i.sequence.prompt_len) for i in part]
        tokens += sum(map(len, prompts)) + sum(t for _, t in own)
        pairs += sum(len(p) ** 2 / 2 for p in prompts) + sum(t * (p + t / 2) for p, t in own)
    n = sum(p.numel() for name, p in policy.twin.named_parameters() if name in policy.adapted)
    shape = policy.twin.config
    return tokens, 8.0 * n * tokens, 4 * 4.0 * shape.hidden_size * shape.num_hidden_layers * pairs


def multiply(width: int, inner: int) -> float:
    """Multiply [4096, width]·[width, inner] and back on every worker for half a second; returns GFLOP."""
    x, w, v = torch.randn(4096, width), torch.randn(width, inner), torch.randn(inner, width)

    def some(_: int) -> int:
        begun, count = time.perf_counter(), 0
        while time.perf_counter() - begun < 0.5:
            (x @ w) @ v
            count += 1
        return count

    return 4.0 * 4096 * width * inner * sum(map_in_order(some, range(cores()))) / 1e9


def shares(run: Callable[[], float]) -> list[Figure]:
    """The time of one update by kind of operation, on one core because the profiler follows one thread."""
    with one_core(), torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], acc_events=True
    ) as profile:  # fmt: skip
        run()
    spent: dict[str, float] = dict.fromkeys(KINDS, 0.0) | {"element by element, and the rest": 0.0}
    for event in profile.key_averages():
        name = event.key.removeprefix("aten::")
        kind = next((k for k, names in KINDS.items() if any(n in name for n in names)), [*spent][-1])
        spent[kind] += event.self_cpu_time_total
    total = sum(spent.values())
    return [Figure(f"  time in {kind}", "%", 100 * value / total) for kind, value in spent.items()]


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Restrict the process to one core, if the system allows it."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(mine)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)
