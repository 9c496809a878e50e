"""Frozen types for every hand-off between modules.

Letters of axes in names (``return_pg``), shape comments and docstrings:

====== =====================================================================
letter meaning
====== =====================================================================
P      levels of an iteration
G      blueprints of a macro group
N      trajectories of a micro group
K      sub-goals of a blueprint
B      token sequences of a batch
T      tokens of a sequence
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
    """The start of an episode in any task; elsewhere it is called a level."""

    @property
    def text(self) -> str:
        """The whole content. Records and hashes use it; items with equal texts are equal."""

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
    """One line of a blueprint, in the language of its task."""

    text: str


class Invalid(Enum):
    """Why a blueprint cannot be executed. The value is the message for people."""

    EMPTY = "the blueprint has no sub-goal"
    UNFINISHED = "the blueprint was cut off before its end token"
    TOO_LONG = "the blueprint has too many sub-goals"
    SYNTAX = "a line is not of the form 'push the box at (r,c) right to (r,c)'"
    GEOMETRY = "the two cells of a sub-goal do not lie on one line in the direction that it names"
    LONG_LINE = "a line is longer than a sub-goal may be"


@dataclass(frozen=True, slots=True)
class Blueprint:
    """z = (g_1 … g_K): the planner's text and the sub-goals parsed from it.

    An invalid blueprint has no sub-goals. It is a failed member of its group.
    """

    text: str
    subgoals: tuple[SubGoal, ...] = ()
    invalid: Invalid | None = None


class Role(Enum):
    """The part that the model plays in a sequence; it decides the prompt and the phase that trains it."""

    PLANNER = "planner"
    EXECUTOR = "executor"
    FLAT = "flat"
    DRIVEN = "driven"  # an executor without <sub_done>: a step count or a check ends its sub-goals


class End(Enum):
    """How a segment ended."""

    SUB_DONE = "sub_done"  # the executor wrote <sub_done>
    BUDGET = "budget"  # the sub-goal used up its budget
    VERIFIED = "verified"  # a check found that the sub-goal is done
    SUCCESS = "success"  # the episode succeeded
    OVER = "over"  # the environment ended the episode without success
    TRUNCATED = "truncated"  # the episode used up its step limit
    PLAN = "plan"  # a planner's sequence, ended by the end token or the length limit


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """A prompt and what followed it: one blueprint, one segment or one flat episode.

    ``ids[:prompt_len]`` is the prompt. ``action_mask[t]`` is true where the model sampled ``ids[t]``, and false for
    observations and forced tokens. ``logp[t]`` is the behaviour log-prob of ``ids[t]`` in nats, at the temperature and
    under the constraint of sampling; it is 0 where ``action_mask`` is false.
    """

    role: Role
    ids: tuple[int, ...]
    prompt_len: int
    action_mask: tuple[bool, ...]
    logp: tuple[float, ...]
    end: End
    text: str = ""
    allowed: tuple[int, ...] | None = None
    """The token ids that sampling could choose from; None: all. The update scores under the same constraint."""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """The record of one episode: its blueprint (None for flat play), segments, return and steps."""

    blueprint: Blueprint | None
    segments: tuple[TokenSequence, ...]
    moves: str
    ret: float
    success: bool
    steps: int
    segment_moves: tuple[int, ...] = ()
    """Environment steps of each segment."""
    progress: float = 0.0
    """Share of the goal that was reached, from 0 to 1."""
    transcript: tuple[tuple[str, str], ...] = ()
    """(action, observation) of each step of a text-action task; empty if `moves` describes the episode."""
    told: tuple[SubGoal, ...] = ()
    """The sub-goal of each segment, after any replanning."""
    replans: tuple[TokenSequence, ...] = ()
    """Blueprints that were written during the episode."""
    gains: tuple[float, ...] = ()
    """Change of the executor's potential over each segment; empty without a potential."""
    states: tuple[tuple[Hashable, ...], ...] = ()
    """The state at each choice of each segment; empty unless the variant records states."""
    blueprint_tokens: TokenSequence | None = None
    """The tokens of `blueprint`, which a macro group trains; None elsewhere."""

    @property
    def n_tokens(self) -> int:
        """Tokens that the model sampled during the episode: in its segments and its replans."""
        return sum(sum(s.action_mask) for s in (*self.segments, *self.replans))


@dataclass(frozen=True, slots=True)
class Group:
    """Trajectories of one level that are compared with each other.

    Macro group: G blueprints, each executed once. Micro group: N executions of z*, or N flat episodes.
    """

    level: Item
    trajectories: tuple[Trajectory, ...]

    @property
    def blueprint(self) -> Blueprint | None:
        """z* of a micro group; None for flat play."""
        return self.trajectories[0].blueprint


@dataclass(frozen=True)
class Credited:
    """A token sequence with its advantage and, for a KL term, its reference."""

    sequence: TokenSequence
    advantage: float | tuple[float, ...]
    """One number for all generated tokens, or one for each."""
    reference: tuple[float, ...] = ()
    """Log-probability of each generated token under the reference; empty without a KL term."""
    level: str = ""
    """The name of the group's level, for messages."""


@dataclass(frozen=True)
class Sampling:
    """How a policy is sampled: greedily at temperature 0, otherwise with random numbers from `rng`."""

    temperature: float = 1.0
    rng: np.random.Generator | None = None

    @property
    def generator(self) -> np.random.Generator:
        """`rng`. Raises ValueError if it is None."""
        if self.rng is None:
            raise ValueError("sampling at a temperature needs rng, a numpy.random.Generator")
        return self.rng


GREEDY = Sampling(0.0)
