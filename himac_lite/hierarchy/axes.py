"""The axes that training reads: who learns when, what a blueprint is worth, which becomes z*, which token gets what.

How a blueprint is carried out, the other half of the axes, is `himac_lite.rollout.rules`. Every function here may be
replaced by one of the same signature.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from himac_lite import advantage
from himac_lite.types import GREEDY, Blueprint, Group, Item, Sampling, Trajectory

if TYPE_CHECKING:  # torch is behind it: a variant is a value that a page without torch can show
    from himac_lite.rollout.play import Arena

Floats = NDArray[np.float64]

# Axis 3: the schedule

ALTERNATE, JOINT, PLANNER_ONLY, EXECUTOR_ONLY = "alternate", "joint", "planner", "executor"
PHASES = (ALTERNATE, JOINT, PLANNER_ONLY, EXECUTOR_ONLY)
Schedule = str | Callable[[int], str]
"""Who learns in an iteration (from 0). alternate: the planner, then the executor that faces the new planner's z*'s;
joint: one update of both on rollouts of the same weights; planner, executor: that one alone. A function of the
iteration returns one of these."""


def turns(planner: int, executor: int) -> Callable[[int], str]:
    """So many iterations in which the planner alone learns, then so many of the executor, and again."""
    return lambda iteration: PLANNER_ONLY if iteration % (planner + executor) < planner else EXECUTOR_ONLY


# Axis 4: what a blueprint is worth


Scorer = Callable[["Arena", Sequence["tuple[Item, Blueprint]"], Sampling], "list[Trajectory]"]
"""(arena, jobs, planner) → one trajectory a job; its `ret` is what the blueprint is worth. planner: how blueprints are
sampled that the execution itself calls for (replanning). The arena (`rollout.play.Arena`) is the policy at play."""


def greedy_executor(
    arena: Arena, jobs: Sequence[tuple[Item, Blueprint]], planner: Sampling = GREEDY
) -> list[Trajectory]:
    """The return of one greedy execution (HiMAC)."""
    return arena.execute(jobs, GREEDY, planner)


def mean_of(k: int) -> Scorer:
    """The mean return of `k` sampled executions: what a blueprint is worth to an executor that makes mistakes."""

    def score(arena: Arena, jobs: Sequence[tuple[Item, Blueprint]], planner: Sampling = GREEDY) -> list[Trajectory]:
        done = arena.execute([job for job in jobs for _ in range(k)], arena.sampling, planner)
        groups = [done[i * k : (i + 1) * k] for i in range(len(jobs))]
        return [replace(group[0], ret=float(np.mean([t.ret for t in group]))) for group in groups]

    return score


def gain_over_flat(
    arena: Arena, jobs: Sequence[tuple[Item, Blueprint]], planner: Sampling = GREEDY
) -> list[Trajectory]:
    """Return of the greedy execution − return of greedy play of the same level without any plan.

    Within a macro group that is a constant: it changes no group-relative advantage, only baselines over the batch
    (``baseline="batch"``), where a hard level no longer counts as a bad blueprint.
    """
    levels = list({level.text: level for level, _ in jobs}.values())
    alone = {level.text: t.ret for level, t in zip(levels, arena.play_flat(levels), strict=True)}
    done = arena.execute(jobs, GREEDY, planner)
    return [replace(t, ret=t.ret - alone[level.text]) for (level, _), t in zip(jobs, done, strict=True)]


def judged_by(judge: Callable[[Any, Blueprint], float]) -> Scorer:
    """What an oracle says, such as a perfect executor; the greedy execution is still played, and shown."""

    def score(arena: Arena, jobs: Sequence[tuple[Item, Blueprint]], planner: Sampling = GREEDY) -> list[Trajectory]:
        done = arena.execute(jobs, GREEDY, planner)
        return [replace(t, ret=float(judge(*job))) for job, t in zip(jobs, done, strict=True)]

    return score


# Axis 5: which blueprint becomes z*

Selector = Callable[["np.ndarray", np.random.Generator], "np.ndarray"]
"""Macro returns [P, G] → index of z* [P], or `ORACLE`."""
ORACLE = -1
"""In place of an index: the executor is given the task's own solution."""


