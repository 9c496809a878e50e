"""The score of a policy on a set of levels: success with its interval, by optimal length; the random policy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from himac_lite.errors import ConfigError
from himac_lite.policy.model import Policy
from himac_lite.rollout.play import Arena
from himac_lite.rollout.rules import Fallback, ReturnRule, Rules
from himac_lite.tasks import Task
from himac_lite.types import Item, Sampling, Trajectory

MODES = ("himac", "flat", "random")


@dataclass(frozen=True)
class Score:
    """Success on `n` levels. ``ci95`` is Wilson's interval; ``by_length`` has bins of known optimal length in steps.

    ``mean_progress`` is the mean share of the goal that was reached (boxes on targets, WebShop's score).
    """

    mode: str
    success: float
    ci95: tuple[float, float]
    n: int
    by_length: dict[str, dict[str, float]]
    mean_return: float
    mean_steps: float
    blueprint_valid: float | None
    mean_progress: float = 0.0
    solved: str = ""
    """One digit per level, in order: 1 if it was solved, else 0. Paired tests compare them."""

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def wilson(successes: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion (Wilson 1927); (0, 1) without trials."""
    if n == 0:
        return 0.0, 1.0
    p = successes / n
    centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, (centre - half) / (1 + z * z / n)), min(1.0, (centre + half) / (1 + z * z / n))


def score(mode: str, task: Task, levels: Sequence[Item], trajectories: Sequence[Trajectory]) -> Score:
    """Summarise one trajectory per level."""
    solved = [t.success for t in trajectories]
    bins: dict[str, dict[str, float]] = {}
    lengths = [task.difficulty(level) for level in levels]
    for low, high in task.bins:
        inside = [s for s, length in zip(solved, lengths, strict=True) if max(1, low) <= length <= high]
        if inside:
            name = f"{low}+" if (low, high) == task.bins[-1] else f"{low}-{high}"
            bins[name] = {"n": len(inside), "success": sum(inside) / len(inside)}
    plans = [t.blueprint for t in trajectories if t.blueprint is not None]
    return Score(
        mode, sum(solved) / len(solved), wilson(sum(solved), len(solved)), len(solved), bins,
        float(np.mean([t.ret for t in trajectories])), float(np.mean([t.steps for t in trajectories])),
        sum(p.invalid is None for p in plans) / len(plans) if plans else None,
        float(np.mean([t.progress for t in trajectories])),
        "".join(str(int(s)) for s in solved),
    )  # fmt: skip


def evaluate(
    policy: Policy | None,
    task: Task,
    levels: Sequence[Item],
    mode: str = "himac",
    rules: Rules = Rules(),
    seed: int = 0,
) -> Score:
    """Score one greedy episode per level.

    Args:
        policy: None for the random policy.
        mode: ``himac`` (a blueprint and its execution), ``flat``, or ``random`` (uniform legal actions).
        rules: how a variant executes blueprints (`Hierarchy.rules`).
        seed: of the random policy.
    """
    if mode == "random":
        return score(mode, task, levels, play_random(task, levels, seed))
    if mode not in MODES or policy is None:
        raise ConfigError(f"unknown mode {mode!r}; choose one of {', '.join(MODES)}")
    if mode == "flat":
        return score(mode, task, levels, Arena(policy, task).play_flat(levels))
    arena = Arena(policy, task, rules)
    jobs = [(level, plan) for level, [(_, plan)] in zip(levels, arena.blueprints(levels, 1), strict=True)]
    return score(mode, task, levels, arena.execute(jobs))


def play_random(task: Task, levels: Sequence[Item], seed: int, returns: ReturnRule = ReturnRule()) -> list[Trajectory]:
    """Uniformly random legal actions to the step limit."""
    rng = np.random.default_rng(seed)
    out = []
    for level in levels:
        episode = task.start(level)
        while not episode.over and episode.steps < task.max_steps:
            legal = episode.legal()
            episode.act(legal[int(rng.integers(len(legal)))])
        out.append(
            Trajectory(
                None, (), episode.moves, returns(episode), episode.success, episode.steps, (), episode.progress,
                episode.transcript,
            )
        )  # fmt: skip
    return out


def profile(
    policy: Policy, task: Task, levels: Sequence[Item], n: int = 8, seed: int = 0, rules: Rules = Rules()
) -> dict[str, float]:
    """Whether reinforcement learning has something to learn from.

    Greedy success in both modes; success of `n` samples, and of at least one of them (pass@n), with blueprints executed
    greedily; the executor's success under the oracle's blueprints alone; the share of valid blueprints.

    rules: of all executions but those of the oracle's blueprints, which nothing follows.
    """
    sampling = Sampling(1.0, np.random.default_rng(seed))
    arena, alone = Arena(policy, task, rules), Arena(policy, task, replace(rules, fallback=Fallback()))
    groups = arena.blueprints(levels, n, sampling)
    jobs = [(level, plan) for level, group in zip(levels, groups, strict=True) for _, plan in group]
    planned = _successes(arena.execute(jobs)).reshape(-1, n)
    repeated = [level for level in levels for _ in range(n)]
    flat = _successes(arena.play_flat(repeated, sampling)).reshape(-1, n)
    oracle = [(level, task.oracle(level)) for level in levels]
    return {
        "greedy_himac": evaluate(policy, task, levels, "himac", rules).success,
        "greedy_flat": evaluate(policy, task, levels, "flat").success,
        "sampled_himac": float(planned.mean()),
        "sampled_flat": float(flat.mean()),
        f"pass{n}_himac": float(planned.any(1).mean()),
        f"pass{n}_flat": float(flat.any(1).mean()),
        "executor_on_oracle": float(_successes(alone.execute(oracle)).mean()),
        "executor_on_oracle_sampled": float(_successes(alone.execute(oracle, sampling)).mean()),
        "blueprint_valid": float(np.mean([plan.invalid is None for _, plan in jobs])),
    }


def _successes(trajectories: Sequence[Trajectory]) -> np.ndarray:
    return np.array([t.success for t in trajectories])
