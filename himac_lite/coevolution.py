"""Iterative co-evolution: planner and executor learn in turn from group-relative advantages.

One iteration of HiMAC (arXiv 2603.00977) for P levels:

- **Phase A, macro exploration.** The planner samples G blueprints per level. One greedy execution scores each of them.
  The macro advantage of a blueprint trains its tokens; the executor is frozen.
- **Phase B, micro adaptation.** The executor samples N executions of z*, the best blueprint of each level. The micro
  advantage of an execution trains its action tokens, `<sub_done>` included; the planner is frozen.

Departures from the paper:

- P is tens instead of 128, because the model is small.
- A phase is learnt in several minibatches, which the clipped ratio allows.
- The update skips groups without a difference: their advantages are zero, so only the KL term would act on them.
- `advantage.hierarchical_advantage`, the paper's formula for both levels, is not called: z* is executed between its
  two halves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from himac_lite.errors import ConfigError
from himac_lite.hierarchy import EXECUTOR_ONLY, JOINT, ORACLE, PLANNER_ONLY, PRESETS, SHARED, Hierarchy
from himac_lite.hierarchy.credit import credit_actions, credit_blueprints
from himac_lite.hierarchy.groups import grouped, repeated, returns_of, scores_of, summary
from himac_lite.hierarchy.middle import divide_plans, divided
from himac_lite.policy.model import Policy
from himac_lite.policy.update import learn
from himac_lite.rollout.play import Arena
from himac_lite.rollout.rules import ReturnRule
from himac_lite.settings import Train
from himac_lite.tasks import Continues, Task
from himac_lite.types import GREEDY, Blueprint, Credited, Group, Item, Sampling, TokenSequence, Trajectory

HIMAC = PRESETS["himac"]
POLICY_LEVELS = ("macro", "middle", "micro")
"""The levels that learn, each in its own phase; middle: at depth 3 only."""


@dataclass(frozen=True)
class Learner:
    """The context of an iteration, constant through a run."""

    policy: Policy
    optimizers: Mapping[str, torch.optim.Optimizer]
    """Policy level → the optimizer of its phase: one for all, or one for each (`optimizers_for`)."""
    task: Task
    hierarchy: Hierarchy
    config: Train

    def arena(self, rng: np.random.Generator) -> Arena:
        """The policy in its task, with the variant's rules and the temperature of the settings."""
        rollout = self.config.rollout
        sampling = Sampling(rollout.temperature, rng)
        return Arena(self.policy, self.task, self.hierarchy.rules, ReturnRule(rollout.progress_share), sampling)


def optimizers_for(
    parameters: Sequence[torch.nn.Parameter], hierarchy: Hierarchy, lr: float
) -> dict[str, torch.optim.Optimizer]:
    """AdamW for each policy level: of one shared state, or with a state a phase (`Hierarchy.optimizer`)."""

    def fresh() -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.95), weight_decay=0.0)

    if hierarchy.optimizer == SHARED:
        return dict.fromkeys(POLICY_LEVELS, fresh())
    return {level: fresh() for level in POLICY_LEVELS}


@dataclass(frozen=True)
class Iteration:
    """The groups of one iteration with their advantages, its metrics and its cost."""

    macro: tuple[Group, ...]
    macro_adv_pg: np.ndarray
    best_p: np.ndarray
    micro: tuple[Group, ...]
    micro_adv_pn: np.ndarray
    metrics: dict[str, float]
    env_steps: int
    tokens: int


