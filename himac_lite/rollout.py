"""Levels → blueprints → executions; flat play. The model's side is `generation.decode`, the environment's a `Task`.

All sequences keep the token ids that were generated and the log-probabilities that they were sampled with; text is for
people only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from himac_lite.codes import Reader
from himac_lite.generation import Stream
from himac_lite.model import Policy
from himac_lite.tasks import Episode, Task
from himac_lite.types import Blueprint, End, Item, Role, SubGoal, Trajectory
from himac_lite.types import Sequence as TokenSequence


@dataclass(frozen=True)
class ReturnRule:
    """What an episode is worth.

    1 for success; a failure is worth `progress_share` × progress (say, boxes on targets). There is no penalty per step:
    a planner that pays for steps learns to fail early.
    """

    progress_share: float = 0.0

    def __call__(self, episode: Episode) -> float:
        return 1.0 if episode.success else self.progress_share * episode.progress


@dataclass(frozen=True)
class Sampling:
    """How a policy is sampled: temperature 0 is greedy; any other needs a generator, which makes it reproducible."""

    temperature: float = 1.0
    rng: np.random.Generator | None = None


GREEDY = Sampling(0.0)


def sample_blueprints(
    policy: Policy, task: Task, levels: Sequence[Item], n: int, sampling: Sampling
) -> list[list[tuple[TokenSequence, Blueprint]]]:
    """`n` blueprints for each level [P][G], as token sequences and parsed."""
    begun = [policy.encode(task.start(level).prompt(Role.PLANNER)) for level in levels]
    prompts = [prompt for prompt in begun for _ in range(n)]
    end = policy.codes(task).end
    streams = policy.decode(
        prompts, lambda row, token: None if token == end else [], allowed=None, sampling=sampling,
        max_sampled=task.max_plan_tokens,
    )  # fmt: skip
    out: list[list[tuple[TokenSequence, Blueprint]]] = [[] for _ in levels]
    for i, (prompt, stream) in enumerate(zip(prompts, streams, strict=True)):
        finished = bool(stream.ids) and stream.ids[-1] == end
        text = policy.text(stream.ids[:-1] if finished else stream.ids)
        out[i // n].append(
            (_packed(Role.PLANNER, prompt, stream, End.PLAN, text), task.parse_blueprint(text, finished))
        )
    return out


@dataclass
class _Run:
    """An episode under way."""

    episode: Episode
    blueprint: Blueprint | None
    subgoals: list[SubGoal]
    segments: list[TokenSequence] = field(default_factory=list)
    segment_moves: list[int] = field(default_factory=list)

    def finished(self, task: Task) -> bool:
        return self.episode.over or self.episode.steps >= task.max_steps or len(self.segments) == len(self.subgoals)


def execute(
    policy: Policy, task: Task, jobs: Sequence[tuple[Item, Blueprint]], sampling: Sampling, returns: ReturnRule
) -> list[Trajectory]:
    """Execute one blueprint a job, all jobs side by side, one sub-goal of each at a time.

    The executor's context is the segment alone: the board as it is when the sub-goal begins, the sub-goal, and what has
    been done about it (HiMAC's temporal mask). A sub-goal ends with `<sub_done>`, with its step budget, or with the
    episode. An invalid blueprint is not executed: its trajectory has no segment and counts as a failure that achieved
    nothing.
    """
    runs = [_Run(task.start(level), blueprint, list(blueprint.subgoals)) for level, blueprint in jobs]
    while active := [i for i, run in enumerate(runs) if not run.finished(task)]:
        rows: dict[Any, list[_Run]] = {}
        for i in active:
            done = tuple(runs[i].subgoals[: len(runs[i].segments) + 1])
            # Greedy executions of one level that share their sub-goals so far are one execution: played once.
            rows.setdefault(i if sampling.temperature else (jobs[i][0].text, done), []).append(runs[i])
        prompts = [
            policy.encode(run.episode.prompt(Role.EXECUTOR, run.subgoals[len(run.segments)]))
            for run, *_ in rows.values()
        ]
        _play(policy, task, list(rows.values()), Role.EXECUTOR, prompts, task.subgoal_budget, sampling)
    return [_trajectory(run, returns) for run in runs]


def play_flat(
    policy: Policy, task: Task, levels: Sequence[Item], sampling: Sampling, returns: ReturnRule
) -> list[Trajectory]:
    """Play every level without a plan: one sequence from the first action to the end of the episode."""
    runs = [_Run(task.start(level), None, [SubGoal("")]) for level in levels]
    active = [run for run in runs if not run.finished(task)]
    prompts = [policy.encode(run.episode.prompt(Role.FLAT)) for run in active]
    _play(policy, task, [[run] for run in active], Role.FLAT, prompts, task.max_steps, sampling)
    return [_trajectory(run, returns) for run in runs]


def _play(
    policy: Policy, task: Task, rows: list[list[_Run]], role: Role, prompts: list[list[int]], budget: int,
    sampling: Sampling,
) -> None:  # fmt: skip
    """One segment for every row of equal runs: act and observe until it ends; appends the segment to the runs."""
    codes = policy.codes(task)
    ends = [End.BUDGET] * len(rows)
    begun = [runs[0].episode.steps for runs in rows]
    reader = Reader(codes, task, lambda text: policy.encode(text, prompt=False), policy.text, len(rows))

    def react(row: int, token: int) -> list[int] | None:
        choice = reader.read(row, token)
        if choice is None:
            return []
        if choice.action is None and role is Role.EXECUTOR:
            ends[row] = End.SUB_DONE
            return None
        action = task.sub_done if choice.action is None else choice.action  # flat play has no sub-goal to end
        seen, *_ = [run.episode.act(action) for run in rows[row]]
        episode = rows[row][0].episode
        if episode.over:
            ends[row] = End.SUCCESS if episode.success else End.OVER
            return None
        if episode.steps >= task.max_steps:
            ends[row] = End.TRUNCATED
            return None
        # The step that uses up the budget ends the segment: the executor is not asked for <sub_done> any more.
        if episode.steps - begun[row] >= budget:
            return None
        return [*choice.rest, *policy.encode(seen, prompt=False), *codes.prefix]

    prompts = [[*prompt, *codes.prefix] for prompt in prompts]
    streams = policy.decode(
        prompts, react, allowed=codes.allowed(role is Role.EXECUTOR), sampling=sampling,
        max_sampled=budget * task.max_action_tokens + 1,
    )  # fmt: skip
    for runs, prompt, stream, end, start in zip(rows, prompts, streams, ends, begun, strict=True):
        segment = _packed(role, prompt, stream, end, policy.text(stream.ids))
        for run in runs:
            run.segments.append(segment)
            run.segment_moves.append(run.episode.steps - start)


def _packed(role: Role, prompt: list[int], stream: Stream, end: End, text: str) -> TokenSequence:
    n = len(prompt)
    return TokenSequence(
        role, (*prompt, *stream.ids), n, (*[False] * n, *stream.sampled), (*[0.0] * n, *stream.logp), end, text
    )


def _trajectory(run: _Run, returns: ReturnRule) -> Trajectory:
    invalid = run.blueprint is not None and run.blueprint.invalid is not None
    return Trajectory(
        run.blueprint, tuple(run.segments), run.episode.moves, 0.0 if invalid else returns(run.episode),
        run.episode.success, run.episode.steps, tuple(run.segment_moves), 0.0 if invalid else run.episode.progress,
        run.episode.transcript,
    )  # fmt: skip
