"""Floor cells as numbers, and positions packed into 64 bits, for the compiled searches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numba import njit

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


@njit(cache=True)
def pack(player: int, boxes: np.ndarray, bits: int) -> np.uint64:
    key = np.uint64(player)
    for box in boxes:
        key = (key << np.uint64(bits)) | np.uint64(box)
    return key


@njit(cache=True)
def unpack(key: np.uint64, boxes: np.ndarray, bits: int) -> np.int64:
    mask = np.uint64((1 << bits) - 1)
    for i in range(len(boxes) - 1, -1, -1):
        boxes[i] = np.int64(key & mask)
        key = key >> np.uint64(bits)
    return np.int64(key)


@njit(cache=True)
def find_slot(table: np.ndarray, keys: np.ndarray, key: np.uint64) -> np.int64:
    """The slot of the open-addressing table that holds `key`, or the empty one where it belongs."""
    mask = np.uint64(len(table) - 1)
    at = (key * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(20)) & mask
    while table[np.int64(at)] >= 0 and keys[table[np.int64(at)]] != key:
        at = (at + np.uint64(1)) & mask
    return np.int64(at)


@njit(cache=True)
def rehash(keys: np.ndarray, n: int, size: int) -> np.ndarray:
    table = np.full(size, -1, np.int32)
    for i in range(n):
        table[find_slot(table, keys, keys[i])] = i
    return table


@njit(cache=True)
def replace_sorted(boxes: np.ndarray, i: int, value: int | np.int64, out: np.ndarray) -> None:
    """Copy sorted `boxes` to `out` with element i replaced by `value`, sorted again."""
    out[:] = boxes
    out[i] = value
    while i > 0 and out[i - 1] > out[i]:
        out[i - 1], out[i] = out[i], out[i - 1]
        i -= 1
    while i < len(out) - 1 and out[i + 1] < out[i]:
        out[i + 1], out[i] = out[i], out[i + 1]
        i += 1


@njit(cache=True)
def find(boxes: np.ndarray, cell: int) -> int:
    for i in range(len(boxes)):
        if boxes[i] == cell:
            return i
    return -1
