"""Prompting-only baselines: the untrained model, and what several attempts at test time gain without training.

They pay at *test* time, in environment steps and tokens; a trained policy plays each test level once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from himac_lite.policy.model import Policy
from himac_lite.rollout.play import Arena
from himac_lite.tasks import Task
from himac_lite.types import GREEDY, Item, Sampling, Trajectory


@dataclass(frozen=True)
class Attempts:
    """The attempts on one level: the one that counts, and the cost of all of them."""

    final: Trajectory
    tries: int
    env_steps: int
    tokens: int


Prompted = Callable[[Policy, Task, Sequence[Item], np.random.Generator], "list[Attempts]"]
"""(policy, task, levels, rng) → one `Attempts` a level."""


def step_by_step(policy: Policy, task: Task, levels: Sequence[Item], rng: np.random.Generator) -> list[Attempts]:
    """Flat and greedy. It stands in for ReAct: the small model cannot write thoughts."""
    return [Attempts(t, 1, t.steps, t.n_tokens) for t in Arena(policy, task).play_flat(levels)]


def best_of(n: int) -> Prompted:
    """`n` sampled blueprints (a single one is greedy), each executed greedily; the best counts. Needs `n` plays."""

    def prompted(policy: Policy, task: Task, levels: Sequence[Item], rng: np.random.Generator) -> list[Attempts]:
        arena = Arena(policy, task)
        plans = arena.blueprints(levels, n, Sampling(1.0, rng) if n > 1 else GREEDY)
        done = arena.execute([(level, z) for level, group in zip(levels, plans, strict=True) for _, z in group])
        out = []
        for p, group in enumerate(plans):
            own = done[p * n : (p + 1) * n]
            tokens = sum(t.n_tokens for t in own) + sum(sum(s.action_mask) for s, _ in group)
            out.append(Attempts(max(own, key=lambda t: t.ret), n, sum(t.steps for t in own), tokens))
        return out

    return prompted


def retry(tries: int) -> Prompted:
    """Restart a failed level with another blueprint, until it is solved or after `tries` attempts. The first is greedy.

    Reflexion (arXiv 2303.11366) writes down what went wrong and reads it before the next attempt. The small model
    cannot write that, so its memory is reduced to one rule: a blueprint that failed is not tried again.
    """

    def prompted(policy: Policy, task: Task, levels: Sequence[Item], rng: np.random.Generator) -> list[Attempts]:
        arena = Arena(policy, task)
        out: list[Attempts | None] = [None] * len(levels)
        failed: list[set[str]] = [set() for _ in levels]
        for attempt in range(tries):
            open_p = [p for p, tried in enumerate(out) if tried is None or not tried.final.success]
            if not open_p:
                break
            sampling, n = (GREEDY, 1) if attempt == 0 else (Sampling(1.0, rng), 4)
            drawn = arena.blueprints([levels[p] for p in open_p], n, sampling)
            picked = [
                next((z for _, z in group if z.text not in failed[p]), group[-1][1])
                for p, group in zip(open_p, drawn, strict=True)
            ]
            done = arena.execute([(levels[p], z) for p, z in zip(open_p, picked, strict=True)])
            for p, group, z, t in zip(open_p, drawn, picked, done, strict=True):
                failed[p].add(z.text)
                before = out[p] or Attempts(t, 0, 0, 0)
                tokens = before.tokens + t.n_tokens + sum(sum(s.action_mask) for s, _ in group)
                out[p] = Attempts(t, before.tries + 1, before.env_steps + t.steps, tokens)
        return [tried for tried in out if tried is not None]

    return prompted


PROMPTED: dict[str, Prompted] = {
    "prompt_flat": step_by_step,
    "prompt_blueprint": best_of(1),
    "prompt_best_of_8": best_of(8),
    "prompt_retry_8": retry(8),
}
"""Name in `himac-lite reproduce` → policy."""
