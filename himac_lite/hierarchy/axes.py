"""The axes of a variant that training reads: schedule, score, choice of z*, credit.

The axes that rollouts read are in `himac_lite.rollout.rules`. Any function of the same signature can replace one here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from himac_lite import advantage
from himac_lite.errors import ConfigError, checked
from himac_lite.types import GREEDY, Blueprint, Group, Item, Sampling, Trajectory

if TYPE_CHECKING:  # it imports torch, which a page that only shows a variant does not have
    from himac_lite.rollout.play import Arena

# Axis 3: the schedule

ALTERNATE, JOINT, PLANNER_ONLY, EXECUTOR_ONLY = "alternate", "joint", "planner", "executor"
PHASES = (ALTERNATE, JOINT, PLANNER_ONLY, EXECUTOR_ONLY)
Schedule = str | Callable[[int], str]
"""Who learns in an iteration. alternate: first the planner, then the executor; joint: one update of both, on rollouts
of the same weights; planner, executor: this one only. A function of the iteration, from 0, returns one of these."""


@checked
def turns(planner: int, executor: int) -> Callable[[int], str]:
    """`planner` iterations of the planner only, then `executor` iterations of the executor only, repeated."""
    if min(planner, executor) < 0 or planner + executor == 0:
        raise ConfigError(f"turns need numbers of iterations, not both 0, not {planner} and {executor}")
    return lambda iteration: PLANNER_ONLY if iteration % (planner + executor) < planner else EXECUTOR_ONLY


# Axis 4: what a blueprint is worth


Jobs = Sequence[tuple[Item, Blueprint]]
"""Levels and the blueprints to execute."""
Scorer = Callable[["Arena", Jobs, Sampling], "list[Trajectory]"]
"""(arena, jobs, planner) → one trajectory per job, whose `ret` is the score of the blueprint.
planner: sampling of the blueprints that replanning writes."""


def greedy_executor(arena: Arena, jobs: Jobs, planner: Sampling = GREEDY) -> list[Trajectory]:
    """Score: the return of one greedy execution (HiMAC)."""
    return arena.execute(jobs, GREEDY, planner)


@checked
def mean_of(k: int) -> Scorer:
    """Score: the mean return of `k` sampled executions, which includes the executor's mistakes."""
    if k < 1:
        raise ConfigError(f"mean_of needs at least 1 execution, not {k}")

    def score(arena: Arena, jobs: Jobs, planner: Sampling = GREEDY) -> list[Trajectory]:
        done = arena.execute([job for job in jobs for _ in range(k)], arena.sampling, planner)
        groups = [done[i * k : (i + 1) * k] for i in range(len(jobs))]
        return [replace(group[0], ret=float(np.mean([t.ret for t in group]))) for group in groups]

    return score


def gain_over_flat(arena: Arena, jobs: Jobs, planner: Sampling = GREEDY) -> list[Trajectory]:
    """Score: the return of a greedy execution minus the return of greedy flat play of the same level.

    The subtracted return is constant within a macro group, so it changes no group-relative advantage. With
    ``baseline="batch"`` it removes the difficulty of the level.
    """
    levels = list({level.text: level for level, _ in jobs}.values())
    alone = {level.text: t.ret for level, t in zip(levels, arena.play_flat(levels), strict=True)}
    done = arena.execute(jobs, GREEDY, planner)
    return [replace(t, ret=t.ret - alone[level.text]) for (level, _), t in zip(jobs, done, strict=True)]


@checked
def judged_by(judge: Callable[[Any, Blueprint], float]) -> Scorer:
    """Score: `judge(level, blueprint)`, such as a perfect executor. The greedy execution is still recorded."""

    def score(arena: Arena, jobs: Jobs, planner: Sampling = GREEDY) -> list[Trajectory]:
        done = arena.execute(jobs, GREEDY, planner)
        return [replace(t, ret=float(judge(*job))) for job, t in zip(jobs, done, strict=True)]

    return score


# Axis 5: which blueprint becomes z*

Selector = Callable[["np.ndarray", np.random.Generator], "np.ndarray"]
"""(macro returns [P, G], generator) → index of z* [P], or `ORACLE`."""
ORACLE = -1
"""In place of an index: z* is the task's oracle."""


