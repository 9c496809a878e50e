"""Rollouts: levels → blueprints → executions, and flat play.

Sequences carry the generated token ids and their behaviour log-probs. Text is only for people.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from himac_lite.policy.decoding import ROWS, Stream
from himac_lite.policy.model import Policy
from himac_lite.rollout.rules import ABORT, END, KEEP, NEXT, REPLAN, Check, EpisodeState, ReturnRule, Rules
from himac_lite.tasks import Episode, Task
from himac_lite.types import GREEDY, Blueprint, End, Item, Role, Sampling, SubGoal, TokenSequence, Trajectory

ROWS_OF_LINES = 32
"""Rows of a batch in text-action tasks, where contexts are long and rows wait for each other."""

Written = tuple[TokenSequence, Blueprint]
"""The planner's tokens and the blueprint parsed from them."""


@dataclass(frozen=True)
class Arena:
    """A policy, its task and the rules of play."""

    policy: Policy
    task: Task
    rules: Rules = Rules()
    returns: ReturnRule = ReturnRule()
    sampling: Sampling = GREEDY
    """Sampling of the exploring role."""
    played: list[Trajectory] = field(default_factory=list)
    """Every trajectory so far, to count steps and tokens."""

    def blueprints(self, levels: Sequence[Item], n: int, sampling: Sampling = GREEDY) -> list[list[Written]]:
        """`n` blueprints for each level: [P][G]."""
        prompts = [self.policy.prompt(self.task.start(level), Role.PLANNER) for level in levels]
        written = self.write([prompt for prompt in prompts for _ in range(n)], sampling)
        return [written[p * n : (p + 1) * n] for p in range(len(levels))]

    def write(self, prompts: Sequence[list[int]], sampling: Sampling) -> list[Written]:
        """One blueprint for each prompt of token ids."""
        if not prompts:
            return []
        policy, task = self.policy, self.task
        policy.act_as(Role.PLANNER)
        end = policy.codes(task).end

        def react(row: int, token: int) -> list[int] | None:
            return None if token == end else []

        room = policy.plan_tokens(task)
        streams = policy.decode(prompts, react, allowed=None, sampling=sampling, max_sampled=room)
        out = []
        for prompt, stream in zip(prompts, streams, strict=True):
            finished = bool(stream.ids) and stream.ids[-1] == end
            text = policy.text(stream.ids[:-1] if finished else stream.ids)
            tokens = _sequence(Role.PLANNER, prompt, stream, End.PLAN, text, None)
            out.append((tokens, task.parse_blueprint(text, finished)))
        return out

    def play(
        self, jobs: Sequence[tuple[Item, Blueprint | None]], sampling: Sampling = GREEDY, planner: Sampling = GREEDY
    ) -> list[Trajectory]:
        """One trajectory per job: the blueprint is executed, or all levels are played flat if no job has one."""
        planned = [(level, z) for level, z in jobs if z is not None]
        if planned:
            return self.execute(planned, sampling, planner)
        return self.play_flat([level for level, _ in jobs], sampling)

    def execute(
        self, jobs: Sequence[tuple[Item, Blueprint]], sampling: Sampling = GREEDY, planner: Sampling = GREEDY
    ) -> list[Trajectory]:
        """One trajectory per job. All jobs run in parallel, one segment of each at a time.

        `Rules.context` gives the context of a segment, `segment_end` its end. An invalid blueprint is not executed: its
        trajectory is a failure without segments or progress.

        planner: sampling of the blueprints that are written during the episode.
        """
        runs = [_begun(self.task, level, blueprint, self.rules) for level, blueprint in jobs]
        while True:
            self._divide(runs, planner)
            active = [i for i, run in enumerate(runs) if not (run.over(self.task.max_steps) or run.used_up)]
            if not active:
                return self._kept(runs)
            rows: dict[Any, list[EpisodeState]] = {}
            prompts = []
            for i in active:
                told = (runs[i].kept, *runs[i].subgoals[: len(runs[i].segments) + 1])
                prompt = self.rules.context(self.policy.prompt, runs[i])
                # Greedy executions with equal level, sub-goals and context are equal: they are played once.
                same = rows.setdefault(i if sampling.temperature else (jobs[i][0].text, told, tuple(prompt)), [])
                if not same:
                    prompts.append(prompt)
                same.append(runs[i])
            for kept in (False, True):
                chosen = [k for k, same in enumerate(rows.values()) if same[0].kept is kept]
                part = list(rows.values())
                role = Role.DRIVEN if kept or not self.rules.end.sub_done else Role.EXECUTOR
                self._play_segments([part[k] for k in chosen], role, [prompts[k] for k in chosen], sampling)
            self._after_segments([runs[i] for i in active if not runs[i].over(self.task.max_steps)], planner)

    def play_flat(self, levels: Sequence[Item], sampling: Sampling = GREEDY) -> list[Trajectory]:
        """Flat play of every level: one sequence per episode."""
        runs = [EpisodeState(self.task.start(level), None, [SubGoal("")]) for level in levels]
        active = [run for run in runs if not run.over(self.task.max_steps)]
        prompts = [self.policy.prompt(run.episode, Role.FLAT) for run in active]
        self._play_segments([[run] for run in active], Role.FLAT, prompts, sampling)
        return self._kept(runs)

    def _kept(self, runs: Sequence[EpisodeState]) -> list[Trajectory]:
        done = [_trajectory(run, self.returns) for run in runs]
        self.played.extend(done)
        return done

    def _divide(self, runs: Sequence[EpisodeState], planner: Sampling) -> None:
        """Depth 3: divide the next goal of every run without a sub-goal. An invalid division leaves the goal."""
        idle = [run for run in runs if run.used_up and run.pending and not run.over(self.task.max_steps)]
        goals = [run.pending.pop(0) for run in idle]
        prompts = [self.policy.prompt(run.episode, Role.PLANNER, goal) for run, goal in zip(idle, goals, strict=True)]
        for run, goal, (tokens, blueprint) in zip(idle, goals, self.write(prompts, planner), strict=True):
            run.replans.append(tokens)
            run.subgoals += self.rules.form(blueprint).subgoals or (goal,)

    def _after_segments(self, runs: Sequence[EpisodeState], planner: Sampling) -> None:
        """Apply the fallback to runs whose sub-goal was missed, and then to runs whose plan is used up."""
        fallback = self.rules.fallback
        if fallback.exhausted != NEXT:
            missed = [run for run in runs if _missed(run, fallback.reached)]
            if fallback.exhausted == ABORT:
                for run in missed:
                    del run.subgoals[len(run.segments) :]
            else:  # without a valid new blueprint, the missed sub-goal is active again
                self._replan(missed, planner, otherwise=lambda run: run.subgoals[len(run.segments) - 1 :])
        if fallback.used_up == END:
            return
        ended = [run for run in runs if run.used_up and not run.pending]
        if fallback.used_up == KEEP:
            for run in ended:
                run.kept = True
                run.subgoals.append(run.subgoals[-1])
        if fallback.used_up == REPLAN:
            # A planner on an unchanged board would write the same plan for ever.
            moved = [run for run in ended if run.episode.steps > run.planned_at]
            self._replan(moved, planner, otherwise=lambda run: ())

    def _replan(
        self, runs: Sequence[EpisodeState], planner: Sampling, otherwise: Callable[[EpisodeState], Sequence[SubGoal]]
    ) -> None:
        """Write new blueprints in place of the remaining sub-goals; an invalid one gives way to `otherwise`."""
        prompts = [self.policy.prompt(run.episode, Role.PLANNER) for run in runs]
        for run, (tokens, blueprint) in zip(runs, self.write(prompts, planner), strict=True):
            run.replans.append(tokens)
            run.planned_at = run.episode.steps
            run.subgoals[len(run.segments) :] = self.rules.form(blueprint).subgoals or otherwise(run)

    def _play_segments(
        self, rows: list[list[EpisodeState]], role: Role, prompts: list[list[int]], sampling: Sampling
    ) -> None:
        """Play one segment per row of equal runs, and append it to the runs."""
        if not rows:
            return
        policy, task, rules = self.policy, self.task, self.rules
        limits = Limits.of(task, rules, flat=role is Role.FLAT or rows[0][0].kept)
        policy.act_as(role)
        codes, reader = policy.codes(task), policy.reader(task, len(rows))
        allowed = codes.allowed(role is Role.EXECUTOR)
        ends = [End.BUDGET] * len(rows)
        begun = [runs[0].episode.steps for runs in rows]
        worth = [_worth(runs[0], rules) for runs in rows]
        states: list[list[Hashable]] = [[] for _ in rows]

        def react(row: int, token: int) -> list[int] | None:
            """Forced tokens after a sampled token; None at the end of the segment."""
            run = rows[row][0]
            if rules.state is not None:
                states[row].append(rules.state(run.episode))
            choice = reader.read(row, token)
            if choice is None:
                return []
            said_done = choice.action is None and role is Role.EXECUTOR
            seen = ""
            if not said_done:
                # From a role without sub-goals, <sub_done> is an action that the environment rejects.
                action = task.sub_done if choice.action is None else choice.action
                seen, *_ = [same.episode.act(action) for same in rows[row]]
            end = segment_end(run.episode, run.active, run.episode.steps - begun[row], limits, said_done)
            if end is None:
                return [*choice.rest, *policy.observed(seen, choice.ended), *codes.prefix]
            ends[row] = end
            return None

        prompts = [[*prompt, *codes.prefix] for prompt in prompts]
        streams = policy.decode(
            prompts, react, allowed=allowed, sampling=sampling, max_sampled=limits.budget * task.max_action_tokens + 1,
            max_rows=ROWS if codes.actions else ROWS_OF_LINES,
        )  # fmt: skip
        constraint = None if allowed is None else tuple(allowed)
        for row, (runs, prompt, stream) in enumerate(zip(rows, prompts, streams, strict=True)):
            segment = _sequence(role, prompt, stream, ends[row], policy.text(stream.ids), constraint)
            for run in runs:
                if rules.potential is not None:
                    run.gains.append(_worth(run, rules) - worth[row])
                if rules.state is not None:
                    run.states.append(tuple(states[row]))
                run.segments.append(segment)
                run.segment_moves.append(run.episode.steps - begun[row])


