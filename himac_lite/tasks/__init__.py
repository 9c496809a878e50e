"""The protocol of a text task: everything that rollouts and training know about an environment.

`registry` has the tasks by name. No module above this one depends on a particular task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from himac_lite.errors import ConfigError
from himac_lite.types import Blueprint, Item, Role, SubGoal, Trajectory

Action = int | str
"""An index into the task's `actions`, or the text in a task with written actions."""

PARTS = ("train", "validation", "test")
"""Parts of a split of items."""


class Episode(Protocol):
    """One running episode. It ends when `over` is true or `steps` reaches the task's limit.

    Its resources (a process, a connection) are released with the last reference to it.
    """

    steps: int

    @property
    def moves(self) -> str:
        """The actions so far, for display."""

    @property
    def success(self) -> bool: ...

    @property
    def over(self) -> bool:
        """No action is possible any more: the episode is solved, or the environment ended it."""

    @property
    def progress(self) -> float:
        """The share of the goal that is reached, in [0, 1]; 1 exactly on success."""

    @property
    def transcript(self) -> tuple[tuple[str, str], ...]:
        """(action, observation) of each step; empty if `moves` is sufficient."""

    def prompt(self, role: Role, subgoal: SubGoal | None = None) -> str:
        """The prompt of this role in the current state."""

    def legal(self) -> Sequence[Action]:
        """The actions of the random policy, at least one. The environment answers other actions too."""

    def act(self, action: Action) -> str:
        """Take one action and return the observation text after it. Never raises: a bad action costs a step."""


class Task(Protocol):
    """A family of episodes with one grammar of actions and one language of sub-goals."""

    @property
    def actions(self) -> Sequence[str]:
        """The fixed action texts, with distinct first tokens; empty if actions are written as text, one per line."""

    @property
    def max_action_tokens(self) -> int:
        """Maximum tokens of a written action; a longer one is truncated and passed to the environment."""

    @property
    def sub_done(self) -> str: ...

    @property
    def end(self) -> str: ...

    @property
    def max_steps(self) -> int:
        """Step limit of an episode."""

    @property
    def subgoal_budget(self) -> int:
        """Maximum steps of a sub-goal without `sub_done`."""

    @property
    def max_plan_tokens(self) -> int: ...

    @property
    def bins(self) -> Sequence[tuple[int, int]]:
        """Bins of `difficulty` for tables, inclusive; the last bin has no upper limit."""

    # Items are `Any`, because each task accepts only its own kind.

    def difficulty(self, item: Any) -> int:
        """Steps of an optimal solution; 0 if none exists or none is known."""

    def start(self, item: Any) -> Episode: ...

    def parse_blueprint(self, text: str, finished: bool) -> Blueprint: ...

    def oracle(self, item: Any) -> Blueprint:
        """A blueprint that solves the item."""


@dataclass(frozen=True, slots=True)
class Words:
    """A prompt in plain language. rules: of the game and of the answer. situation: the state and the sub-goal."""

    rules: str
    situation: str


@runtime_checkable
class Describes(Protocol):
    """An episode with prompts in plain language, for models that were not trained on the task's own prompts."""

    def describe(self, role: Role, subgoal: SubGoal | None = None) -> Words: ...


@runtime_checkable
class Reaches(Protocol):
    """An episode that can tell, without a solver, whether a sub-goal is reached."""

    def reached(self, subgoal: SubGoal) -> bool: ...


@runtime_checkable
class Continues(Protocol):
    """A task whose episodes can begin where another episode ended."""

    def midway(self, item: Any, trajectory: Trajectory) -> Any:
        """The state at the end of the trajectory of `item`, as an item."""


@dataclass(frozen=True)
class World:
    """What ``--task`` chooses: a task with its items and settings. docs/cookbook.md has one of your own."""

    name: str
    """A plain Python name: what the configuration, folders and tables call it."""
    make: Callable[[int, int], Task]
    """(max_steps, subgoal_budget) → the task."""
    load: Callable[[str, str | None], Sequence[Any]]
    """(source, part) → items: of a split, of the `part` of a file, or with None of the whole file."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Setting, such as ``rollout.max_steps``, → value, where it is not the default of `settings.Train`."""

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ConfigError(f"the name of a task must be a plain Python name, not {self.name!r}")


__all__ = [
    "PARTS", "Action", "Continues", "Describes", "Episode", "Item", "Reaches", "Task", "Words", "World",
]  # fmt: skip
