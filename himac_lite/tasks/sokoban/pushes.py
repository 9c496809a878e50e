"""The pushes that a board allows, and the moves that carry one out."""

from __future__ import annotations

from dataclasses import replace

from himac_lite.tasks.sokoban.rules import MOVES, NAME, STEP, Board
from himac_lite.tasks.sokoban.solver import reachable, way
from himac_lite.tasks.sokoban.task import Push
from himac_lite.types import Cell


def legal_pushes(board: Board) -> list[Push]:
    """Every straight push of every length that is possible now."""
    reach = reachable(board)
    out: list[Push] = []
    for box in sorted(board.boxes):
        for move in MOVES:
            dr, dc = STEP[move]
            if (box[0] - dr, box[1] - dc) not in reach:
                continue
            cell = (box[0] + dr, box[1] + dc)
            while cell not in board.walls and cell not in board.boxes:
                out.append((box, NAME[move], cell))
                cell = (cell[0] + dr, cell[1] + dc)
    return out


def manhattan(a: Cell, b: Cell) -> int:
    """Steps between two cells without obstacles."""
    return abs(a[0] - b[0]) + abs(a[1] - b[1])


def after_push(board: Board, push: Push) -> Board:
    """The board after a push, with the player behind the box."""
    box, direction, target = push
    dr, dc = STEP[direction[0]]
    boxes = (board.boxes - {box}) | {target}
    player = (target[0] - dr, target[1] - dc)
    return replace(board, boxes=boxes, player=player)


def execute_push(board: Board, push: Push) -> str | None:
    """The shortest moves for one sub-goal (walk behind the box, push); None if it is impossible."""
    box, direction, target = push
    move = direction[0]
    dr, dc = STEP[move]
    behind = (box[0] - dr, box[1] - dc)
    came = reachable(board, behind)
    if box not in board.boxes or behind not in came:
        return None
    length = manhattan(box, target)
    for i in range(1, length + 1):
        ahead = (box[0] + i * dr, box[1] + i * dc)
        if ahead in board.walls or ahead in board.boxes:
            return None
    return way(came, behind) + move * length
