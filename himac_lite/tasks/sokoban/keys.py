"""The key of a position: equal for two positions exactly when one is the other up to symmetry and the player's walk.

A set of cells is an int with one bit a cell, so that a flood fill and a comparison take microseconds: pretraining asks
for the key of every board that its demonstrations pass through.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from himac_lite.tasks.sokoban.rules import Board
from himac_lite.types import Cell

Key = tuple[int, ...]
"""(height, width, walls, targets, boxes, first cell of the player's region), of the smallest symmetric image."""


@dataclass(frozen=True)
class _View:
    """The grid under one symmetry of the square."""

    size: tuple[int, int]
    stride: int
    bit: dict[Cell, int]
    """Of each cell of the board, where the symmetry puts it."""

    def bits(self, cells: Iterable[Cell]) -> int:
        return sum(map(self.bit.__getitem__, cells))


def position_key(board: Board) -> Key:
    """The key of walls, targets, boxes and the cells that the player can walk to, up to the 8 symmetries of the square.

    Unreachable floor must be wall, as in every level of a file (`levels.closed`). Two boards that differ only by a
    translation have different keys: no demonstration is translated.
    """
    views, layout, floor = _layout(board.height, board.width, board.walls, board.targets)
    best: Key = ()
    for view, free in zip(views, floor, strict=True):
        boxes = view.bits(board.boxes)
        region = _flood(view.bit[board.player], free & ~boxes, view.stride)
        key = (*layout, boxes, region & -region)
        best = min(best, key) if best else key
    return best


@lru_cache(maxsize=1024)
def _layout(
    height: int, width: int, walls: frozenset[Cell], targets: frozenset[Cell]
) -> tuple[list[_View], Key, list[int]]:
    """The views that give the smallest image of a layout (several if it is symmetric), the image, the floor of each."""
    views = _views(height, width)
    images = [(*view.size, view.bits(walls), view.bits(targets)) for view in views]
    least = min(images)
    best = [view for view, image in zip(views, images, strict=True) if image == least]
    return best, least, [sum(view.bit.values()) - least[2] for view in best]


@lru_cache
def _views(height: int, width: int) -> list[_View]:
    views = []
    for turns in range(8):
        rows, columns = (width, height) if turns & 1 else (height, width)
        stride = columns + 1  # no row touches the next one, even without walls around
        bit = {}
        for r in range(height):
            for c in range(width):
                i, j = (c, r) if turns & 1 else (r, c)
                i, j = rows - 1 - i if turns & 2 else i, columns - 1 - j if turns & 4 else j
                bit[r, c] = 1 << (i * stride + j)
        views.append(_View((rows, columns), stride, bit))
    return views


def _flood(start: int, free: int, stride: int) -> int:
    """The cells of `free` that are connected with `start`."""
    seen, before = start, 0
    while seen != before:
        before = seen
        seen = (seen | seen << 1 | seen >> 1 | seen << stride | seen >> stride) & free
    return seen
