"""Shared parts of tasks with written actions: prompts, the blueprint parser, the transcript of an episode.

- planner:  ``<plan>`` observation ``Plan:`` → sub-goals, a line each, end token
- executor: ``<act>`` observation, ``Sub-goal:`` … ``>`` → action, line break, observation ``>`` … ``<sub_done>``
- flat:     ``<play>`` observation ``>`` → action, line break, observation ``>`` … until the episode ends

The executor's observation is from the start of the segment, which is HiMAC's temporal mask. No text of a model raises
an exception.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from himac_lite.errors import TaskError
from himac_lite.tasks import PARTS, Words
from himac_lite.tasks.marks import END, MARK, SUB_DONE
from himac_lite.types import Blueprint, Invalid, Role, SubGoal

CUE = "\n>"
"""After this the model writes its next action."""
PLAN = "\nPlan:"
GOAL = "\nSub-goal: "
MAX_SUBGOALS = 12
MAX_LINE = 240
"""Maximum characters of a sub-goal."""
MAX_OBSERVATION = 6000
"""Maximum characters of an observation in a prompt; a longer one is truncated and ends with `CUT`."""
CUT = " [...]"
SETTINGS = {"update.epochs": 1, "update.groups_per_step": 2, "update.minibatches": 8, "update.lr": 2e-3}
"""Settings of training. A long episode makes a second pass over a phase cost as much as twice the experience, and there
are few iterations; so the steps are more and larger instead."""


def shown(observation: str) -> str:
    """An observation, truncated for a prompt."""
    return observation if len(observation) <= MAX_OBSERVATION else observation[:MAX_OBSERVATION] + CUT


def prompt(role: Role, observation: str, subgoal: SubGoal | None = None) -> str:
    """The prompt of a role; the executor needs its active sub-goal."""
    end = PLAN if role is Role.PLANNER else f"{GOAL}{subgoal.text}{CUE}" if subgoal else CUE
    return f"{MARK[role]}\n{shown(observation)}{end}"


def describe(
    world: str, subgoals: tuple[str, ...], role: Role, observation: str, subgoal: SubGoal | None = None
) -> Words:
    """The prompt of a role in plain language, for models that were not trained on `prompt`.

    world: the rules and the actions. subgoals: examples for the planner.
    """
    asked = {
        Role.PLANNER: (
            f"Write a plan before you act: one sub-goal a line, at most {MAX_SUBGOALS} lines, in plain words, and "
            "nothing else. Sub-goals look like this:\n" + "\n".join(subgoals)
        ),
        Role.EXECUTOR: (
            "You carry out one sub-goal of a plan. Answer each time with one action and nothing else; or with "
            f"{SUB_DONE} when the sub-goal is reached."
        ),
    }.get(role, "Answer each time with one action and nothing else.")
    goal = f"{GOAL}{subgoal.text}" if subgoal else ""
    return Words(f"{world}\n{asked}", f"{shown(observation)}{goal}")


def parse_blueprint(text: str, finished: bool = True) -> Blueprint:
    """Text → blueprint: each line is a sub-goal. Never raises: an invalid blueprint has a reason and no sub-goals.

    finished: whether the planner wrote the end token.
    """
    if not finished:
        return Blueprint(text, (), Invalid.UNFINISHED)
    lines = [line.strip() for line in text.split("\n", 4 * MAX_SUBGOALS) if line.strip()]
    if not lines:
        return Blueprint(text, (), Invalid.EMPTY)
    if len(lines) > MAX_SUBGOALS:
        return Blueprint(text, (), Invalid.TOO_LONG)
    if max(map(len, lines)) > MAX_LINE:
        return Blueprint(text, (), Invalid.LONG_LINE)
    return Blueprint(text, tuple(map(SubGoal, lines)))


def written_plan(subgoals: list[str]) -> Blueprint:
    """The blueprint of these sub-goals, as a planner writes it."""
    return Blueprint("".join("\n" + g for g in subgoals), tuple(map(SubGoal, subgoals)))


def known_part(source: str, part: str, parts: Sequence[str] = PARTS) -> str:
    """`part` of a split. Raises `TaskError` that lists the parts if it is unknown."""
    if part not in parts:
        world = source.partition("/")[0]
        raise TaskError(f"unknown split {source!r}; choose one of {', '.join(f'{world}/{p}' for p in parts)}")
    return part


class TextTask:
    """Base class of the tasks whose blueprints are lines of text."""

    actions: tuple[str, ...] = ()
    sub_done = SUB_DONE
    end = END

    def parse_blueprint(self, text: str, finished: bool) -> Blueprint:
        return parse_blueprint(text, finished)


@dataclass
class Transcript:
    """The steps of an episode: (action, observation) pairs."""

    steps: int = 0
    seen: list[tuple[str, str]] = field(default_factory=list)

    @property
    def moves(self) -> str:
        """The actions so far, one per line."""
        return "\n".join(action for action, _ in self.seen)

    @property
    def transcript(self) -> tuple[tuple[str, str], ...]:
        return tuple(self.seen)

    def note(self, action: str, observation: str) -> str:
        """Record a step and return the text after the action in the model's context."""
        self.steps += 1
        self.seen.append((shown(action), observation))
        return f"{shown(observation)}{CUE}"
