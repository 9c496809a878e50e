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
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from himac_lite.advantage import zero_variance
from himac_lite.config import Train
from himac_lite.errors import ConfigError
from himac_lite.hierarchy import EXECUTOR_ONLY, JOINT, ORACLE, PLANNER_ONLY, PRESETS, Hierarchy
from himac_lite.hierarchy.credit import credit_actions, credit_blueprints, credit_divisions
from himac_lite.policy.model import Policy
from himac_lite.policy.update import learn
from himac_lite.rollout.play import Arena, sample_blueprints
from himac_lite.rollout.rules import ReturnRule, as_written
from himac_lite.tasks import Task
from himac_lite.types import GREEDY, Blueprint, Credited, Item, MacroGroup, MicroGroup, Sampling, Trajectory

HIMAC = PRESETS["himac"]

# Phases: rollouts → groups


def explore(
    policy: Policy, task: Task, levels: Sequence[Item], n: int, sampling: Sampling, rule: ReturnRule,
    hierarchy: Hierarchy = HIMAC, played: list[Trajectory] | None = None,
) -> list[MacroGroup]:  # fmt: skip
    """Phase A rollouts: `n` blueprints a level, each scored by the frozen executor (HiMAC: one greedy execution).

    played: gets every trajectory that the scores called for.
    """
    plans = sample_blueprints(policy, task, levels, n, sampling)
    jobs = [(level, blueprint) for level, group in zip(levels, plans, strict=True) for _, blueprint in group]
    table = Arena(policy, task, hierarchy.rules, rule, sampling, [] if played is None else played)
    # With three levels the middle one belongs to the frozen part; with two, who plans again explores again.
    done = hierarchy.score(table, jobs, GREEDY if hierarchy.depth == 3 else sampling)
    if len(done) != len(jobs):
        raise ConfigError(f"score returned {len(done)} trajectories for {len(jobs)} blueprints")
    return [
        MacroGroup(level, tuple(s for s, _ in plans[p]), tuple(done[p * n : (p + 1) * n]))
        for p, level in enumerate(levels)
    ]


def chosen(task: Task, groups: Sequence[MacroGroup], best_p: np.ndarray) -> list[Blueprint]:
    """z* of each level: the blueprint that `best_p` names, or the task's own solution for `ORACLE`."""
    return [
        task.oracle(group.level) if z == ORACLE else group.executions[z].blueprint or Blueprint("")
        for group, z in zip(groups, best_p, strict=True)
    ]


def divide(
    policy: Policy, task: Task, levels: Sequence[Item], goals: Sequence[Blueprint], n: int, sampling: Sampling,
    rule: ReturnRule, hierarchy: Hierarchy, played: list[Trajectory] | None = None,
) -> list[MicroGroup]:  # fmt: skip
    """The middle of three levels: `n` ways to divide the sub-goals of each level's z*, executed greedily.

    The action of this level is a blueprint for one sub-goal: the planner reads the board as it is when the sub-goal's
    turn comes, with the sub-goal where an executor reads it, and writes the sub-goals that the executor is told. So the
    top level decides what is to be reached, the middle one by which steps, the bottom one how to move. All three speak
    the same language; the small model has never seen a planner's prompt with a sub-goal in it and has to learn its use.
    """
    table = Arena(policy, task, hierarchy.rules, rule, sampling, [] if played is None else played)
    done = table.execute([(lv, z) for lv, z in zip(levels, goals, strict=True) for _ in range(n)], GREEDY, sampling)
    return _grouped(levels, goals, done, n)


def adapt(
    policy: Policy, task: Task, groups: Sequence[MacroGroup], best_p: np.ndarray, n: int, sampling: Sampling,
    rule: ReturnRule, hierarchy: Hierarchy = HIMAC,
) -> list[MicroGroup]:  # fmt: skip
    """Phase B rollouts: `n` sampled executions of each level's z*."""
    levels = [group.level for group in groups]
    return practise(policy, task, levels, chosen(task, groups, best_p), n, sampling, rule, hierarchy)


def practise(
    policy: Policy, task: Task, levels: Sequence[Item], plans: Sequence[Blueprint], n: int, sampling: Sampling,
    rule: ReturnRule, hierarchy: Hierarchy = HIMAC, played: list[Trajectory] | None = None,
) -> list[MicroGroup]:  # fmt: skip
    """`n` sampled executions of one given blueprint a level. Who plans again on the way is frozen: greedy."""
    rules = hierarchy.rules
    if hierarchy.depth == 3:  # what the middle level chose stands in the blueprint by now, in its form
        rules = replace(rules, tactics=False, form=as_written)
    table = Arena(policy, task, rules, rule, sampling, [] if played is None else played)
    done = table.execute([(lv, z) for lv, z in zip(levels, plans, strict=True) for _ in range(n)], sampling)
    return _grouped(levels, plans, done, n)


