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
    """What one role read and wrote: a blueprint, a segment, or a flat episode.

    ``ids[:prompt_len]`` is the prompt. ``action_mask[t]`` is true where the model sampled ``ids[t]``; observations and
    forced continuations are false. ``logp[t]`` is the behaviour log-probability of ``ids[t]`` at the temperature and
    under the constraint it was sampled with, 0 where ``action_mask`` is false.
    """

    role: Role
    ids: tuple[int, ...]
    prompt_len: int
    action_mask: tuple[bool, ...]
    logp: tuple[float, ...]
    end: End
    text: str = ""
    allowed: tuple[int, ...] | None = None
    """The token ids that the model could choose from; None: all. The update scores under the same constraint."""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One episode: the blueprint it executed (None for flat play), its segments, and its outcome."""

    blueprint: Blueprint | None
    segments: tuple[TokenSequence, ...]
    moves: str
    ret: float
    success: bool
    steps: int
    segment_moves: tuple[int, ...] = ()
    """Environment steps of each segment."""
    progress: float = 0.0
    """Share of the goal that was reached, in [0, 1]."""
    transcript: tuple[tuple[str, str], ...] = ()
    """(action, observation) of each step, where both are texts; empty for a task whose `moves` say it all."""
    told: tuple[SubGoal, ...] = ()
    """The sub-goal of each segment, which replanning may have changed."""
    replans: tuple[TokenSequence, ...] = ()
    """Blueprints that were written during the episode."""
    gains: tuple[float, ...] = ()
    """Change of the executor's potential over each segment, if there is a potential."""
    states: tuple[tuple[Hashable, ...], ...] = ()
    """The state at each choice of each segment, where credit compares states."""
    blueprint_tokens: TokenSequence | None = None
    """The planner's tokens of `blueprint`, in a macro group, which trains them."""

    @property
    def n_tokens(self) -> int:
        """Tokens that the model sampled during the episode: in its segments and its replans."""
        return sum(sum(s.action_mask) for s in (*self.segments, *self.replans))


@dataclass(frozen=True, slots=True)
class Group:
    """Trajectories of one level whose returns are compared.

    Macro group: G blueprints, each executed once. Micro group: N executions of one blueprint z*, or N flat episodes.
    """

    level: Item
    trajectories: tuple[Trajectory, ...]

    @property
    def blueprint(self) -> Blueprint | None:
        """z* of a micro group; None for flat play."""
        return self.trajectories[0].blueprint


@dataclass(frozen=True)
class Credited:
    """A sequence with what an update needs to know about it."""

    sequence: TokenSequence
    advantage: float | tuple[float, ...]
    """One for all of its tokens, or one for each generated token."""
    reference: tuple[float, ...] = ()
    """Log-probability of each generated token under the base model; empty without a KL term."""
    level: str = ""
    """The name of its group's level, for messages."""


@dataclass(frozen=True)
class Sampling:
    """How a policy is sampled: temperature 0 is greedy; any other needs a generator, which makes it reproducible."""

    temperature: float = 1.0
    rng: np.random.Generator | None = None

    @property
    def generator(self) -> np.random.Generator:
        """The generator. Raises ValueError where none was given."""
        if self.rng is None:
            raise ValueError("sampling at a temperature needs rng, a numpy.random.Generator")
        return self.rng


GREEDY = Sampling(0.0)
