"""The same few levels again and again: what the planner writes for them, and how each of its blueprints is executed.

Training draws other levels every iteration, so that no recorded level shows how a blueprint changed. A probe plays
fixed levels with the policy of the moment, learns nothing, and draws its randomness from a seed of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from himac_lite.runs import records
from himac_lite.coevolution import adapt, explore
from himac_lite.config import Train
from himac_lite.hierarchy import Hierarchy
from himac_lite.policy.model import Policy
from himac_lite.rollout.rules import ReturnRule
from himac_lite.types import Sampling
from himac_lite.rollout.play import execute
from himac_lite.tasks import Task
from himac_lite.types import Item

_PROBE = 2
"""What the derived seed is for; see himac_lite/runs/training.py."""


def probe(
    policy: Policy, task: Task, hierarchy: Hierarchy, levels: Sequence[Item], config: Train, iteration: int
) -> list[dict[str, Any]]:
    """Records of macro and micro group as training writes them, with `micros`: the executions of every blueprint.

    micros: index of a blueprint → {"members"}, for valid blueprints other than z*; equal ones share the executions of
    the first. Members there have no tokens. The group sizes and the temperature are those of training.
    """
    rng = np.random.default_rng(np.random.SeedSequence([config.seed, _PROBE, iteration]))
    n, rule = config.rollout.group, ReturnRule(config.rollout.progress_share)
    sampling = Sampling(config.rollout.temperature, rng)
    groups = explore(policy, task, levels, n, sampling, rule, hierarchy)
    return_pg = np.array([[t.ret for t in group.executions] for group in groups])  # [P, G]
    macro_adv, best_p = hierarchy.advantages("macro", return_pg), hierarchy.pick(return_pg, rng)
    micro = adapt(policy, task, groups, best_p, n, sampling, rule, hierarchy)
    micro_adv = hierarchy.advantages(
        "micro", np.array([[t.ret + sum(t.gains) for t in group.trajectories] for group in micro])
    )

    out = []
    for p, (group, best) in enumerate(zip(groups, best_p, strict=True)):
        record = records.level_record(micro[p], list(micro_adv[p]), policy.text, (group, list(macro_adv[p]), int(best)))
        first = {
            z.text: g for g, t in reversed(list(enumerate(group.executions))) if (z := t.blueprint) and not z.invalid
        }
        z_star = micro[p].blueprint
        first.pop(z_star.text if z_star else "", None)
        jobs = [(group.level, z) for g in first.values() if (z := group.executions[g].blueprint) for _ in range(n)]
        done = execute(policy, task, jobs, sampling, rule, hierarchy.rules)
        played = {}
        for k, text in enumerate(first):
            own = done[k * n : (k + 1) * n]
            credit = hierarchy.advantages("micro", np.array([[t.ret + sum(t.gains) for t in own]]))[0]
            played[text] = [records.trajectory_record(t, float(a)) for t, a in zip(own, credit, strict=True)]
        texts = [t.blueprint.text if t.blueprint else "" for t in group.executions]
        played[z_star.text if z_star else ""] = []  # in `micro`; its equals share it
        record["micros"] = {str(g): {"members": played[text]} for g, text in enumerate(texts) if played.get(text)}
        out.append(record)
    return out


def due(
    policy: Policy, task: Task, hierarchy: Hierarchy, levels: Sequence[Item], config: Train, iteration: int
) -> list[dict[str, Any]]:
    """The probe of an iteration of training, if one is wanted then: of the first of these levels.

    Of planner and executor only: what a middle level chose has no place in these records.
    """
    if hierarchy.depth != 2 or not config.probe_levels or iteration % config.probe_every:
        return []
    return probe(policy, task, hierarchy, levels[: config.probe_levels], config, iteration)