def play(
    policy: Policy, task: Task, levels: Sequence[Item], n: int, sampling: Sampling, rule: ReturnRule,
    hierarchy: Hierarchy = HIMAC, played: list[Trajectory] | None = None,
) -> list[MicroGroup]:  # fmt: skip
    """Flat rollouts: `n` sampled episodes a level without a plan."""
    table = Arena(policy, task, hierarchy.rules, rule, sampling, [] if played is None else played)
    return _grouped(levels, [None] * len(levels), table.play_flat([lv for lv in levels for _ in range(n)], sampling), n)


def _grouped(
    levels: Sequence[Item], plans: Sequence[Blueprint | None], done: Sequence[Trajectory], n: int
) -> list[MicroGroup]:
    return [
        MicroGroup(level, z, tuple(done[p * n : (p + 1) * n]))
        for p, (level, z) in enumerate(zip(levels, plans, strict=True))
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
    config: Train, seed: np.random.SeedSequence, iteration: int = 0,
) -> Iteration:  # fmt: skip
    """Phase A, phase B: explore → credit → learn → adapt → credit → learn. iteration: from 0, for the schedule."""
    rng = np.random.default_rng(seed)
    rollout, rule = config.rollout, ReturnRule(config.rollout.progress_share)
    sampling, n = Sampling(rollout.temperature, rng), rollout.group
    phase = hierarchy.phase(iteration)
    macro: list[MacroGroup] = []
    micro: list[MicroGroup] = []
    macro_adv, best_p, micro_adv = np.zeros((0, 0)), np.zeros(0, int), np.zeros((0, 0))
    above_p: np.ndarray | None = None
    metrics: dict[str, float] = {}
    waiting: list[list[Credited]] = []
    played: list[Trajectory] = []

    def update(prefix: str, groups: Sequence[Sequence[Credited]]) -> None:
        learnt = learn(policy, task, optimizer, groups, config.update, rollout.temperature, rng)
        metrics.update(_prefixed(prefix, learnt))

    if hierarchy.planner:
        macro = explore(policy, task, levels, n, sampling, rule, hierarchy, played)
        return_pg = np.array([[t.ret for t in group.executions] for group in macro])  # [P, G]
        macro_adv, best_p = hierarchy.advantages("macro", return_pg), hierarchy.pick(return_pg, rng)
        blueprints = credit_blueprints(macro, macro_adv, on_the_way=hierarchy.depth == 2)
        if phase == JOINT:
            waiting = blueprints
        elif phase != EXECUTOR_ONLY:
            update("macro", blueprints)
        metrics |= _prefixed("macro", _group_metrics(return_pg, [t for g in macro for t in g.executions]))
        plans = chosen(task, macro, best_p)
        above_p = np.array([0.0 if z == ORACLE else row[z] for row, z in zip(macro_adv, best_p, strict=True)])
        if hierarchy.depth == 3:
            middle = divide(policy, task, levels, plans, n, sampling, rule, hierarchy, played)
            return_pm = np.array([[t.ret for t in group.trajectories] for group in middle])  # [P, N]
            if phase != EXECUTOR_ONLY:
                update("middle", credit_divisions(middle, hierarchy.advantages("macro", return_pm)))
            metrics |= _prefixed("middle", _group_metrics(return_pm, [t for g in middle for t in g.trajectories]))
            picked = zip(plans, middle, hierarchy.pick(return_pm, rng), strict=True)
            plans = [z if i == ORACLE else _as_told(group.trajectories[i]) for z, group, i in picked]
        if phase != PLANNER_ONLY:
            micro = practise(policy, task, levels, plans, n, sampling, rule, hierarchy, played)
    else:
        micro = play(policy, task, levels, n, sampling, rule, hierarchy, played)
    if micro:
        return_pn = np.array([[t.ret + sum(t.gains) for t in group.trajectories] for group in micro])  # [P, N]
        micro_adv = hierarchy.advantages("micro", return_pn)
        update("micro", waiting + credit_actions(micro, micro_adv, hierarchy.credit, above_p))
        metrics |= _prefixed("micro", _group_metrics(return_pn, [t for g in micro for t in g.trajectories]))

    tokens = sum(t.n_tokens for t in played) + sum(sum(s.action_mask) for g in macro for s in g.plans)
    return Iteration(
        tuple(macro), macro_adv, best_p, tuple(micro), micro_adv, metrics, sum(t.steps for t in played), tokens
    )


def _as_told(trajectory: Trajectory) -> Blueprint:
    """What the executor of a trajectory was told, as a blueprint of its own."""
    return Blueprint("".join(f"\n{goal.text}" for goal in trajectory.told), trajectory.told)


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
