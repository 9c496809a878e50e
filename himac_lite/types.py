"""Frozen types that name every hand-off between modules, and the glossary of axes.

Axes, in names (``return_pg``), in shape comments and in docstrings:

====== =====================================================================
letter meaning
====== =====================================================================
P      levels (prompts) of an iteration; a level is what an episode starts from, in whatever task
G      blueprints sampled for one level: the macro group
N      trajectories sampled for one blueprint: the micro group
K      sub-goals of a blueprint
B      packed sequences of an update (one blueprint or one segment each)
T      tokens of a packed sequence
====== =====================================================================
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np

Cell = tuple[int, int]
"""(row, column), zero-based from the top-left corner of the board, border included."""


class Item(Protocol):
    """What an episode starts from: a Sokoban level, a shopping goal, a household game. Called a level elsewhere."""

    @property
    def text(self) -> str:
        """All that makes it what it is: records and hashes are made from this; two items with one text are one."""

    @property
    def title(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Level:
    """One Sokoban puzzle: a rectangle of XSB characters.

    ``#`` wall, space floor, ``.`` target, ``$`` box, ``*`` box on target, ``@`` player, ``+`` player on target.
    """

    rows: tuple[str, ...]
    title: str = ""
    optimal_moves: int | None = None
    optimal_pushes: int | None = None
    author: str = ""
    comments: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return "\n".join(self.rows)

    @property
    def n_boxes(self) -> int:
        return sum(row.count("$") + row.count("*") for row in self.rows)


@dataclass(frozen=True, slots=True)
class SubGoal:
    """One line of a blueprint, in the words of its task."""

    text: str


class Invalid(Enum):
    """Why a blueprint cannot be executed. The value is the sentence a person reads."""

    EMPTY = "the blueprint has no sub-goal"
    UNFINISHED = "the blueprint was cut off before its end token"
    TOO_LONG = "the blueprint has too many sub-goals"
    SYNTAX = "a line is not of the form 'push the box at (r,c) right to (r,c)'"
    GEOMETRY = "the two cells of a sub-goal do not lie on one line in the direction that it names"
    LONG_LINE = "a line is longer than a sub-goal may be"


@dataclass(frozen=True, slots=True)
class Blueprint:
    """z = (g_1 … g_K): what the planner wrote, and what the executor will be given.

    An invalid blueprint has no sub-goals; it counts as a failed member of its group.
    """

    text: str
    subgoals: tuple[SubGoal, ...] = ()
    invalid: Invalid | None = None


class Role(Enum):
    """Which policy a sequence belongs to; decides the prompt and the phase that trains it."""

    PLANNER = "planner"
    EXECUTOR = "executor"
    FLAT = "flat"
    DRIVEN = "driven"  # an executor that cannot say <sub_done>: a clock or a check ends its sub-goals


class End(Enum):
    """How a segment ended."""

    SUB_DONE = "sub_done"  # the executor wrote <sub_done>
    BUDGET = "budget"  # the sub-goal used up its step budget: left without <sub_done>
    VERIFIED = "verified"  # a check of the environment found the sub-goal done
    SUCCESS = "success"  # the episode was solved
    OVER = "over"  # the environment ended the episode, and it was not solved
    TRUNCATED = "truncated"  # the episode used up its step limit
    PLAN = "plan"  # a planner's sequence: it ends with the end token or at its length limit


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """One packed training sequence: a blueprint, a segment, or a flat episode.

    ``ids[:prompt_len]`` is the prompt. ``action_mask[t]`` is true where the model itself chose ``ids[t]``;
    observations and forced continuations are false. ``logp[t]`` is the behaviour log-probability of ``ids[t]``
    at the temperature it was sampled with, 0 where ``action_mask`` is false.
    """

    role: Role
    ids: tuple[int, ...]
    prompt_len: int
    action_mask: tuple[bool, ...]
    logp: tuple[float, ...]
    end: End
    text: str = ""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One episode: the blueprint it executed (none for flat play), its sequences, and what came of it.

    progress: how much of the goal was reached, in [0, 1]. transcript: (action, observation) of each step, where both
    are texts; empty for a task whose `moves` say it all. told: the sub-goal of each segment, which replanning may have
    changed. plans: blueprints that were written on the way. gains: change of the executor's potential over each
    segment, if it has one. states: what the state was at each choice of each segment, where credit compares states.
    """

    blueprint: Blueprint | None
    segments: tuple[TokenSequence, ...]
    moves: str
    ret: float
    success: bool
    steps: int
    segment_moves: tuple[int, ...] = ()
    progress: float = 0.0
    transcript: tuple[tuple[str, str], ...] = ()
    told: tuple[SubGoal, ...] = ()
    plans: tuple[TokenSequence, ...] = ()
    gains: tuple[float, ...] = ()
    states: tuple[tuple[Hashable, ...], ...] = ()

    @property
    def n_tokens(self) -> int:
        """Tokens the model generated (its own choices), over all segments and what was planned on the way."""
        return sum(sum(s.action_mask) for s in (*self.segments, *self.plans))


@dataclass(frozen=True, slots=True)
class MacroGroup:
    """G blueprints of one level, each scored by one execution: what phase A learns from."""

    level: Item
    plans: tuple[TokenSequence, ...]
    executions: tuple[Trajectory, ...]


@dataclass(frozen=True, slots=True)
class MicroGroup:
    """N executions of one blueprint z* (or N flat episodes) of one level: what phase B learns from."""

    level: Item
    blueprint: Blueprint | None
    trajectories: tuple[Trajectory, ...]


@dataclass(frozen=True)
class Credited:
    """A packed sequence, the advantage of the group member that it belongs to, and the base model's opinion of it.

    advantage: one for all of its tokens, or one for each generated token. reference: log-probability of each generated
    token under the base model; empty without a KL term. level: the name of its group's level, for messages.
    """

    sequence: TokenSequence
    advantage: float | tuple[float, ...]
    reference: tuple[float, ...] = ()
    level: str = ""


@dataclass(frozen=True)
class Sampling:
    """How a policy is sampled: temperature 0 is greedy; any other needs a generator, which makes it reproducible."""

    temperature: float = 1.0
    rng: np.random.Generator | None = None


GREEDY = Sampling(0.0)
