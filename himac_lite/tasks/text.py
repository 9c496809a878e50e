"""What tasks with written actions share: their prompts, how a blueprint is read, and an episode's transcript.

- planner:  ``<plan>`` observation ``Plan:`` → sub-goals, a line each, end token
- executor: ``<act>`` observation, ``Sub-goal:`` … ``>`` → action, line break, observation ``>`` … ``<sub_done>``
- flat:     ``<play>`` observation ``>`` → action, line break, observation ``>`` … until the episode ends

The executor's observation is the one at the start of the segment: HiMAC's temporal mask. Total: what a model writes is
never an exception.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from himac_lite.tasks import Words
from himac_lite.tasks.marks import END, MARK, SUB_DONE
from himac_lite.types import Blueprint, Invalid, Role, SubGoal

CUE = "\n>"
"""Where the model writes its next action."""
PLAN = "\nPlan:"
GOAL = "\nSub-goal: "
MAX_SUBGOALS = 12
MAX_LINE = 240
"""Characters of a sub-goal."""
MAX_OBSERVATION = 6000
"""Characters of an observation that a model is shown; the rest is cut off, and `CUT` says so."""
CUT = " [...]"

__all__ = [
    "CUE", "END", "PLAN", "SUB_DONE", "Transcript", "describe", "parse_blueprint", "prompt", "shown", "written_plan",
]  # fmt: skip


def shown(observation: str) -> str:
    """An observation as a model sees it."""
    return observation if len(observation) <= MAX_OBSERVATION else observation[:MAX_OBSERVATION] + CUT


def prompt(role: Role, observation: str, subgoal: SubGoal | None = None) -> str:
    """The prompt of a role; the executor needs its active sub-goal."""
    end = PLAN if role is Role.PLANNER else f"{GOAL}{subgoal.text}{CUE}" if subgoal else CUE
    return f"{MARK[role]}\n{shown(observation)}{end}"


def describe(
    world: str, subgoals: tuple[str, ...], role: Role, observation: str, subgoal: SubGoal | None = None
) -> Words:
    """What a role reads in plain language, for models that were not taught these prompts.

    world: what is played and what the actions are. subgoals: examples, for the planner.
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
    """Text → blueprint: any line is a sub-goal. Never raises; an invalid blueprint carries its reason and no sub-goals.

    finished: whether the planner ended it by itself.
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


@dataclass
class Transcript:
    """The steps of an episode: what was done, and what was seen after it."""

    steps: int = 0
    seen: list[tuple[str, str]] = field(default_factory=list)

    @property
    def moves(self) -> str:
        """The actions so far, one a line."""
        return "\n".join(action for action, _ in self.seen)

    @property
    def transcript(self) -> tuple[tuple[str, str], ...]:
        return tuple(self.seen)

    def note(self, action: str, observation: str) -> str:
        """Write a step down; returns what follows the action in a model's context."""
        self.steps += 1
        self.seen.append((shown(action), observation))
        return f"{shown(observation)}{CUE}"
