"""Sokoban as a text task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np

from himac_lite.errors import LevelError
from himac_lite.tasks import Action, Words, World, marks
from himac_lite.tasks.sokoban import instructions, language, pixels
from himac_lite.tasks.sokoban.levels import load_levels
from himac_lite.tasks.sokoban.rules import MOVES, Board, Outcome, board_from_level, rows_of, step
from himac_lite.tasks.sokoban.solver import Push, Solution, pushes_of, solve
from himac_lite.types import Blueprint, Invalid, Level, Role, SubGoal, Trajectory

__all__ = ["Push", "SokobanEpisode", "SokobanTask", "pushes_of"]

MAX_STATES = 200_000
"""States of the search for an optimal length that a file does not have: about a second for a level."""
TILE = 28
"""Pixels per cell of the picture for a model: one place of a Qwen2-VL prompt."""


@dataclass
class SokobanEpisode:
    """One episode: the board and the moves so far (LURD, pushes in capitals, with blocked moves)."""

    board: Board
    moves: str = ""
    steps: int = 0

    @property
    def success(self) -> bool:
        return self.board.solved

    @property
    def over(self) -> bool:
        return self.success

    @property
    def transcript(self) -> tuple[tuple[str, str], ...]:
        return ()

    @property
    def progress(self) -> float:
        return self.board.boxes_on_target / max(1, len(self.board.boxes))

    def prompt(self, role: Role, subgoal: SubGoal | None = None) -> str:
        return language.prompt(role, self.board, subgoal)

    def describe(self, role: Role, subgoal: SubGoal | None = None) -> Words:
        return instructions.words(role, self.board, subgoal)

    def show(self, role: Role, subgoal: SubGoal | None = None) -> tuple[Words, np.ndarray]:
        return instructions.words(role, self.board, subgoal, picture=True), pixels.to_rgb(self.board, TILE)

    def reached(self, subgoal: SubGoal) -> bool:
        """Whether 'push the box at A … to B' is done: no box at A, a box at B. An unreadable one is never done."""
        push = language.parse_push(subgoal.text)
        return not isinstance(push, Invalid) and push[2] in self.board.boxes and push[0] not in self.board.boxes

    def legal(self) -> Sequence[Action]:
        return range(len(MOVES))

    def act(self, action: Action) -> str:
        """Make the move of this index."""
        move = MOVES[int(action)]
        self.board, outcome = step(self.board, move)
        self.moves += move.upper() if outcome is Outcome.PUSHED else move
        self.steps += 1
        return language.observation_text(outcome, self.board.player)


@dataclass(frozen=True)
class SokobanTask:
    """Sokoban levels with sides of up to `language.MAX_SIDE` cells."""

    max_steps: int = 50
    subgoal_budget: int = 20
    actions: tuple[str, ...] = language.ACTIONS
    sub_done: str = marks.SUB_DONE
    end: str = marks.END
    max_plan_tokens: int = 4 * language.MAX_SUBGOALS + 1
    longest_plan: str = ("\n" + language.subgoal_text((8, 8), "right", (8, 9))) * language.MAX_SUBGOALS
    max_action_tokens: int = 1
    bins: tuple[tuple[int, int], ...] = ((0, 8), (9, 12), (13, 16), (17, 25), (26, 10_000))

    def difficulty(self, item: Level) -> int:
        """Optimal moves, from the level file or from a short search; 0 if neither knows a solution."""
        if item.optimal_moves is not None:
            return item.optimal_moves
        solution = _solution(item.rows)
        return solution.moves if solution else 0

    def start(self, item: Level) -> SokobanEpisode:
        board = board_from_level(item)
        if max(board.height, board.width) > language.MAX_SIDE:
            raise LevelError(
                f"level {item.title!r} is {board.height}x{board.width}; the model reads boards up to "
                f"{language.MAX_SIDE}x{language.MAX_SIDE}"
            )
        return SokobanEpisode(board)

    def midway(self, item: Level, trajectory: Trajectory) -> Level:
        """The board at the end of a trajectory. An episode from it has all of its steps."""
        board = board_from_level(item)
        for move in trajectory.moves.lower():
            board, _ = step(board, move)
        return Level(rows_of(board), f"{item.title} after {trajectory.steps} moves".strip())

    def parse_blueprint(self, text: str, finished: bool) -> Blueprint:
        return language.parse_blueprint(text, finished)

    def oracle(self, item: Level) -> Blueprint:
        solution = solve(item)
        if solution is None:
            raise LevelError(f"level {item.title!r} has no solution")
        pushes = pushes_of(board_from_level(item), solution.lurd)
        subgoals = tuple(SubGoal(language.subgoal_text(*p)) for p in pushes)
        return Blueprint(language.format_blueprint(subgoals), subgoals)


@lru_cache(maxsize=1 << 16)
def _solution(rows: tuple[str, ...]) -> Solution | None:
    return solve(Level(rows), max_states=MAX_STATES)


WORLD = World("sokoban", SokobanTask, partial(load_levels, max_side=language.MAX_SIDE))
"""The default settings are this task's."""
