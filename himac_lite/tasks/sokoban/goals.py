"""Sokoban's functions for the axes of a hierarchy: is a sub-goal done, how many moves are left, what does a plan reach.

Each function has the signature of its axis in `himac_lite.hierarchy`, so it can be passed directly.
"""

from __future__ import annotations

from typing import Any

from himac_lite.tasks.sokoban import language
from himac_lite.tasks.sokoban.pushes import after_push, execute_push
from himac_lite.tasks.sokoban.rules import board_from_level, rows_of
from himac_lite.tasks.sokoban.solver import solve
from himac_lite.types import Blueprint, Invalid, Level, SubGoal

LOST = 50
"""`moves_left` of a position without a solution: the default step limit of an episode."""


def achieved(episode: Any, subgoal: SubGoal) -> bool:
    """Whether the sub-goal is done: `SokobanEpisode.reached` as a function."""
    return bool(episode.reached(subgoal))


def moves_left(episode: Any) -> float:
    """Moves of the shortest solution from the current position; `LOST` if there is none."""
    solution = solve(Level(rows_of(episode.board)))
    return float(LOST if solution is None else min(LOST, solution.moves))


def one_cell_at_a_time(blueprint: Blueprint) -> Blueprint:
    """The blueprint with every straight push split into pushes of one cell."""
    cut: list[SubGoal] = []
    for subgoal in blueprint.subgoals:
        push = language.parse_push(subgoal.text)
        if isinstance(push, Invalid):
            return blueprint
        (row, column), name, target = push
        while (row, column) != target:
            here = (row, column)
            row += (target[0] > row) - (target[0] < row)
            column += (target[1] > column) - (target[1] < column)
            cut.append(SubGoal(language.subgoal_text(here, name, (row, column))))
    return Blueprint(blueprint.text, tuple(cut), blueprint.invalid)


def carried_out(level: Level, blueprint: Blueprint) -> float:
    """1 if a perfect executor solves the level with this blueprint, otherwise 0.

    The executor skips every sub-goal that cannot be done.
    """
    board = board_from_level(level)
    for subgoal in blueprint.subgoals:
        push = language.parse_push(subgoal.text)
        if not isinstance(push, Invalid) and execute_push(board, push) is not None:
            board = after_push(board, push)
    return float(board.solved)