def choose_best(return_pg: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """z* is the blueprint with the highest return (HiMAC)."""
    return advantage.best(return_pg)


def choose_random(return_pg: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """z* is a random blueprint (the ablation 'random blueprint instead of z*')."""
    return rng.integers(0, return_pg.shape[1], return_pg.shape[:1])


@checked
def choose_softmax(temperature: float) -> Selector:
    """z* is drawn with probability ∝ exp(R / temperature), so the executor also practises other blueprints."""
    if temperature <= 0:
        raise ConfigError(f"temperature must be positive, not {temperature}; choose_best is its limit at 0")

    def choose(return_pg: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        # The Gumbel trick: the argmax of R / τ + Gumbel noise has the distribution softmax(R / τ).
        return np.asarray((return_pg / temperature + rng.gumbel(size=return_pg.shape)).argmax(1))

    return choose


def choose_oracle(return_pg: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """z* is the task's oracle."""
    return np.full(len(return_pg), ORACLE)


# Axis: where environment steps are spent

Spend = Callable[[float, float], float]
"""(live share of macro groups, of micro groups) → share of the levels whose z* is executed in phase B, in [0, 1].
A group is live if its returns differ. The shares are means over the last iterations."""


def everywhere(macro_live: float, micro_live: float) -> float:
    """z* of every level is executed (HiMAC)."""
    return 1.0


@checked
def by_difference(least: float = 0.125) -> Spend:
    """As many levels as micro groups are live per live macro group, at least the share `least`.

    Where executions of z* do not differ, phase B teaches nothing. With a budget in environment steps, its steps are
    left for further iterations. Raises ConfigError if `least` is no share.
    """
    if not 0 <= least <= 1:
        raise ConfigError(f"least must lie between 0 and 1; it is {least}")

    def share(macro_live: float, micro_live: float) -> float:
        return min(1.0, max(least, micro_live / macro_live if macro_live else 1.0))

    return share


# Axis 10: credit, after the advantage of each level

Advantage = Callable[["np.ndarray"], "np.ndarray"]
"""Returns [P, N] → advantages [P, N]."""
Share = float | Sequence[float]
"""The advantage of a segment: one number for all of its choices, or one for each."""
Credit = Callable[[Group, "np.ndarray", float], Sequence[Sequence[Share]]]
"""(micro group, advantages [N], A^M of z*) → for each trajectory one `Share` a segment."""


def by_trajectory(group: Group, advantage_n: np.ndarray, above: float = 0.0) -> list[list[Share]]:
    """Every segment gets the advantage of its trajectory (HiMAC)."""
    return [[float(a)] * len(t.segments) for t, a in zip(group.trajectories, advantage_n, strict=True)]


@checked
@dataclass(frozen=True)
class BySegment:
    """Compare the gains of segments of the same sub-goal as well.

        A_nk = A_n + ω A^seg_nk,   A^seg_nk = `group_advantage` of Σ_{j ≥ k} Φ_nj over the n that reached segment k

    Φ_nj is the gain of the executor's potential over segment j.
    """

    omega: float = 1.0
    needs = ("reward",)

    def __call__(self, group: Group, advantage_n: np.ndarray, above: float = 0.0) -> list[list[Share]]:
        advantage_nk = [[float(a)] * len(t.segments) for t, a in zip(group.trajectories, advantage_n, strict=True)]
        for k in range(max((len(t.gains) for t in group.trajectories), default=0)):
            reached = [n for n, t in enumerate(group.trajectories) if len(t.gains) > k]
            compared = advantage.group_advantage([[sum(group.trajectories[n].gains[k:]) for n in reached]])[0]
            for n, a in zip(reached, compared, strict=True):
                advantage_nk[n][k] += self.omega * float(a)
        return [list(advantage_k) for advantage_k in advantage_nk]


@checked
@dataclass(frozen=True)
class SameState:
    """Compare choices in the same state, anywhere in the group, as well.

        A_nt = A_n + ω A^step_nt,   A^step = `advantage.same_state_advantage` of the return, discounted by γ per choice

    Reference: GiGPO (arXiv 2505.10978), which is flat.

    inside: states are equal only under the same sub-goal, and the return is discounted from the end of the segment. The
    step term then measures how soon the sub-goal was done.
    """

    omega: float = 1.0
    gamma: float = 0.95
    inside: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.gamma <= 1:
            raise ConfigError(f"gamma must lie between 0 and 1; it is {self.gamma}")

    needs = ("state",)

    def __call__(self, group: Group, advantage_n: np.ndarray, above: float = 0.0) -> list[list[Share]]:
        cut = [[(n, k, s) for k, s in enumerate(t.states)] for n, t in enumerate(group.trajectories)]
        pieces = [[piece] for row in cut for piece in row] if self.inside else [row for row in cut if row]
        rewards, keys = [], []
        for piece in pieces:
            steps = [(k if self.inside else 0, state) for _, k, states in piece for state in states]
            t = group.trajectories[piece[0][0]]
            rewards.append([0.0] * (len(steps) - 1) + [t.ret + sum(t.gains)])
            keys.append(steps)
        flat = advantage.same_state_advantage(rewards, keys, gamma=self.gamma) if pieces else ()
        out: list[list[Share]] = [[] for _ in group.trajectories]
        for piece, step_t in zip(pieces, flat, strict=True):
            at = 0
            for n, _, states in piece:
                own = advantage_n[n] + self.omega * step_t[at : at + len(states)]
                out[n].append(own.tolist())
                at += len(states)
        return out


@checked
def mixed(share: float, credit: Credit = by_trajectory) -> Credit:
    """(1 − share) · credit + share · A^M of z*: the executor shares the credit of its blueprint."""

    def mix(group: Group, advantage_n: np.ndarray, above: float = 0.0) -> list[list[Share]]:
        def one(own: Share) -> Share:
            if isinstance(own, float):
                return (1 - share) * own + share * above
            return [(1 - share) * a + share * above for a in own]

        return [[one(own) for own in row] for row in credit(group, advantage_n, above)]

    return mix
