"""Iterative co-evolution: planner and executor of one model, trained in turn by group-relative advantages.

One iteration of HiMAC (arXiv 2603.00977), for P levels:

- **Phase A, macro exploration.** G blueprints a level, each scored by a greedy execution; the executor is part of the
  environment. The macro advantage of a blueprint trains its tokens.
- **Phase B, micro adaptation.** z*, the best blueprint of each level, is executed N times; the micro advantage of an
  execution trains its action tokens (with `<sub_done>`).

Departures from the paper, and why: G executions are of this small model, so P is tens, not 128; a phase is learnt in
several minibatches, which the clipped ratio allows; groups whose returns are all equal have zero advantage and are left
out of the update, which would only apply KL to them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from himac_lite.advantage import zero_variance
from himac_lite.config import Train
from himac_lite.hierarchy import JOINT, Hierarchy
from himac_lite.model import Policy
from himac_lite.rollout import GREEDY, ReturnRule, Sampling, execute, play_flat, sample_blueprints
from himac_lite.tasks import Task
from himac_lite.types import Item, MacroGroup, MicroGroup
from himac_lite.update import Credited, learn

# Phases: rollouts → groups → credited sequences


def explore(
    policy: Policy, task: Task, levels: Sequence[Item], n: int, sampling: Sampling, rule: ReturnRule
) -> list[MacroGroup]:
    """Phase A rollouts: `n` blueprints a level, each executed greedily."""
    plans = sample_blueprints(policy, task, levels, n, sampling)
    jobs = [(level, blueprint) for level, group in zip(levels, plans, strict=True) for _, blueprint in group]
    done = execute(policy, task, jobs, GREEDY, rule)
    return [
        MacroGroup(level, tuple(s for s, _ in plans[p]), tuple(done[p * n : (p + 1) * n]))
        for p, level in enumerate(levels)
    ]


def adapt(
    policy: Policy, task: Task, groups: Sequence[MacroGroup], best_p: np.ndarray, n: int, sampling: Sampling,
    rule: ReturnRule,
) -> list[MicroGroup]:  # fmt: skip
    """Phase B rollouts: `n` sampled executions of each level's z*."""
    chosen = [group.executions[z].blueprint for group, z in zip(groups, best_p, strict=True)]
    jobs = [(group.level, z) for group, z in zip(groups, chosen, strict=True) if z is not None for _ in range(n)]
    done = execute(policy, task, jobs, sampling, rule)
    return [
        MicroGroup(group.level, z, tuple(done[p * n : (p + 1) * n]))
        for p, (group, z) in enumerate(zip(groups, chosen, strict=True))
    ]


def play(
    policy: Policy, task: Task, levels: Sequence[Item], n: int, sampling: Sampling, rule: ReturnRule
) -> list[MicroGroup]:
    """Flat rollouts: `n` sampled episodes a level without a plan."""
    done = play_flat(policy, task, [level for level in levels for _ in range(n)], sampling, rule)
    return [MicroGroup(level, None, tuple(done[p * n : (p + 1) * n])) for p, level in enumerate(levels)]


def credit_blueprints(groups: Sequence[MacroGroup], advantage_pg: np.ndarray) -> list[list[Credited]]:
    """Blueprint tokens get the macro advantage of their blueprint; nothing else is trained in phase A.

    One list a group; groups without any advantage are left out.
    """
    return [
        [Credited(plan, float(a)) for plan, a in zip(group.plans, row, strict=True)]
        for group, row in zip(groups, advantage_pg, strict=True)
        if row.any()
    ]


def credit_actions(groups: Sequence[MicroGroup], advantage_pn: np.ndarray) -> list[list[Credited]]:
    """Action tokens of all segments get the micro advantage of their trajectory. One list a group, as above."""
    return [
        [Credited(seg, float(a)) for t, a in zip(group.trajectories, row, strict=True) for seg in t.segments]
        for group, row in zip(groups, advantage_pn, strict=True)
        if row.any()
    ]


