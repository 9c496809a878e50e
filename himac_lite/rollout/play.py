"""Items → blueprints → executions; flat play. The model's side is `generation.decode`, the environment's a `Task`.

All sequences keep the token ids that were generated and the log-probabilities that they were sampled with; text is for
people only.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from himac_lite.policy.decoding import ROWS, Stream
from himac_lite.policy.model import Policy
from himac_lite.rollout.rules import ABORT, NEXT, REPLAN, EpisodeState, ReturnRule, Rules
from himac_lite.tasks import Task
from himac_lite.types import GREEDY, Blueprint, End, Item, Role, Sampling, SubGoal, TokenSequence, Trajectory

ROWS_IN_WORDS = 32
"""Rows of a batch where actions are written: contexts are long, and a row waits for the others before it reads on."""


def sample_blueprints(
    policy: Policy, task: Task, levels: Sequence[Item], n: int, sampling: Sampling
) -> list[list[tuple[TokenSequence, Blueprint]]]:
    """`n` blueprints for each level [P][G], as token sequences and parsed."""
    begun = [policy.prompt(task.start(level), Role.PLANNER) for level in levels]
    written = write_blueprints(policy, task, [prompt for prompt in begun for _ in range(n)], sampling)
    return [written[p * n : (p + 1) * n] for p in range(len(levels))]


def write_blueprints(
    policy: Policy, task: Task, prompts: Sequence[list[int]], sampling: Sampling
) -> list[tuple[TokenSequence, Blueprint]]:
    """One blueprint for each prompt, given as token ids."""
    if not prompts:
        return []
    policy.act_as(Role.PLANNER)
    end = policy.codes(task).end
    streams = policy.decode(
        prompts, lambda row, token: None if token == end else [], allowed=None, sampling=sampling,
        max_sampled=policy.plan_tokens(task),
    )  # fmt: skip
    out = []
    for prompt, stream in zip(prompts, streams, strict=True):
        finished = bool(stream.ids) and stream.ids[-1] == end
        text = policy.text(stream.ids[:-1] if finished else stream.ids)
        out.append((_packed(Role.PLANNER, prompt, stream, End.PLAN, text), task.parse_blueprint(text, finished)))
    return out


def execute(
    policy: Policy, task: Task, jobs: Sequence[tuple[Item, Blueprint]], sampling: Sampling, returns: ReturnRule,
    rules: Rules = Rules(), planner: Sampling = GREEDY,
) -> list[Trajectory]:  # fmt: skip
    """Execute one blueprint a job, all jobs side by side, one sub-goal of each at a time.

    The executor's context is the segment alone: the board as it is when the sub-goal begins, the sub-goal, and what has
    been done about it (HiMAC's temporal mask). A sub-goal ends with `<sub_done>`, with its step budget, or with the
    episode. An invalid blueprint is not executed: its trajectory has no segment and counts as a failure that achieved
    nothing.

    rules: a variant's other ways. planner: how blueprints are sampled that are written on the way.
    """
    runs = [_begun(task, level, blueprint, rules) for level, blueprint in jobs]

    while True:
        if rules.tactics:
            _divide(policy, task, runs, rules, planner)
        active = [i for i, run in enumerate(runs) if not (run.over(task.max_steps) or run.used_up)]
        if not active:
            return [_trajectory(run, returns) for run in runs]
        rows: dict[Any, list[EpisodeState]] = {}
        prompts = []
        for i in active:
            done, prompt = tuple(runs[i].subgoals[: len(runs[i].segments) + 1]), rules.context(policy.prompt, runs[i])
            # Greedy executions of one level that were told and read the same so far are one execution: played once.
            same = rows.setdefault(i if sampling.temperature else (jobs[i][0].text, done, tuple(prompt)), [])
            if not same:
                prompts.append(prompt)
            same.append(runs[i])
        _play(policy, task, list(rows.values()), Role.EXECUTOR, prompts, rules, sampling)
        if rules.exhausted != NEXT:
            _give_up(policy, task, [runs[i] for i in active], rules, planner)


def play_flat(
    policy: Policy, task: Task, levels: Sequence[Item], sampling: Sampling, returns: ReturnRule,
    rules: Rules = Rules(),
) -> list[Trajectory]:  # fmt: skip
    """Play every level without a plan: one sequence from the first action to the end of the episode."""
    runs = [EpisodeState(task.start(level), None, [SubGoal("")]) for level in levels]
    active = [run for run in runs if not run.over(task.max_steps)]
    prompts = [policy.prompt(run.episode, Role.FLAT) for run in active]
    _play(policy, task, [[run] for run in active], Role.FLAT, prompts, rules, sampling)
    return [_trajectory(run, returns) for run in runs]


@dataclass(frozen=True)
class Arena:
    """The policy at play under a variant's rules. Everything played is kept, for the count of steps and tokens."""

    policy: Policy
    task: Task
    rules: Rules
    returns: ReturnRule
    sampling: Sampling
    """How the role that explores is sampled."""
    played: list[Trajectory] = field(default_factory=list)

    def execute(
        self, jobs: Sequence[tuple[Item, Blueprint]], sampling: Sampling = GREEDY, planner: Sampling = GREEDY
    ) -> list[Trajectory]:
        """One trajectory a job. planner: how blueprints are sampled that are written on the way."""
        done = execute(self.policy, self.task, jobs, sampling, self.returns, self.rules, planner)
        self.played.extend(done)
        return done

    def play_flat(self, levels: Sequence[Item], sampling: Sampling = GREEDY) -> list[Trajectory]:
        """One episode a level without a plan."""
        done = play_flat(self.policy, self.task, levels, sampling, self.returns, self.rules)
        self.played.extend(done)
        return done


def _begun(task: Task, level: Item, blueprint: Blueprint, rules: Rules) -> EpisodeState:
    if rules.tactics:  # whose form counts is what the goals are divided into
        return EpisodeState(task.start(level), blueprint, [], pending=list(blueprint.subgoals))
    return EpisodeState(task.start(level), blueprint, list(rules.form(blueprint).subgoals))


def _divide(policy: Policy, task: Task, runs: Sequence[EpisodeState], rules: Rules, planner: Sampling) -> None:
    """Three levels: who has nothing left to do asks for sub-goals of the next goal. Unreadable: the goal itself."""
    idle = [run for run in runs if run.used_up and run.pending and not run.over(task.max_steps)]
    goals = [run.pending.pop(0) for run in idle]
    prompts = [policy.prompt(run.episode, Role.PLANNER, goal) for run, goal in zip(idle, goals, strict=True)]
    for run, goal, (plan, blueprint) in zip(idle, goals, write_blueprints(policy, task, prompts, planner), strict=True):
        run.plans.append(plan)
        run.subgoals += rules.form(blueprint).subgoals or (goal,)


def _give_up(policy: Policy, task: Task, runs: Sequence[EpisodeState], rules: Rules, planner: Sampling) -> None:
    """What becomes of those whose last sub-goal has used up its budget. An unreadable new plan changes nothing."""
    stuck = [run for run in runs if run.segments[-1].end is End.BUDGET and not run.over(task.max_steps)]
    if rules.exhausted == ABORT:
        for run in stuck:
            del run.subgoals[len(run.segments) :]
    if rules.exhausted == REPLAN:
        prompts = [policy.prompt(run.episode, Role.PLANNER) for run in stuck]
        for run, (plan, blueprint) in zip(stuck, write_blueprints(policy, task, prompts, planner), strict=True):
            run.plans.append(plan)
            begun = len(run.segments)
            run.subgoals[begun:] = rules.form(blueprint).subgoals or run.subgoals[begun - 1 :]


def _play(
    policy: Policy, task: Task, rows: list[list[EpisodeState]], role: Role, prompts: list[list[int]], rules: Rules,
    sampling: Sampling,
) -> None:  # fmt: skip
    """One segment for every row of equal runs: act and observe until it ends; appends the segment to the runs."""
    codes, flat, end = policy.codes(task), role is Role.FLAT, rules.end
    budget = task.max_steps if flat else end.steps or task.subgoal_budget
    if not flat and not end.sub_done:
        role = Role.DRIVEN
    policy.act_as(role)
    ends = [End.BUDGET] * len(rows)
    begun = [runs[0].episode.steps for runs in rows]
    worth = [_worth(runs[0], rules) for runs in rows]
    states: list[list[Hashable]] = [[] for _ in rows]
    reader = policy.reader(task, len(rows))

    def react(row: int, token: int) -> list[int] | None:
        if rules.state is not None:
            states[row].append(rules.state(rows[row][0].episode))
        choice = reader.read(row, token)
        if choice is None:
            return []
        if choice.action is None and role is Role.EXECUTOR:
            ends[row] = End.SUB_DONE
            return None
        action = task.sub_done if choice.action is None else choice.action  # whoever has no sub-goal to end says it
        seen, *_ = [run.episode.act(action) for run in rows[row]]
        episode = rows[row][0].episode
        if episode.over:
            ends[row] = End.SUCCESS if episode.success else End.OVER
            return None
        if episode.steps >= task.max_steps:
            ends[row] = End.TRUNCATED
            return None
        if end.check is not None and not flat and end.check(episode, rows[row][0].active):
            ends[row] = End.VERIFIED
            return None
        # The step that uses up the budget ends the segment: the executor is not asked for <sub_done> any more.
        if episode.steps - begun[row] >= budget:
            return None
        return [*choice.rest, *policy.observed(seen, choice.ended), *codes.prefix]

    prompts = [[*prompt, *codes.prefix] for prompt in prompts]
    streams = policy.decode(
        prompts, react, allowed=codes.allowed(role is Role.EXECUTOR), sampling=sampling,
        max_sampled=budget * task.max_action_tokens + 1, max_rows=ROWS if codes.actions else ROWS_IN_WORDS,
    )  # fmt: skip
    for row, (runs, prompt, stream) in enumerate(zip(rows, prompts, streams, strict=True)):
        segment = _packed(role, prompt, stream, ends[row], policy.text(stream.ids))
        for run in runs:
            if rules.potential is not None:
                run.gains.append(_worth(run, rules) - worth[row])
            if rules.state is not None:
                run.states.append(tuple(states[row]))
            run.segments.append(segment)
            run.segment_moves.append(run.episode.steps - begun[row])


def _worth(run: EpisodeState, rules: Rules) -> float:
    return 0.0 if rules.potential is None else float(rules.potential(run.episode, run.active))


def _packed(role: Role, prompt: list[int], stream: Stream, end: End, text: str) -> TokenSequence:
    n = len(prompt)
    return TokenSequence(
        role, (*prompt, *stream.ids), n, (*[False] * n, *stream.sampled), (*[0.0] * n, *stream.logp), end, text
    )


def _trajectory(run: EpisodeState, returns: ReturnRule) -> Trajectory:
    z = run.blueprint
    invalid = z is not None and z.invalid is not None
    return Trajectory(
        z, tuple(run.segments), run.episode.moves, 0.0 if invalid else returns(run.episode),
        run.episode.success, run.episode.steps, tuple(run.segment_moves), 0.0 if invalid else run.episode.progress,
        run.episode.transcript,
        told=() if z is None else tuple(run.subgoals[: len(run.segments)]), plans=tuple(run.plans),
        gains=tuple(run.gains), states=tuple(run.states),
    )  # fmt: skip
