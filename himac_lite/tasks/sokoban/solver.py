"""Optimal solutions of levels, in moves or in pushes, as LURD and as straight runs of pushes.

`plain` searches in Python, and `astar` takes over where that would take longer than waiting for numba (`patience`).
Both find the same pushes. This module writes them as moves, which the rules can replay.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace

from himac_lite.errors import ConfigError, checked
from himac_lite.tasks.sokoban import patience, plain
from himac_lite.tasks.sokoban.distances import MAX_STATES, DistanceTable, distances
from himac_lite.tasks.sokoban.geometry import Geometry
from himac_lite.tasks.sokoban.rules import MOVES, NAME, STEP, Board, Outcome, board_from_level, step
from himac_lite.tasks.sokoban.searches import Found, Limits, Start
from himac_lite.tasks.sokoban.searches import Outcome as Ending
from himac_lite.types import Cell, Level

__all__ = ["DistanceTable", "Push", "Search", "Solution", "distances", "optimal_length", "pushes_of", "search", "solve"]

MAX_BYTES = 800_000_000
"""Memory limit of a search for its states."""

Push = tuple[Cell, str, Cell]
"""(box, direction as one of 'up down left right', target cell): a straight run of pushes, one sub-goal."""


@dataclass(frozen=True)
class Solution:
    """A solution as LURD (capitals push), optimal in the requested unit."""

    lurd: str

    @property
    def moves(self) -> int:
        return len(self.lurd)

    @property
    def pushes(self) -> int:
        return sum(m.isupper() for m in self.lurd)


@dataclass(frozen=True)
class Search:
    """The result of a search: the solution or None, how the search ended, and the number of states kept."""

    solution: Solution | None
    outcome: Ending
    states: int


@checked
def solve(level: Level, optimal: str = "moves", max_states: int = MAX_STATES) -> Solution | None:
    """An optimal solution of a level, or None if there is none or the search needs more than `max_states` states.

    optimal: ``moves`` for the fewest moves, ``pushes`` for the fewest pushes (with shortest walks between them).
    """
    return search(level, optimal, max_states).solution


@checked
def search(
    level: Level,
    optimal: str = "moves",
    max_states: int = MAX_STATES,
    max_bytes: int = MAX_BYTES,
    seconds: float | None = None,
) -> Search:
    """`solve` with all limits and the reason for the end. Without `seconds` the result is deterministic.

    Raises `ConfigError` for another `optimal`, and `TaskError` for a search that is too large without numba.
    """
    board = board_from_level(level)
    found = _found(board, optimal, Limits(max_states, max_bytes, seconds))
    solution = None if found.pushes is None else Solution(_walked(board, found.pushes))
    return Search(solution, found.outcome, found.states)


@checked
def optimal_length(level: Level, optimal: str = "moves", max_states: int = MAX_STATES) -> int | None:
    """The length of the solution that `solve` finds, without its moves."""
    return _found(board_from_level(level), optimal, Limits(max_states, MAX_BYTES)).cost


def _found(board: Board, optimal: str, limits: Limits) -> Found:
    if optimal not in ("moves", "pushes"):
        raise ConfigError(f"optimal must be 'moves' or 'pushes', not {optimal!r}")
    if len(board.boxes) > len(board.targets):
        return Found(Ending.UNSOLVABLE, None, 0)
    start = Start.of(board, optimal == "moves")
    for states in patience.allowances():
        found = plain.search(start, limits, states)
        patience.spend(states if found is None else found.states)
        if found is not None:
            return found
    from himac_lite.tasks.sokoban import astar

    return astar.search(start, limits)


def _walked(board: Board, pushes: list[tuple[int, int]]) -> str:
    """The LURD of the given pushes, with a shortest walk before each."""
    geometry, lurd = Geometry.of(board), ""
    for cell, a in pushes:
        (r, c), (dr, dc) = geometry.cells[cell], STEP[MOVES[a]]
        lurd += walk(board, (r - dr, c - dc)) + MOVES[a].upper()
        board = replace(board, boxes=(board.boxes - {(r, c)}) | {(r + dr, c + dc)}, player=(r, c))
    return lurd


def walk(board: Board, to: Cell) -> str:
    """A shortest walk of the player without a push, in lower case. Raises `ValueError` if there is none."""
    came = reachable(board, to)
    if to not in came:
        raise ValueError(f"the player cannot walk from {board.player} to {to}")
    return way(came, to)


def reachable(board: Board, until: Cell | None = None) -> dict[Cell, str]:
    """Cells that the player can walk to without a push → the move that enters each ("" for the player's own cell).

    until: a cell at which the breadth-first search stops.
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
    """The moves of a shortest walk to a cell of `reachable`."""
    moves = ""
    while move := came[to]:
        moves = move + moves
        to = (to[0] - STEP[move][0], to[1] - STEP[move][1])
    return moves


def pushes_of(board: Board, moves: str) -> list[Push]:
    """The blueprint of a solution: each straight run of pushes of one box is one sub-goal."""
    runs: list[Push] = []
    for move in moves.lower():
        before = board
        board, outcome = step(board, move)
        if outcome is not Outcome.PUSHED:
            continue
        (box,) = before.boxes - board.boxes
        (target,) = board.boxes - before.boxes
        if runs and runs[-1][2] == box and runs[-1][1] == NAME[move]:
            box, *_ = runs.pop()
        runs.append((box, NAME[move], target))
    return runs
