"""Floor cells as numbers, and positions packed into 64 bits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from himac_lite.tasks.sokoban.rules import MOVES, STEP, Board
from himac_lite.types import Cell


@dataclass(frozen=True)
class Geometry:
    """The floor of a layout: F cells in reading order."""

    cells: tuple[Cell, ...]
    targets: tuple[int, ...]

    @classmethod
    def of(cls, board: Board) -> Geometry:
        cells = tuple((r, c) for r in range(board.height) for c in range(board.width) if (r, c) not in board.walls)
        return cls(cells, tuple(i for i, cell in enumerate(cells) if cell in board.targets))

    @cached_property
    def index(self) -> dict[Cell, int]:
        return {cell: i for i, cell in enumerate(self.cells)}

    @cached_property
    def neighbours(self) -> np.ndarray:
        """int16 [F, 4]: the floor cell one step away in each direction, −1 for a wall."""
        at = np.array(self.cells).reshape(-1, 2) + 1
        number = np.full(at.max(axis=0) + 2, -1, np.int16)  # of every cell, with a margin
        number[at[:, 0], at[:, 1]] = np.arange(len(at))
        return np.stack([number[at[:, 0] + STEP[m][0], at[:, 1] + STEP[m][1]] for m in MOVES], axis=1)

    def bits(self, n_boxes: int) -> int:
        """Bits of one floor index, or 0 if a state of `n_boxes` boxes does not fit into 64 bits."""
        bits = max(1, (len(self.cells) - 1).bit_length())
        return bits if bits * (n_boxes + 1) <= 63 else 0

    def key(self, player: Cell, boxes: Any) -> int:
        """The packed state of a position."""
        bits = self.bits(len(boxes))
        key = self.index[player]
        for box in sorted(self.index[b] for b in boxes):
            key = key << bits | box
        return key
