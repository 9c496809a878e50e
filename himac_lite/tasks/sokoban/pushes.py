"""Plans of a beginner, and the moves that carry out one push: the parts of demonstrations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from himac_lite.tasks.sokoban.rules import MOVES, NAME, STEP, Board
from himac_lite.tasks.sokoban.solver import reachable, way
from himac_lite.tasks.sokoban.task import Push
from himac_lite.types import Cell


def greedy_pushes(board: Board, only_first: bool = False) -> list[Push]:
    """A beginner's plan: nearest box first, first sideways, then up or down, through any obstacle."""
    plan: list[Push] = []
    targets = set(board.targets - board.boxes)
    boxes = sorted(board.boxes - board.targets, key=lambda b: (manhattan(b, board.player), b))
    for box in boxes[:1] if only_first else boxes:
        target = min(targets, key=lambda t: (manhattan(t, box), t))
        targets.remove(target)
        corner = (box[0], target[1])
        if corner != box:
            plan.append((box, "right" if corner[1] > box[1] else "left", corner))
        if target != corner:
            plan.append((corner, "down" if target[0] > corner[0] else "up", target))
    return plan


def useless_pushes(board: Board, rng: np.random.Generator) -> list[Push]:
    """One to three legal pushes of random boxes in random directions."""
    plan: list[Push] = []
    for _ in range(int(rng.integers(1, 4))):
        legal = legal_pushes(board)
        if not legal:
            break
        push = legal[int(rng.integers(len(legal)))]
        plan.append(push)
        board = after_push(board, push)
    return plan


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
