"""Sokoban as a text task."""

from __future__ import annotations

from dataclasses import dataclass

from himac_lite import language
from himac_lite.errors import LevelError
from himac_lite.sokoban.rules import MOVES, Board, Outcome, board_from_level, step
from himac_lite.sokoban.solver import Push, pushes_of, solve
from himac_lite.types import Blueprint, Level, Role, SubGoal

__all__ = ["Push", "SokobanEpisode", "SokobanTask", "pushes_of"]


@dataclass
class SokobanEpisode:
    """One game: the board, the moves so far (LURD, pushes in capitals, blocked moves included)."""

    board: Board
    moves: str = ""
    steps: int = 0

    @property
    def success(self) -> bool:
        return self.board.solved

    @property
    def progress(self) -> float:
        return self.board.boxes_on_target / max(1, len(self.board.boxes))

    def prompt(self, role: Role, subgoal: SubGoal | None = None) -> str:
        return language.prompt(role, self.board, subgoal)

    def act(self, action: int) -> str:
        move = MOVES[action]
        self.board, outcome = step(self.board, move)
        self.moves += move.upper() if outcome is Outcome.PUSHED else move
        self.steps += 1
        return language.observation_text(outcome, self.board.player)


@dataclass(frozen=True)
class SokobanTask:
    """Sokoban levels of up to `language.MAX_SIDE` cells a side."""

    max_steps: int = 50
    subgoal_budget: int = 20
    actions: tuple[str, ...] = language.ACTIONS
    sub_done: str = language.SUB_DONE
    end: str = language.END
    max_plan_tokens: int = 4 * language.MAX_SUBGOALS + 1

    def start(self, level: Level) -> SokobanEpisode:
        board = board_from_level(level)
        if max(board.height, board.width) > language.MAX_SIDE:
            raise LevelError(
                f"level {level.title!r} is {board.height}x{board.width}; the model reads boards up to "
                f"{language.MAX_SIDE}x{language.MAX_SIDE}"
            )
        return SokobanEpisode(board)

    def parse_blueprint(self, text: str, finished: bool) -> Blueprint:
        return language.parse_blueprint(text, finished)

    def oracle(self, level: Level) -> Blueprint:
        solution = solve(level)
        if solution is None:
            raise LevelError(f"level {level.title!r} has no solution")
        pushes = pushes_of(board_from_level(level), solution.lurd)
        subgoals = tuple(SubGoal(language.subgoal_text(*p)) for p in pushes)
        return Blueprint(language.format_blueprint(subgoals), subgoals)
