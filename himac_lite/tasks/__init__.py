"""A text task: all that rollouts know of an environment. Sokoban is the first member; `registry` knows them all.

Nothing above this module may ask which task it serves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from himac_lite.types import Blueprint, Item, Role, SubGoal

Action = int | str
"""An index into the task's `actions` or, in a task whose actions are written, the text."""


class Episode(Protocol):
    """One running episode. It is finished when `over` is true or `steps` has reached the task's limit.

    Whatever it holds (a process, a connection) goes with the last reference to it.
    """

    steps: int

    @property
    def moves(self) -> str:
        """The actions so far, for people."""
        ...

    @property
    def success(self) -> bool: ...

    @property
    def over(self) -> bool:
        """No action is possible any more: it was solved, or the environment ended it."""
        ...

    @property
    def progress(self) -> float:
        """How much of the goal is reached, in [0, 1]; 1 exactly on success."""
        ...

    @property
    def transcript(self) -> tuple[tuple[str, str], ...]:
        """(action, observation) of each step; empty where `moves` says it all."""
        ...

    def prompt(self, role: Role, subgoal: SubGoal | None = None) -> str:
        """What this role reads now."""
        ...

    def legal(self) -> Sequence[Action]:
        """What the random policy draws from, at least one; other actions get the environment's own answer."""
        ...

    def act(self, action: Action) -> str:
        """Take one action and return the observation text that follows it. Total: a bad action costs a step."""
        ...


class Task(Protocol):
    """A family of episodes with one grammar of actions and one language of sub-goals."""

    @property
    def actions(self) -> Sequence[str]:
        """Action texts, if they are always the same; their first tokens must differ.

        Empty: actions are written as text, one a line.
        """
        ...

    @property
    def max_action_tokens(self) -> int:
        """A written action is cut off at so many tokens; the environment answers what is there."""
        ...

    @property
    def sub_done(self) -> str: ...

    @property
    def end(self) -> str: ...

    @property
    def max_steps(self) -> int:
        """Step limit of an episode."""
        ...

    @property
    def subgoal_budget(self) -> int:
        """Steps after which a sub-goal is left without `sub_done`."""
        ...

    @property
    def max_plan_tokens(self) -> int: ...

    @property
    def bins(self) -> Sequence[tuple[int, int]]:
        """Bins of `difficulty`, inclusive, for tables; the last is open."""
        ...

    # A task's own kind of item: `Any`, because a member accepts no other's.

    def difficulty(self, item: Any) -> int:
        """Length of an optimal solution in steps; 0 where there is none, or none is known."""
        ...

    def start(self, item: Any) -> Episode: ...

    def parse_blueprint(self, text: str, finished: bool) -> Blueprint: ...

    def oracle(self, item: Any) -> Blueprint:
        """A blueprint that solves the item."""
        ...


@dataclass(frozen=True, slots=True)
class Words:
    """What a role reads, in plain words. rules: of the game and the answer; situation: the position, the sub-goal."""

    rules: str
    situation: str


@runtime_checkable
class Describes(Protocol):
    """An episode that can say its prompt in plain language, for models that do not know the small model's words."""

    def describe(self, role: Role, subgoal: SubGoal | None = None) -> Words: ...


__all__ = ["Action", "Describes", "Episode", "Item", "Task", "Words"]
