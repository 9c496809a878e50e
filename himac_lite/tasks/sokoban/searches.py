"""The question and the answer of a search, shared by `plain` (Python) and `astar` (compiled by numba)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from himac_lite.tasks.sokoban.geometry import Geometry
from himac_lite.tasks.sokoban.rules import Board

FAR = 10_000
"""A distance that stands for "never"."""

SLICE = 20_000
"""Expansions between two checks of the limits."""

MARGIN = 1_024
"""Free places in each array before an expansion."""


class Outcome(Enum):
    """How a search ended."""

    SOLVED = "solved"
    UNSOLVABLE = "no solution"
    STATES = "the limit of states was reached"
    SECONDS = "the limit of time was reached"


@dataclass(frozen=True)
class Start:
    """The position where a search begins, in numbers of floor cells, and whether moves are counted or pushes."""

    geometry: Geometry
    boxes: tuple[int, ...]
    """Sorted; at most as many as there are targets."""
    player: int
    by_moves: bool

    @classmethod
    def of(cls, board: Board, by_moves: bool) -> Start:
        geometry = Geometry.of(board)
        boxes = tuple(sorted(geometry.index[box] for box in board.boxes))
        return cls(geometry, boxes, geometry.index[board.player], by_moves)


@dataclass(frozen=True)
class Limits:
    """Limits of a search: number of states, bytes of the compiled search's arrays, seconds or None."""

    states: int
    bytes: int
    seconds: float | None = None


@dataclass(frozen=True)
class Found:
    """How a search ended, and what it found."""

    outcome: Outcome
    pushes: list[tuple[int, int]] | None
    """(cell of the box, direction 0–3) of each push in order; None unless solved."""
    states: int
    """Number of states kept."""
    cost: int | None = None
    """Moves or pushes of the solution."""


@dataclass
class Room:
    """The sizes of the compiled search's arrays, which double when they are full.

    The plain search has no arrays; it counts with this class, so that a limit ends both searches at the same state.
    """

    boxes: int
    cell_bytes: int
    states: int = 1 << 12
    entries: int = 1 << 13

    @classmethod
    def of(cls, start: Start) -> Room:
        return cls(len(start.boxes), 1 if len(start.geometry.cells) < 256 else 2)

    def full(self, states: int, entries: int) -> bool:
        return states + MARGIN > self.states or entries + MARGIN > self.entries

    def grow(self, states: int, entries: int) -> None:
        if states + MARGIN > self.states:
            self.states *= 2
        if entries + MARGIN > self.entries:
            self.entries *= 2

    @property
    def bytes(self) -> int:
        """State, cost, bound, parent, push, two hash slots for each state; three numbers for each entry."""
        return self.states * ((self.boxes + 3) * self.cell_bytes + 2 + 2 + 4 + 8) + 12 * self.entries