# One iteration


@dataclass(frozen=True)
class Iteration:
    """What one iteration gathered and did; groups with their advantages, for the record."""

    macro: tuple[MacroGroup, ...]
    macro_adv_pg: np.ndarray
    best_p: np.ndarray
    micro: tuple[MicroGroup, ...]
    micro_adv_pn: np.ndarray
    metrics: dict[str, float]
    env_steps: int
    tokens: int


def iterate(
    policy: Policy, task: Task, hierarchy: Hierarchy, optimizer: torch.optim.Optimizer, levels: Sequence[Item],
    config: Train, seed: np.random.SeedSequence,
) -> Iteration:  # fmt: skip
    """Phase A, phase B: explore → credit → learn → adapt → credit → learn."""
    rng = np.random.default_rng(seed)
    rollout, rule = config.rollout, ReturnRule(config.rollout.progress_share)
    sampling = Sampling(rollout.temperature, rng)
    macro: list[MacroGroup] = []
    macro_adv, best_p = np.zeros((0, 0)), np.zeros(0, int)
    metrics: dict[str, float] = {}
    waiting: list[list[Credited]] = []

    if hierarchy.planner:
        macro = explore(policy, task, levels, rollout.group, sampling, rule)
        return_pg = np.array([[t.ret for t in group.executions] for group in macro])  # [P, G]
        macro_adv, best_p = hierarchy.macro_advantage(return_pg), hierarchy.choose(return_pg, rng)
        blueprints = credit_blueprints(macro, macro_adv)
        if hierarchy.schedule == JOINT:
            waiting = blueprints
        else:
            metrics |= _prefixed(
                "macro", learn(policy, task, optimizer, blueprints, config.update, rollout.temperature, rng)
            )
        metrics |= _prefixed("macro", _group_metrics(return_pg, [t for g in macro for t in g.executions]))
        micro = adapt(policy, task, macro, best_p, rollout.group, sampling, rule)
    else:
        micro = play(policy, task, levels, rollout.group, sampling, rule)
    return_pn = np.array([[t.ret for t in group.trajectories] for group in micro])  # [P, N]
    micro_adv = hierarchy.micro_advantage(return_pn)
    credited = waiting + credit_actions(micro, micro_adv)
    metrics |= _prefixed("micro", learn(policy, task, optimizer, credited, config.update, rollout.temperature, rng))
    metrics |= _prefixed("micro", _group_metrics(return_pn, [t for g in micro for t in g.trajectories]))

    episodes = [t for g in macro for t in g.executions] + [t for g in micro for t in g.trajectories]
    tokens = sum(t.n_tokens for t in episodes) + sum(sum(s.action_mask) for g in macro for s in g.plans)
    return Iteration(
        tuple(macro), macro_adv, best_p, tuple(micro), micro_adv, metrics, sum(t.steps for t in episodes), tokens
    )


def _group_metrics(return_pn: np.ndarray, trajectories: Sequence[Any]) -> dict[str, float]:
    plans = [t.blueprint for t in trajectories if t.blueprint is not None]
    out = {
        "return": float(return_pn.mean()),
        "success": float(np.mean([t.success for t in trajectories])),
        "zero_variance": float(zero_variance(return_pn).mean()),
        "any_success": float(np.mean([any(t.success for t in row) for row in _rows(trajectories, return_pn.shape[1])])),
        "steps": float(np.mean([t.steps for t in trajectories])),
    }
    if plans:
        out["blueprint_valid"] = float(np.mean([p.invalid is None for p in plans]))
        out["blueprint_length"] = float(np.mean([len(p.subgoals) for p in plans]))
    return out


def _rows(items: Sequence[Any], n: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), n):
        yield items[start : start + n]


def _prefixed(prefix: str, values: dict[str, float]) -> dict[str, float]:
    return {f"{prefix}/{name}": value for name, value in values.items()}
