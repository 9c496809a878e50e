"""How a blueprint is carried out: the axes of a hierarchy that rollouts read, each a small function or value.

`Rules()` is HiMAC: the blueprint as it was written, a sub-goal ended by `<sub_done>`, the next one when its budget is
used up, and a context that holds the active segment alone. A function of the same signature takes any one's place.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from himac_lite.errors import ConfigError
from himac_lite.tasks import Episode
from himac_lite.types import Blueprint, Role, SubGoal, TokenSequence

Read = Callable[[Episode, Role, SubGoal | None], "list[int]"]
"""(episode, role, sub-goal) → token ids of what this role reads now."""
Check = Callable[[Any, SubGoal], bool]
"""(episode, sub-goal) → whether the sub-goal is done. It is asked after every step; it must not change the episode."""
Potential = Callable[[Any, SubGoal], float]
"""(episode, sub-goal) → Φ. A segment is worth Φ at its end − Φ at its start (Ng, Harada and Russell 1999)."""
State = Callable[[Any], Hashable]
"""Episode → what makes two situations the same one."""
Form = Callable[[Blueprint], Blueprint]
"""What the planner wrote → what the executor is told, one sub-goal after another."""

NEXT, ABORT, REPLAN = "next", "abort", "replan"


@dataclass(frozen=True)
class ReturnRule:
    """What an episode is worth.

    1 for success; a failure is worth `progress_share` × progress (say, boxes on targets). There is no penalty per step:
    a planner that pays for steps learns to fail early.
    """

    progress_share: float = 0.0

    def __call__(self, episode: Episode) -> float:
        return 1.0 if episode.success else self.progress_share * episode.progress


@dataclass
class EpisodeState:
    """An episode under way. `pending`: goals of a level above that nobody has divided into sub-goals yet."""

    episode: Episode
    blueprint: Blueprint | None
    subgoals: list[SubGoal]
    pending: list[SubGoal] = field(default_factory=list)
    segments: list[TokenSequence] = field(default_factory=list)
    segment_moves: list[int] = field(default_factory=list)
    replans: list[TokenSequence] = field(default_factory=list)
    gains: list[float] = field(default_factory=list)
    states: list[tuple[Hashable, ...]] = field(default_factory=list)

    @property
    def active(self) -> SubGoal:
        """The sub-goal of the segment that comes next."""
        return self.subgoals[len(self.segments)]

    @property
    def used_up(self) -> bool:
        """Whether every sub-goal so far has had its segment."""
        return len(self.segments) == len(self.subgoals)

    def over(self, max_steps: int) -> bool:
        return self.episode.over or self.episode.steps >= max_steps


Context = Callable[[Read, EpisodeState], "list[int]"]
"""What the executor reads before a segment, as token ids."""


def active_segment(read: Read, playing: EpisodeState) -> list[int]:
    """The board as it is and the active sub-goal (HiMAC's temporal attention mask)."""
    return read(playing.episode, Role.EXECUTOR, playing.active)


def whole_plan(read: Read, playing: EpisodeState) -> list[int]:
    """The board as it is and all sub-goals that are left, the active one last, next to what it is read for."""
    left = playing.subgoals[len(playing.segments) :]
    text = "\n".join(goal.text for goal in (*reversed(left[1:]), left[0]))
    return read(playing.episode, Role.EXECUTOR, SubGoal(text))


def full_history(read: Read, playing: EpisodeState) -> list[int]:
    """Nothing is cut: all segments so far, and after them the board and the active sub-goal.

    The small model knows positions up to 512 tokens: two or three segments.
    """
    before = playing.segments[-1].ids if playing.segments else ()
    return [*before, *read(playing.episode, Role.EXECUTOR, playing.active)]


@dataclass(frozen=True)
class Ending:
    """How a sub-goal ends, apart from success and the step limits: see `SELF_ENDED`, `fixed_steps`, `verified`."""

    sub_done: bool = True
    """The executor may say `<sub_done>`."""
    steps: int | None = None
    """Environment steps of a sub-goal; None: the task's budget."""
    check: Check | None = None
    """A check of the environment, after every step."""

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise ConfigError(f"a sub-goal needs at least 1 step, not {self.steps}")


SELF_ENDED = Ending()
"""The executor ends its sub-goal itself (HiMAC)."""


def fixed_steps(steps: int) -> Ending:
    """Every sub-goal lasts so many steps; `<sub_done>` cannot be said (the ablation 'without <sub_done>')."""
    return Ending(sub_done=False, steps=steps)


def verified(check: Check) -> Ending:
    """The environment ends a sub-goal that is done; `<sub_done>` cannot be said."""
    return Ending(sub_done=False, check=check)


def as_written(blueprint: Blueprint) -> Blueprint:
    """The executor is told what the planner wrote."""
    return blueprint


def as_read(episode: Episode) -> Hashable:
    """Two situations are the same one if a flat player reads the same in both."""
    return episode.prompt(Role.FLAT)


def subgoal_bonus(check: Check, bonus: float = 0.1) -> Potential:
    """The executor earns `bonus`, in the unit of the return, for every sub-goal that it gets done."""
    return lambda episode, subgoal: bonus * check(episode, subgoal)


def distance_decrease(distance: Callable[[Any], float], scale: float = 0.01) -> Potential:
    """The executor earns `scale` for every step that a segment brings it nearer to the end of the episode."""
    return lambda episode, subgoal: -scale * distance(episode)


@dataclass(frozen=True)
class Rules:
    """All that `rollout.execute` has to know of a hierarchy."""

    form: Form = as_written
    end: Ending = SELF_ENDED
    exhausted: str = NEXT
    """next: the next sub-goal; abort: the episode ends; replan: a new blueprint for the board as it is."""
    context: Context = active_segment
    potential: Potential | None = None
    state: State | None = None
    tactics: bool = False
    """Three levels: each sub-goal of the blueprint is divided, when its turn comes, by a blueprint of its own."""
