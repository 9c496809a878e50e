"""Sokoban prompts in plain language, for models that were not trained on the prompts of `language`.

The answers are the same: sub-goals that `language.parse_blueprint` reads, one action at a time, `<sub_done>`. A board
of characters is hard to read for a tokenizer that merges characters, so every important cell is also listed.
"""

from __future__ import annotations

from collections.abc import Iterable

from himac_lite.tasks import Words
from himac_lite.tasks.marks import SUB_DONE
from himac_lite.tasks.sokoban.language import MAX_SUBGOALS, cell_text, subgoal_text
from himac_lite.tasks.sokoban.rules import NAMES, Board, rows_of
from himac_lite.types import Cell, Role, SubGoal

_MOVES = f"{', '.join(NAMES[:-1])} or {NAMES[-1]}"
_GAME = (
    f"You play Sokoban. The player moves one cell {_MOVES}. Walking into a box pushes it one cell on, if the "
    "cell behind it is free; a box cannot be pulled. The level is solved when every box stands on a target. Cells are "
    "written (row,column), counted from (0,0) at the top left; rows grow downwards.\n"
)
_TEXT = "The board: # wall, space floor, . target, $ box, * box on a target, @ player, + player on a target.\n"
_PICTURE = (
    "The board is a picture: solid dark cells are walls, a red ring is a target, a crate with a cross is a box, a "
    "green crate with a tick is a box on a target, the pawn is the player.\n"
)
_TASK = {
    Role.PLANNER: (
        "Write a plan that solves the level: one sub-goal a line, each exactly of the form\n"
        f"{subgoal_text((2, 3), 'right', (2, 5))}\n"
        f"which pushes the box at (2,3) in a straight line to (2,5). At most {MAX_SUBGOALS} lines, and nothing else."
    ),
    Role.EXECUTOR: (
        f"You carry out one sub-goal of a plan. Answer each time with one word: {_MOVES}; or {SUB_DONE} when the "
        "sub-goal is reached. You are told what each move did and where the player now stands."
    ),
    Role.DRIVEN: (
        f"You carry out one sub-goal of a plan. Answer each time with one word: {_MOVES}. You are told what each move "
        "did and where the player now stands."
    ),
    Role.FLAT: (
        f"Solve the level. Answer each time with one word: {_MOVES}. You are told what each move did and where the "
        "player now stands."
    ),
}


def words(role: Role, board: Board, subgoal: SubGoal | None = None, picture: bool = False) -> Words:
    """The prompt of a role for a position. picture: the board comes as a picture and is not written in the text."""
    shown = [f"Board ({board.height} rows, {board.width} columns):", *([] if picture else rows_of(board))]
    if not picture:
        shown += [f"Player: {cell_text(board.player)}", _cells("Boxes", board.boxes), _cells("Targets", board.targets)]
    if subgoal:
        shown.append(f"Sub-goal: {subgoal.text}")
    return Words(_GAME + (_PICTURE if picture else _TEXT) + _TASK[role], "\n".join(shown))


def _cells(name: str, cells: Iterable[Cell]) -> str:
    return f"{name}: {', '.join(map(cell_text, sorted(cells)))}"
