"""Probes: records of a few fixed levels that show how blueprints and their executions change during training.

A probe plays with the current policy, does not learn, and has its own seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from himac_lite.coevolution import Learner, adapt, choose, explore
from himac_lite.hierarchy.groups import grouped, returns_of, scores_of
from himac_lite.runs import records
from himac_lite.types import Item

_PROBE = 2
"""Key of the derived seed; see himac_lite/runs/training.py."""


def probe(learner: Learner, levels: Sequence[Item], iteration: int) -> list[dict[str, Any]]:
    """Records of macro and micro groups as in training, and in `micros` the executions of the other blueprints.

    micros: index of a blueprint → {"members"}, for valid blueprints other than z*. Equal blueprints share executions.
    These members have no tokens.
    """
    rng = np.random.default_rng(np.random.SeedSequence([learner.config.seed, _PROBE, iteration]))
    arena, hierarchy, n = learner.arena(rng), learner.hierarchy, learner.config.rollout.group
    groups = explore(arena, levels, n, hierarchy)
    macro_adv, best_p = hierarchy.advantages("macro", scores_of(groups)), hierarchy.pick(scores_of(groups), rng)
    micro = adapt(arena, levels, n, choose(learner.task, groups, best_p))
    micro_adv = hierarchy.advantages("micro", returns_of(micro))

    out = []
    for p, (group, best) in enumerate(zip(groups, best_p, strict=True)):
        above = (group, list(macro_adv[p]), int(best))
        record = records.level_record(micro[p], list(micro_adv[p]), learner.policy.text, above)
        z_star = z.text if (z := micro[p].blueprint) else ""
        others = {
            z.text: z for t in reversed(group.trajectories) if (z := t.blueprint) and not z.invalid and z.text != z_star
        }
        done = arena.execute([(group.level, z) for z in others.values() for _ in range(n)], arena.sampling)
        members = {}
        for text, own in zip(others, grouped([group.level] * len(others), done), strict=True):
            credit = hierarchy.advantages("micro", returns_of([own]))[0]
            members[text] = [
                records.trajectory_record(t, float(a)) for t, a in zip(own.trajectories, credit, strict=True)
            ]
        texts = [t.blueprint.text if t.blueprint else "" for t in group.trajectories]
        record["micros"] = {str(g): {"members": members[text]} for g, text in enumerate(texts) if text in members}
        out.append(record)
    return out


def due(learner: Learner, levels: Sequence[Item], iteration: int) -> list[dict[str, Any]]:
    """The probe of the first `probe_levels` levels if it is due in this iteration.

    Only for depth 2, because the records have no middle level.
    """
    config = learner.config
    if learner.hierarchy.depth != 2 or not config.probe_levels or iteration % config.probe_every:
        return []
    return probe(learner, levels[: config.probe_levels], iteration)
