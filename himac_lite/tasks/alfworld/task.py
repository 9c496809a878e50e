"""ALFWorld as a text task: downloaded games, or our small household games, in the original engine."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from himac_lite import storage
from himac_lite.errors import TaskError
from himac_lite.tasks import Action, Words, World, text
from himac_lite.tasks.alfworld.client import Connection, Lost
from himac_lite.tasks.alfworld.house import RECEPTACLES, THINGS, House, from_text, problem, solution, subgoals_of
from himac_lite.types import Blueprint, Role, SubGoal

MAX_STEPS = 50
"""Step limit of an episode, as in the benchmark."""
USERS = ("train", "valid_seen", "valid_unseen")
"""Splits of the benchmark: folders in ``$ALFWORLD_DATA/json_2.1.1``."""
MAX_GAME = 20_000_000
"""Bytes of the largest game file that is read."""


# Items


@dataclass(frozen=True)
class HouseGame:
    """One of our generated games."""

    house: House

    @property
    def text(self) -> str:
        return self.house.text

    @property
    def title(self) -> str:
        return self.house.title

    @cached_property
    def commands(self) -> tuple[str, ...]:
        """Commands that win the game."""
        return tuple(solution(self.house))

    def told(self) -> dict[str, str]:
        """The message for the engine's server."""
        house = self.house
        types = {"thing": THINGS[house.thing].type, "receptacle": RECEPTACLES.get(house.receptacle, "")}
        return {"problem": problem(house, "GOAL"), "task": house.task, "title": self.title, **types}


@dataclass(frozen=True)
class GameFile:
    """A game file of the user, ``game.tw-pddl``."""

    path: Path
    name: str
    """Its path below the requested folder: task, object, receptacle and trial."""

    @property
    def text(self) -> str:
        return f"{self.name} {self._digest}"

    @property
    def title(self) -> str:
        return self.name

    @cached_property
    def _digest(self) -> str:
        return hashlib.sha256(self.path.read_bytes()).hexdigest()[:16] if self.path.is_file() else "missing"

    @cached_property
    def commands(self) -> tuple[str, ...]:
        """The walkthrough in the file; empty if there is none."""
        found = _content(self.path).get("walkthrough")
        return tuple(map(str, found)) if isinstance(found, list) else ()

    def told(self) -> dict[str, str]:
        return {"file": str(self.path.resolve())}


def load(source: str, part: str | None = None) -> list[HouseGame | GameFile]:
    """Games of ``household/test`` (ours), ``alfworld/valid_seen`` (``$ALFWORLD_DATA``), or a folder or file of games.

    Raises `TaskError` that names the missing file or split, or the missing engine.
    """
    if find_spec("alfworld") is None:
        raise TaskError("ALFWorld is not installed: pip install 'himac-lite[alfworld]' (Linux or macOS)")
    name, _, own = source.partition("/")
    if name == "household":
        return list(our_games(text.known_part(source, own or part or "test")))
    if name == "alfworld":
        benchmark = {"validation": "valid_seen", "test": "valid_unseen"}.get(part or "test", "train")
        part = text.known_part(source, own or benchmark, USERS)
        data = os.environ.get("ALFWORLD_DATA")
        if not data:
            raise TaskError("$ALFWORLD_DATA is not set: set it to the folder of alfworld-download, or play household")
        return list(_games_below(Path(data) / "json_2.1.1" / part))
    return list(_games_below(Path(source)))


def our_games(part: str) -> list[HouseGame]:
    """Our generated games of a part."""
    file = storage.data_dir() / "household" / f"{part}.jsonl"
    return [HouseGame(from_text(line)) for line in file.read_text("utf-8").splitlines()]


def _games_below(folder: Path) -> list[GameFile]:
    """Every game of a folder that the original collects: no "Sliced" or "movable" games, no unsolvable games."""
    if folder.is_file():
        if not _content(folder):
            raise TaskError(f"{folder} is not a game: a game.tw-pddl of alfworld-download is a JSON object")
        return [GameFile(folder, folder.name)]
    files = sorted(folder.rglob("game.tw-pddl"))
    out = [
        GameFile(file, str(file.parent.relative_to(folder)))
        for file in files
        if not re.search("movable|Sliced", str(file.parent.relative_to(folder))) and _solvable(file)
    ]
    if not out:
        raise TaskError(f"{folder} holds no game.tw-pddl that can be solved")
    return out


def _solvable(file: Path) -> bool:
    """Whether a game file is solvable. True for an unreadable file: its episode reports the error."""
    return bool(_content(file).get("solvable", True))


def _content(file: Path) -> dict[str, Any]:
    """A game file; empty if it cannot be read, which is reported when the game is played."""
    try:
        found = json.loads(file.read_text("utf-8")) if file.stat().st_size <= MAX_GAME else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


