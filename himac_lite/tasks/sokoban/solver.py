"""Optimal solutions of levels, in moves or in pushes, as LURD, as single pushes and as straight runs of pushes.

`astar` does the search; what it finds is written out, and can be checked, by the rules.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from himac_lite.tasks.sokoban import astar
from himac_lite.tasks.sokoban.distances import MAX_STATES, DistanceTable, distances
from himac_lite.tasks.sokoban.geometry import Geometry
from himac_lite.tasks.sokoban.rules import MOVES, NAMES, STEP, Board, Outcome, board_from_level, step
from himac_lite.types import Cell, Level

__all__ = [
    "MAX_BYTES", "MAX_STATES", "DistanceTable", "Geometry", "Push", "Search", "Solution", "as_lurd", "distances",
    "optimal_length", "pushes_of", "search", "solve",
]  # fmt: skip

MAX_BYTES = 800_000_000
"""Memory that a search may take for its states."""

Push = tuple[Cell, str, Cell]
"""(box, direction as one of 'up down left right', where the box ends): a straight run of pushes, one sub-goal."""

_NAME = dict(zip(MOVES, NAMES, strict=True))


@dataclass(frozen=True)
class Solution:
    """A solution as LURD (capitals push), optimal in ``moves`` or in ``pushes`` as it was asked for."""

    lurd: str

    @property
    def moves(self) -> int:
        return len(self.lurd)

    @property
    def pushes(self) -> int:
        return sum(m.isupper() for m in self.lurd)


@dataclass(frozen=True)
class Search:
    """What came of a search: the solution, or the reason why there is none; and how many states were kept."""

    solution: Solution | None
    outcome: astar.Outcome
    states: int


def solve(level: Level, optimal: str = "moves", max_states: int = MAX_STATES) -> Solution | None:
    """An optimal solution of a level, or None if it has none (or needs more than `max_states` states).

    optimal: ``moves`` for the fewest moves, ``pushes`` for the fewest pushes (and short walks between them).
    """
    return search(level, optimal, max_states).solution


def search(
    level: Level,
    optimal: str = "moves",
    max_states: int = MAX_STATES,
    max_bytes: int = MAX_BYTES,
    seconds: float | None = None,
) -> Search:
    """`solve` with all limits, which says how it ended. The same level and limits, but for `seconds`, end the same way.

    Raises `ValueError` for another `optimal`.
    """
    board = board_from_level(level)
    geometry, found = _found(board, optimal, max_states, max_bytes, seconds)
    if found.pushes is None:
        return Search(None, found.outcome, found.states)
    return Search(Solution(_walked(board, geometry, found.pushes)), found.outcome, found.states)


def optimal_length(level: Level, optimal: str = "moves", max_states: int = MAX_STATES) -> int | None:
    """The length of what `solve` finds, without writing the solution out."""
    return _found(board_from_level(level), optimal, max_states, MAX_BYTES, None)[1].cost


def _found(
    board: Board, optimal: str, max_states: int, max_bytes: int, seconds: float | None
) -> tuple[Geometry, astar.Found]:
    if optimal not in ("moves", "pushes"):
        raise ValueError(f"optimal must be 'moves' or 'pushes', not {optimal!r}")
    geometry = Geometry.of(board)
    if len(board.boxes) > len(board.targets):
        return geometry, astar.Found(astar.Outcome.UNSOLVABLE, None, 0)
    return geometry, astar.search(
        geometry.neighbours, np.array(geometry.targets, np.int64),
        np.array([geometry.index[box] for box in board.boxes], np.int64), geometry.index[board.player],
        optimal == "moves", max_states, max_bytes, seconds,
    )  # fmt: skip


def _walked(board: Board, geometry: Geometry, pushes: list[tuple[int, int]]) -> str:
    """The LURD of single pushes, with a shortest walk before each."""
    lurd = ""
    for cell, a in pushes:
        (r, c), (dr, dc) = geometry.cells[cell], STEP[MOVES[a]]
        lurd += walk(board, (r - dr, c - dc)) + MOVES[a].upper()
        boxes = (board.boxes - {(r, c)}) | {(r + dr, c + dc)}
        board = Board(board.height, board.width, board.walls, board.targets, boxes, (r, c))
    return lurd


def walk(board: Board, to: Cell) -> str:
    """A shortest walk of the player, in small letters, that touches no box. Raises `ValueError` where there is none."""
    came = reachable(board, to)
    if to not in came:
        raise ValueError(f"the player cannot walk from {board.player} to {to}")
    return way(came, to)


def reachable(board: Board, until: Cell | None = None) -> dict[Cell, str]:
    """Cells that the player can walk to without touching a box, breadth first, each with the move that leads into it
    ("" for the player's own). until: a cell at which the search may stop.
    """
    came = {board.player: ""}
    queue = deque(came)
    while queue and until not in came:
        r, c = queue.popleft()
        for move in MOVES:
            near = (r + STEP[move][0], c + STEP[move][1])
            if near not in came and near not in board.walls and near not in board.boxes:
                came[near] = move
                queue.append(near)
    return came


def way(came: Mapping[Cell, str], to: Cell) -> str:
    """The moves to one of the cells that are `reachable`; no other way is shorter."""
    moves = ""
    while move := came[to]:
        moves = move + moves
        to = (to[0] - STEP[move][0], to[1] - STEP[move][1])
    return moves


def pushes_of(board: Board, moves: str) -> list[Push]:
    """The blueprint of a solution: every straight run of pushes of one box is one sub-goal."""
    runs: list[Push] = []
    for move in moves.lower():
        before = board
        board, outcome = step(board, move)
        if outcome is not Outcome.PUSHED:
            continue
        (box,) = before.boxes - board.boxes
        (target,) = board.boxes - before.boxes
        if runs and runs[-1][2] == box and runs[-1][1] == _NAME[move]:
            runs[-1] = (runs[-1][0], _NAME[move], target)
        else:
            runs.append((box, _NAME[move], target))
    return runs


def as_lurd(board: Board, moves: str) -> str:
    """Moves with the pushes in capitals."""
    out = []
    for m in moves:
        board, outcome = step(board, m)
        out.append(m.upper() if outcome is Outcome.PUSHED else m.lower())
    return "".join(out)
