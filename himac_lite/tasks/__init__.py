"""A text task: all that rollouts know of an environment. Sokoban is the first member.

Nothing above this module may ask which task it serves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from himac_lite.types import Blueprint, Level, Role, SubGoal


class Episode(Protocol):
    """One running episode. It is finished when `success` is true or `steps` has reached the task's limit."""

    steps: int
    moves: str

    @property
    def success(self) -> bool: ...

    @property
    def progress(self) -> float:
        """How much of the goal is reached, in [0, 1]; 1 exactly on success."""
        ...

    def prompt(self, role: Role, subgoal: SubGoal | None = None) -> str:
        """What this role reads now."""
        ...

    def act(self, action: int) -> str:
        """Take one action (an index into the task's `actions`) and return the observation text that follows it."""
        ...


class Task(Protocol):
    """A family of episodes with one action alphabet and one language of sub-goals."""

    @property
    def actions(self) -> Sequence[str]:
        """Action texts; their first tokens must differ."""
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

    def start(self, level: Level) -> Episode: ...

    def parse_blueprint(self, text: str, finished: bool) -> Blueprint: ...

    def oracle(self, level: Level) -> Blueprint:
        """A blueprint that solves the level."""
        ...