def choose_best(return_pg: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """z* is the blueprint with the highest return (HiMAC)."""
    return advantage.best(return_pg)


def choose_random(return_pg: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The ablation 'random blueprint instead of z*'."""
    return rng.integers(0, return_pg.shape[1], return_pg.shape[:1])


def choose_softmax(temperature: float) -> Selector:
    """z* is drawn with probability ∝ exp(R / temperature): the executor also practises plans that are second best."""

    def choose(return_pg: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        # The Gumbel trick: the argmax of R / τ + Gumbel noise has the distribution softmax(R / τ).
        return np.asarray((return_pg / temperature + rng.gumbel(size=return_pg.shape)).argmax(1))

    return choose


def choose_oracle(return_pg: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The executor practises the solver's blueprint, whatever the planner wrote."""
    return np.full(len(return_pg), ORACLE)


# Axis 10: credit. The advantage of each level is a function of its own

Advantage = Callable[["np.ndarray"], "np.ndarray"]
"""Returns [P, N] → advantages [P, N]."""
Share = float | Sequence[float]
"""What a segment gets: one advantage for all of its choices, or one for each."""
Credit = Callable[[Group, "np.ndarray", float], Sequence[Sequence[Share]]]
"""(micro group, advantages [N], A^M of z*) → for each trajectory one `Share` a segment."""


def by_trajectory(group: Group, advantage_n: np.ndarray, above: float = 0.0) -> list[list[Share]]:
    """All segments get the advantage of their trajectory (HiMAC)."""
    return [[float(a)] * len(t.segments) for t, a in zip(group.trajectories, advantage_n, strict=True)]


@dataclass(frozen=True)
class BySegment:
    """A_nk = A_n + ω · A^seg_nk: segments of the same sub-goal, by what each one gained, are compared as well.

        A^seg_nk = `group_advantage` over the n that reached segment k of Σ_{j ≥ k} Φ_nj

    Φ_nj is the gain of the executor's potential over segment j.
    """

    omega: float = 1.0
    needs = ("reward",)

    def __call__(self, group: Group, advantage_n: np.ndarray, above: float = 0.0) -> list[list[Share]]:
        out = [[float(a)] * len(t.segments) for t, a in zip(group.trajectories, advantage_n, strict=True)]
        for k in range(max((len(t.gains) for t in group.trajectories), default=0)):
            reached = [n for n, t in enumerate(group.trajectories) if len(t.gains) > k]
            compared = advantage.group_advantage([[sum(group.trajectories[n].gains[k:]) for n in reached]])[0]
            for n, a in zip(reached, compared, strict=True):
                out[n][k] += self.omega * float(a)
        return [list(row) for row in out]


@dataclass(frozen=True)
class SameState:
    """A_nt = A_n + ω · A^step_nt: choices made in the same state, anywhere in the group, are compared (GiGPO).

    The step term is `advantage.same_state_advantage` of the episode's return, discounted by γ a choice. With `inside`
    a segment is on its own: states are the same only under the same sub-goal, and the return is discounted from the
    segment's end, so that what it says is how soon *this* sub-goal was done, in episodes that were worth it.
    Reference: GiGPO (arXiv 2505.10978), which is flat.
    """

    omega: float = 1.0
    gamma: float = 0.95
    inside: bool = False
    needs = ("state",)

    def __call__(self, group: Group, advantage_n: np.ndarray, above: float = 0.0) -> list[list[Share]]:
        cut = [[(n, k, s) for k, s in enumerate(t.states)] for n, t in enumerate(group.trajectories)]
        if self.inside:
            pieces = [[piece] for row in cut for piece in row]
        else:
            pieces = [row for row in cut if row]
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


def mixed(share: float, credit: Credit = by_trajectory) -> Credit:
    """(1 − share) · credit + share · A^M of z*: the executor also answers for the plan that it was given."""

    def mix(group: Group, advantage_n: np.ndarray, above: float = 0.0) -> list[list[Share]]:
        def one(own: Share) -> Share:
            if isinstance(own, float):
                return (1 - share) * own + share * above
            return [(1 - share) * a + share * above for a in own]

        return [[one(own) for own in row] for row in credit(group, advantage_n, above)]

    return mix