# Task

_WORLD = (
    "You are in a room and do a household task. The actions are, with the names and numbers that you have read: "
    "go to desk 1, open drawer 1, close drawer 1, take mug 1 from desk 1, move mug 1 to desk 1, clean mug 1 with "
    "sinkbasin 1, heat mug 1 with microwave 1, cool mug 1 with fridge 1, use desklamp 1, look, inventory, examine "
    "mug 1. You hold one thing at a time, and see what is in a thing that opens only when it is open. What is not "
    "understood changes nothing."
)
_EXAMPLES = ("find and take a mug", "clean the mug with the sinkbasin", "put the mug on the desk")


@dataclass
class AlfworldEpisode(text.Transcript):
    """One episode in its own process. An error there ends only this episode, unsolved."""

    told: Mapping[str, Any] = field(kw_only=True)
    success: bool = False
    """Whether the engine's `won` was true at any step."""
    lost: str = ""
    """Why the episode cannot continue; empty while it can."""
    holding: str = ""
    _connection: Connection | None = None

    def __post_init__(self) -> None:
        try:
            self._connection = Connection(self.told)
            said = self._connection.state.seen
        except Lost as problem:
            self.lost, said = str(problem), ""
        parts = [part.strip() for part in said.split("\n\n") if part.strip() and "Welcome to TextWorld" not in part]
        self.room = parts[0] if parts else "There is no room."
        self.aim = parts[-1] if len(parts) > 1 else "Your task is to: nothing."

    @property
    def over(self) -> bool:
        return self.success or bool(self.lost)

    @property
    def progress(self) -> float:
        return float(self.success)

    def prompt(self, role: Role, subgoal: SubGoal | None = None) -> str:
        """The room, the task (not for the executor, who has a sub-goal), what is carried and the last observation."""
        return text.prompt(role, self._situation(role), subgoal)

    def describe(self, role: Role, subgoal: SubGoal | None = None) -> Words:
        return text.describe(_WORLD, _EXAMPLES, role, self._situation(role), subgoal)

    def _situation(self, role: Role) -> str:
        parts = [self.room] if role is Role.EXECUTOR else [self.room, self.aim]
        if self.steps:
            parts += at_hand(self.holding, self.seen[-1][1])
        return "\n".join(parts)

    def legal(self) -> Sequence[Action]:
        """The engine's admissible commands."""
        return (self._connection.state.commands if self._connection else ()) or ("look",)

    def act(self, action: Action) -> str:
        """The engine's answer; ``Nothing happens.`` to an unknown command."""
        command = str(action).strip()
        if self._connection is None:
            return self.note(command, "The game has ended.")
        try:
            state = self._connection.act(command)
        except Lost as problem:
            self.lost, self._connection = str(problem), None
            return self.note(command, "The game has ended.")
        self.success = self.success or state.won
        if found := re.match(r"You pick up the (.+?) from ", state.seen):
            self.holding = found[1]
        elif re.match(r"You (move|put) the ", state.seen):
            self.holding = ""
        return self.note(command, state.seen.strip())


def at_hand(holding: str, seen: str) -> list[str]:
    """The lines of a prompt about the current state, after the first step."""
    return [f"You carry: {holding or 'nothing'}.", seen]


@dataclass(frozen=True)
class AlfworldTask(text.TextTask):
    """Household tasks."""

    max_steps: int = MAX_STEPS
    subgoal_budget: int = 20
    max_action_tokens: int = 32
    max_plan_tokens: int = 160
    bins: tuple[tuple[int, int], ...] = ((0, 4), (5, 7), (8, 10), (11, 10_000))

    def difficulty(self, item: HouseGame | GameFile) -> int:
        """Number of commands in the game's solution."""
        return len(item.commands)

    def start(self, item: HouseGame | GameFile) -> AlfworldEpisode:
        return AlfworldEpisode(told=item.told())

    def oracle(self, item: HouseGame | GameFile) -> Blueprint:
        """Find, treat, put: from the game's solution. Raises `TaskError` for a game without one."""
        if not item.commands:
            raise TaskError(f"game {item.title!r} has no walkthrough to make a blueprint from")
        return text.written_plan([goal.text for goal in subgoals_of(item.commands)])


WORLD = World(
    "alfworld", AlfworldTask, load,
    {
        "train_levels": "household/train", "validation_levels": "household/validation",
        "test_levels": "household/test", "model.path": "alfworld-base", "rollout.levels": 8, "rollout.min_length": 0,
        "rollout.max_steps": MAX_STEPS, "rollout.subgoal_budget": 20, "validate_on": 48, "iterations": 10,
        **text.SETTINGS,
    },
)  # fmt: skip
