"""The rules of Sokoban for one board, in plain Python without NumPy, so that they can also run in a browser.

`sokoban.batch` has the same rules for thousands of boards; tests compare the two on random play. Tests also replay the
solver's solutions by these rules.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from himac_lite.errors import LevelError, checked
from himac_lite.types import Cell, Level

MOVES = "udlr"
"""Letters of the four moves, in the order of the action numbers 0–3. LURD capitals mark pushes."""

NAMES = ("up", "down", "left", "right")
NAME = dict(zip(MOVES, NAMES, strict=True))
STEP: dict[str, Cell] = {"u": (-1, 0), "d": (1, 0), "l": (0, -1), "r": (0, 1)}

WALL, TARGET, BOX, PLAYER = 1, 2, 4, 8
"""Bits of a cell in arrays of cells (`sokoban.cells`) and in observations."""


class Outcome(Enum):
    """The effect of a move."""

    MOVED = 0
    PUSHED = 1
    BLOCKED = 2


@dataclass(frozen=True, slots=True)
class Board:
    """A position: walls and targets of the level, the boxes and the player."""

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


@checked
def board_from_level(level: Level) -> Board:
    """The start position of a level. Raises `LevelError` without exactly one player."""
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
    """Apply one move, ``u d l r`` in either case. A blocked move returns the same board."""
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