@dataclass(frozen=True)
class Limits:
    """Limits of a segment: steps of the episode, steps of the segment, and the variant's check."""

    max_steps: int
    budget: int
    check: Check | None = None

    @classmethod
    def of(cls, task: Task, rules: Rules, flat: bool) -> Limits:
        """flat: only the step limit of the episode ends the segment."""
        if flat:
            return cls(task.max_steps, task.max_steps)
        return cls(task.max_steps, rules.end.steps or task.subgoal_budget, rules.end.check)


def segment_end(episode: Episode, subgoal: SubGoal, steps: int, limits: Limits, said_done: bool = False) -> End | None:
    """How a segment ends after a choice of the model; None if it continues.

    The step that uses up the budget ends the segment without another choice.

    steps: environment steps of the segment so far. said_done: the executor wrote `<sub_done>`.
    """
    if said_done:
        return End.SUB_DONE
    if episode.over:
        return End.SUCCESS if episode.success else End.OVER
    if episode.steps >= limits.max_steps:
        return End.TRUNCATED
    if limits.check is not None and limits.check(episode, subgoal):
        return End.VERIFIED
    return End.BUDGET if steps >= limits.budget else None


def _missed(run: EpisodeState, reached: Check | None) -> bool:
    """Whether the last segment used up its budget, or left a sub-goal that `reached` denies."""
    last = len(run.segments) - 1
    return run.segments[last].end is End.BUDGET or not (reached is None or reached(run.episode, run.subgoals[last]))


