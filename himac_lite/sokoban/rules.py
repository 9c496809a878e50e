"""The rules of Sokoban, once for a single board in plain Python and once for a batch in NumPy.

Both forms are checked against each other on random play. The solver works on the same geometry and its solutions are
replayed here in the tests.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from himac_lite.errors import LevelError
from himac_lite.types import Cell, Level

MOVES = "udlr"
"""Letters of the four moves, in the order of the action numbers 0–3. LURD capitals mark pushes."""

NAMES = ("up", "down", "left", "right")
STEP: dict[str, Cell] = {"u": (-1, 0), "d": (1, 0), "l": (0, -1), "r": (0, 1)}

WALL, TARGET, BOX = 1, 2, 4
"""Bits of a cell in the batched form."""


class Outcome(Enum):
    """What a move did."""

    MOVED = 0
    PUSHED = 1
    BLOCKED = 2


@dataclass(frozen=True, slots=True)
class Board:
    """A position: the level's geometry and where the player and the boxes are."""

    height: int
    width: int
    walls: frozenset[Cell]
    targets: frozenset[Cell]
    boxes: frozenset[Cell]
    player: Cell

    @property
    def solved(self) -> bool:
        return self.boxes <= self.targets

    @property
    def boxes_on_target(self) -> int:
        return len(self.boxes & self.targets)


def board_from_level(level: Level) -> Board:
    """The start position of a level (which the reader has already checked)."""
    cells = [((r, c), ch) for r, row in enumerate(level.rows) for c, ch in enumerate(row)]
    player = [cell for cell, ch in cells if ch in "@+"]
    if len(player) != 1:
        raise LevelError(f"a level needs exactly one player (@ or +); this one has {len(player)}:\n{level.text}")
    return Board(
        height=len(level.rows),
        width=max(map(len, level.rows)),
        walls=frozenset(cell for cell, ch in cells if ch == "#"),
        targets=frozenset(cell for cell, ch in cells if ch in ".*+"),
        boxes=frozenset(cell for cell, ch in cells if ch in "$*"),
        player=player[0],
    )


def rows_of(board: Board) -> tuple[str, ...]:
    """The position as XSB rows."""

    def char(cell: Cell) -> str:
        on = cell in board.targets
        if cell in board.walls:
            return "#"
        if cell == board.player:
            return "+" if on else "@"
        if cell in board.boxes:
            return "*" if on else "$"
        return "." if on else " "

    return tuple("".join(char((r, c)) for c in range(board.width)) for r in range(board.height))


def step(board: Board, move: str) -> tuple[Board, Outcome]:
    """Apply one move, ``u d l r`` in either case. A blocked move leaves the board as it is."""
    dr, dc = STEP[move.lower()]
    r, c = board.player
    ahead = (r + dr, c + dc)
    if ahead in board.walls:
        return board, Outcome.BLOCKED
    if ahead not in board.boxes:
        return replace(board, player=ahead), Outcome.MOVED
    beyond = (r + 2 * dr, c + 2 * dc)
    if beyond in board.walls or beyond in board.boxes:
        return board, Outcome.BLOCKED
    return replace(board, player=ahead, boxes=(board.boxes - {ahead}) | {beyond}), Outcome.PUSHED


def play(board: Board, moves: str) -> Board:
    """The position after a string of moves (LURD)."""
    for move in moves:
        board, _ = step(board, move)
    return board


# Batched form: cells uint8 [B, H, W] of WALL|TARGET|BOX bits, player int [B, 2]. Smaller boards are padded with WALL.


def pack(boards: list[Board]) -> tuple[np.ndarray, np.ndarray]:
    """Boards → (cells uint8 [B, H, W], player int64 [B, 2]), padded with walls to the largest."""
    height, width = max(b.height for b in boards), max(b.width for b in boards)
    cells = np.full((len(boards), height, width), WALL, np.uint8)
    player = np.array([b.player for b in boards], np.int64).reshape(-1, 2)
    for i, b in enumerate(boards):
        cells[i, : b.height, : b.width] = 0
        for bit, where in ((WALL, b.walls), (TARGET, b.targets), (BOX, b.boxes)):
            for cell in where:
                cells[(i, *cell)] |= bit
    return cells, player


_DELTA = np.array([STEP[m] for m in MOVES], np.int64)  # [4, 2]


def step_batch(cells: np.ndarray, player: np.ndarray, action: np.ndarray) -> np.ndarray:
    """One move on every board, in place; returns the outcome numbers [B] (see `Outcome`).

    cells: uint8 [B, H, W]; player: int64 [B, 2]; action: int [B], 0–3 in the order of `MOVES`.
    """
    board = np.arange(len(cells))
    limit = np.array(cells.shape[1:]) - 1
    delta = _DELTA[action]  # [B, 2]
    ahead = np.clip(player + delta, 0, limit)
    beyond = np.clip(player + 2 * delta, 0, limit)
    at_ahead = cells[board, ahead[:, 0], ahead[:, 1]]
    at_beyond = cells[board, beyond[:, 0], beyond[:, 1]]
    box = (at_ahead & BOX) > 0
    blocked = ((at_ahead & WALL) > 0) | (box & ((at_beyond & (WALL | BOX)) > 0))
    push = box & ~blocked
    b, a, y = board[push], ahead[push], beyond[push]
    cells[b, a[:, 0], a[:, 1]] &= 255 ^ BOX
    cells[b, y[:, 0], y[:, 1]] |= BOX
    player[~blocked] = ahead[~blocked]
    outcome: np.ndarray = np.where(blocked, Outcome.BLOCKED.value, push.astype(np.int64))
    return outcome


def solved_batch(cells: np.ndarray) -> np.ndarray:
    """bool [B]: every box stands on a target."""
    solved: np.ndarray = ~((cells & (BOX | TARGET)) == BOX).any(axis=(1, 2))
    return solved