def iterate(
    learner: Learner, levels: Sequence[Item], seed: np.random.SeedSequence, iteration: int = 0,
    live: tuple[float, float] | None = None,
) -> Iteration:  # fmt: skip
    """Run one iteration. Phase A: explore → credit → learn. Phase B: adapt → credit → learn.

    seed: of all random choices. iteration: from 0, for the schedule. live: for `Hierarchy.spend`; None: not known yet.
    """
    rng = np.random.default_rng(seed)
    arena, hierarchy, n = learner.arena(rng), learner.hierarchy, learner.config.rollout.group
    phase = hierarchy.phase(iteration)
    metrics: dict[str, float] = {}

    def update(level: str, credited: Sequence[Sequence[Credited]]) -> None:
        settings, temperature = learner.config.update, arena.sampling.temperature
        learnt = learn(learner.policy, learner.optimizers[level], credited, settings, temperature, rng)
        metrics.update({f"{level}/{name}": value for name, value in learnt.items()})

    def update_planner(level: str, credited: Sequence[Sequence[Credited]]) -> None:
        if phase not in (JOINT, EXECUTOR_ONLY):
            update(level, credited)

    macro: list[Group] = []
    micro: list[Group] = []
    macro_adv, best_p, micro_adv = np.zeros((0, 0)), np.zeros(0, int), np.zeros((0, 0))
    plans: list[Blueprint | None] = [None] * len(levels)
    above_p: np.ndarray | None = None
    blueprints: list[list[Credited]] = []

    if hierarchy.planner:
        macro = explore(arena, levels, n, hierarchy)
        metrics |= summary("macro", macro, scores_of(macro))
        if begun := midway(learner.task, macro, round(hierarchy.midway * len(levels)), rng):
            later = explore(arena, begun, n, hierarchy)
            metrics |= summary("midway", later, scores_of(later))
            levels, macro = [*levels, *begun], macro + later
        macro_adv = hierarchy.advantages("macro", scores_of(macro))
        best_p = hierarchy.pick(scores_of(macro), rng)
        blueprints = credit_blueprints(macro, macro_adv, replans=hierarchy.depth == 2)
        update_planner("macro", blueprints)
        plans = choose(learner.task, macro, best_p)
        above_p = np.array([0.0 if z == ORACLE else row[z] for row, z in zip(macro_adv, best_p, strict=True)])
    if hierarchy.depth == 3:
        plans, means = divide_plans(arena, hierarchy, levels, plans, n, update_planner)
        arena, metrics = divided(arena), metrics | means
    if phase != PLANNER_ONLY:
        levels = levels[: max(1, round(hierarchy.share(live) * len(levels)))]
        micro = adapt(arena, levels, n, plans[: len(levels)])
        micro_adv = hierarchy.advantages("micro", returns_of(micro))
        actions = credit_actions(micro, micro_adv, hierarchy.credit, above_p)
        update("micro", blueprints + actions if phase == JOINT else actions)
        metrics |= summary("micro", micro, returns_of(micro))

    steps, tokens = spent(arena.played, macro)
    return Iteration(tuple(macro), macro_adv, best_p, tuple(micro), micro_adv, metrics, steps, tokens)


def explore(arena: Arena, levels: Sequence[Item], n: int, hierarchy: Hierarchy = HIMAC) -> list[Group]:
    """Phase A rollouts: `n` blueprints per level, each scored by `hierarchy.score`.

    Raises ConfigError if `score` returns another number of trajectories.
    """
    written = [pair for group in arena.blueprints(levels, n, arena.sampling) for pair in group]
    jobs = [(level, z) for level, (_, z) in zip((lv for lv in levels for _ in range(n)), written, strict=True)]
    # At depth 3 the middle level is frozen here; at depth 2 replanning explores as well.
    done = hierarchy.score(arena, jobs, GREEDY if hierarchy.depth == 3 else arena.sampling)
    if len(done) != len(jobs):
        raise ConfigError(f"score returned {len(done)} trajectories for {len(jobs)} blueprints")
    return grouped(levels, [replace(t, blueprint_tokens=tokens) for t, (tokens, _) in zip(done, written, strict=True)])


def midway(task: Task, groups: Sequence[Group], most: int, rng: np.random.Generator) -> list[Item]:
    """The states where blueprints ended without success, one per group at random, at most `most`.

    None for a task whose episodes cannot begin there.
    """
    if not (most and isinstance(task, Continues)):
        return []
    found: list[Item] = []
    for p in rng.permutation(len(groups)):
        ended = [t for t in groups[p].trajectories if t.steps and not t.success and t.steps < task.max_steps]
        if ended and len(found) < most:
            found.append(task.midway(groups[p].level, ended[int(rng.integers(len(ended)))]))
    return found


def choose(task: Task, groups: Sequence[Group], best_p: np.ndarray) -> list[Blueprint | None]:
    """z* of each level: the blueprint at index `best_p` [P], or the task's oracle for `ORACLE`."""
    return [
        task.oracle(group.level) if z == ORACLE else group.trajectories[z].blueprint
        for group, z in zip(groups, best_p, strict=True)
    ]


def adapt(arena: Arena, levels: Sequence[Item], n: int, plans: Sequence[Blueprint | None] | None = None) -> list[Group]:
    """Phase B rollouts: `n` sampled executions of each z*, or `n` flat episodes of each level without `plans`.

    Replanning is greedy, because the planner is frozen.
    """
    return grouped(levels, arena.play(repeated(levels, plans or [None] * len(levels), n), arena.sampling))


def spent(played: Sequence[Trajectory], macro: Sequence[Group]) -> tuple[int, int]:
    """Environment steps and sampled tokens of all trajectories and of the blueprints of macro groups."""
    blueprints: list[TokenSequence] = [t.blueprint_tokens for g in macro for t in g.trajectories if t.blueprint_tokens]
    tokens = sum(t.n_tokens for t in played) + sum(sum(s.action_mask) for s in blueprints)
    return sum(t.steps for t in played), tokens