def _begun(task: Task, level: Item, blueprint: Blueprint, rules: Rules) -> EpisodeState:
    if rules.tactics:  # `form` applies to what the goals are divided into
        return EpisodeState(task.start(level), blueprint, [], pending=list(blueprint.subgoals))
    return EpisodeState(task.start(level), blueprint, list(rules.form(blueprint).subgoals))


def _worth(run: EpisodeState, rules: Rules) -> float:
    return 0.0 if rules.potential is None else float(rules.potential(run.episode, run.active))


def _sequence(
    role: Role, prompt: list[int], stream: Stream, end: End, text: str, allowed: tuple[int, ...] | None
) -> TokenSequence:
    n = len(prompt)
    mask, logp = (*[False] * n, *stream.sampled), (*[0.0] * n, *stream.logp)
    return TokenSequence(role, (*prompt, *stream.ids), n, mask, logp, end, text, allowed)


def _trajectory(run: EpisodeState, returns: ReturnRule) -> Trajectory:
    z, episode = run.blueprint, run.episode
    invalid = z is not None and z.invalid is not None
    return Trajectory(
        z, tuple(run.segments), episode.moves, 0.0 if invalid else returns(episode), episode.success, episode.steps,
        segment_moves=tuple(run.segment_moves),
        progress=0.0 if invalid else episode.progress,
        transcript=episode.transcript,
        told=() if z is None else tuple(run.subgoals[: len(run.segments)]),
        replans=tuple(run.replans), gains=tuple(run.gains), states=tuple(run.states),
    )  # fmt: skip
