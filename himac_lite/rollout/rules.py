"""The axes of a variant that rollouts read. Each is a small function or value that another can replace.

`Rules()` is HiMAC: the blueprint as written, sub-goals that end with `<sub_done>` or their budget, then the next
sub-goal, and a context that contains the active segment only.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from himac_lite.errors import ConfigError, checked
from himac_lite.tasks import Episode, Reaches
from himac_lite.types import Blueprint, Role, SubGoal, TokenSequence

Read = Callable[[Episode, Role, SubGoal | None], "list[int]"]
"""(episode, role, sub-goal) → token ids of the role's prompt."""
Check = Callable[[Any, SubGoal], bool]
"""(episode, sub-goal) → whether the sub-goal is done. It must not change the episode."""
Potential = Callable[[Any, SubGoal], float]
"""(episode, sub-goal) → Φ. A segment gains Φ at its end − Φ at its start (Ng, Harada and Russell 1999)."""
State = Callable[[Any], Hashable]
"""Episode → a key; equal keys are the same state."""
Form = Callable[[Blueprint], Blueprint]
"""The planner's blueprint → the blueprint that the executor follows."""

NEXT, ABORT, REPLAN = "next", "abort", "replan"
MISSED = (NEXT, ABORT, REPLAN)
"""What follows a missed sub-goal. next: the next sub-goal; abort: the plan is used up; replan: a new blueprint."""
END, KEEP = "end", "keep"
USED_UP = (END, KEEP, REPLAN)
"""What follows a used-up plan. end: the episode ends; keep: the last sub-goal stays active, without `<sub_done>` and
without a budget, until the step limit; replan: a new blueprint, if the episode made a step since the last one."""


@dataclass(frozen=True)
class ReturnRule:
    """The return of an episode: 1 for success, `progress_share` × progress for a failure.

    There is no penalty per step, because a planner with such a penalty learns to fail early.
    """

    progress_share: float = 0.0

    def __call__(self, episode: Episode) -> float:
        return 1.0 if episode.success else self.progress_share * episode.progress


@dataclass
class EpisodeState:
    """A running episode. pending: at depth 3, the goals that are not yet divided into sub-goals."""

    episode: Episode
    blueprint: Blueprint | None
    subgoals: list[SubGoal]
    pending: list[SubGoal] = field(default_factory=list)
    planned_at: int = 0
    """Steps of the episode when the last blueprint was written."""
    kept: bool = False
    """Whether the last sub-goal of a used-up plan stays active."""
    segments: list[TokenSequence] = field(default_factory=list)
    segment_moves: list[int] = field(default_factory=list)
    replans: list[TokenSequence] = field(default_factory=list)
    gains: list[float] = field(default_factory=list)
    states: list[tuple[Hashable, ...]] = field(default_factory=list)

    @property
    def active(self) -> SubGoal:
        """The sub-goal of the next segment."""
        return self.subgoals[len(self.segments)]

    @property
    def used_up(self) -> bool:
        """Whether every sub-goal has its segment."""
        return len(self.segments) == len(self.subgoals)

    def over(self, max_steps: int) -> bool:
        return self.episode.over or self.episode.steps >= max_steps


Context = Callable[[Read, EpisodeState], "list[int]"]
"""(read, state) → token ids of the executor's context at the start of a segment."""


def active_segment(read: Read, playing: EpisodeState) -> list[int]:
    """The current state and the active sub-goal (HiMAC's temporal mask)."""
    return read(playing.episode, Role.EXECUTOR, playing.active)


def whole_plan(read: Read, playing: EpisodeState) -> list[int]:
    """The current state and all remaining sub-goals. The active one comes last, next to the actions."""
    left = playing.subgoals[len(playing.segments) :]
    text = "\n".join(goal.text for goal in (*reversed(left[1:]), left[0]))
    return read(playing.episode, Role.EXECUTOR, SubGoal(text))


def full_history(read: Read, playing: EpisodeState) -> list[int]:
    """All segments so far, then the current state and the active sub-goal.

    The small model has 512 positions, enough for two or three segments.
    """
    before = playing.segments[-1].ids if playing.segments else ()
    return [*before, *read(playing.episode, Role.EXECUTOR, playing.active)]


@checked
@dataclass(frozen=True)
class Ending:
    """How a sub-goal ends, besides success and the step limit: see `SELF_ENDED`, `fixed_steps`, `verified`."""

    sub_done: bool = True
    """Whether the executor may write `<sub_done>`."""
    steps: int | None = None
    """Environment steps per sub-goal; None: the task's budget."""
    check: Check | None = None
    """A check after every step."""

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise ConfigError(f"a sub-goal needs at least 1 step, not {self.steps}")


SELF_ENDED = Ending()
"""The executor ends its sub-goal with `<sub_done>` (HiMAC)."""


def fixed_steps(steps: int) -> Ending:
    """Every sub-goal lasts `steps` steps, and there is no `<sub_done>` (the ablation 'without <sub_done>')."""
    return Ending(sub_done=False, steps=steps)


def verified(check: Check) -> Ending:
    """`check` ends a sub-goal, and there is no `<sub_done>`."""
    return Ending(sub_done=False, check=check)


def reached_by_world(episode: Any, subgoal: SubGoal) -> bool:
    """Whether the sub-goal is reached, if the world can tell: the episode's own `reached`, without a solver."""
    return not isinstance(episode, Reaches) or episode.reached(subgoal)


def as_written(blueprint: Blueprint) -> Blueprint:
    """The executor follows the planner's sub-goals (HiMAC)."""
    return blueprint


def as_read(episode: Episode) -> Hashable:
    """The state is the prompt of flat play."""
    return episode.prompt(Role.FLAT)


@checked
def subgoal_bonus(check: Check, bonus: float = 0.1) -> Potential:
    """The executor earns `bonus`, in the unit of the return, for every completed sub-goal."""
    return lambda episode, subgoal: bonus * check(episode, subgoal)


@checked
def distance_decrease(distance: Callable[[Any], float], scale: float = 0.01) -> Potential:
    """The executor earns `scale` × the decrease of `distance(episode)` over each segment."""
    return lambda episode, subgoal: -scale * distance(episode)


@checked
@dataclass(frozen=True)
class Fallback:
    """What follows when the plan does not lead on."""

    used_up: str = END
    """What follows a used-up plan: one of `USED_UP`."""
    exhausted: str = NEXT
    """What follows a missed sub-goal: one of `MISSED`. A sub-goal is missed if it used up its budget."""
    reached: Check | None = None
    """A check at the end of a segment: a sub-goal that it denies is missed too."""

    def __post_init__(self) -> None:
        for name, allowed in (("used_up", USED_UP), ("exhausted", MISSED)):
            if getattr(self, name) not in allowed:
                said = ", ".join(map(repr, allowed[:-1]))
                raise ConfigError(f"{name} must be {said} or {allowed[-1]!r}, not {getattr(self, name)!r}")

    def __str__(self) -> str:
        """The name in manifests and tables, such as ``replan, missed: abort``."""
        cause = "budget" if self.reached is None else "missed"
        return self.used_up + (f", {cause}: {self.exhausted}" if self.exhausted != NEXT else "")


@dataclass(frozen=True)
class Rules:
    """The axes of a `Hierarchy` that `Arena.execute` reads."""

    form: Form = as_written
    end: Ending = SELF_ENDED
    fallback: Fallback = Fallback()
    context: Context = active_segment
    potential: Potential | None = None
    state: State | None = None
    tactics: bool = False
    """Depth 3: the planner divides each sub-goal of the blueprint, at its turn, by another blueprint."""
