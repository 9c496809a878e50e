"""Positions as arrays, for the batched rules, the environments' observations and pictures.

A cell is a uint8, the sum of the bits `WALL`, `TARGET`, `BOX` and `PLAYER`. A board smaller than H×W is placed in the
upper left corner, and the rest is wall.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from himac_lite.tasks.sokoban.rules import BOX, PLAYER, TARGET, WALL, Board

_CHARS = {0: " ", WALL: "#", TARGET: ".", BOX: "$", PLAYER: "@", BOX | TARGET: "*", PLAYER | TARGET: "+"}
_XSB = np.frombuffer("".join(_CHARS.get(bits, "#") for bits in range(16)).encode(), np.uint8)


def pack(boards: Sequence[Board]) -> tuple[np.ndarray, np.ndarray]:
    """Boards → (cells uint8 [B, H, W], player int64 [B, 2]), padded with walls to the largest board."""
    height, width = max(b.height for b in boards), max(b.width for b in boards)
    cells = np.full((len(boards), height, width), WALL, np.uint8)
    player = np.array([b.player for b in boards], np.int64).reshape(-1, 2)
    for i, b in enumerate(boards):
        cells[i, : b.height, : b.width] = 0
        for bit, where in ((WALL, b.walls), (TARGET, b.targets), (BOX, b.boxes), (PLAYER, (b.player,))):
            for cell in where:
                cells[(i, *cell)] |= bit
    return cells, player


def unpack(cells: np.ndarray, like: Board) -> Board:
    """The board of one position [H, W] on the walls and targets of `like`."""
    ((r, c),) = np.argwhere(cells & PLAYER).tolist()
    boxes = frozenset((row, column) for row, column in np.argwhere(cells & BOX).tolist())
    return replace(like, boxes=boxes, player=(r, c))


def texts_of_cells(cells: np.ndarray, sizes: np.ndarray) -> tuple[str, ...]:
    """XSB rows, joined by newlines, of each board. cells: [B, H, W]. sizes: int [B, 2], rows and columns."""
    batch, height, width = cells.shape
    lines = np.full((batch, height, width + 1), ord("\n"), np.uint8)
    lines[:, :, :-1] = _XSB[cells]
    if (sizes == (height, width)).all():
        text, length = lines.tobytes().decode("ascii"), height * (width + 1)
        return tuple(text[i : i + length - 1] for i in range(0, batch * length, length))
    out = []
    for board, (rows, columns) in zip(lines, sizes.tolist(), strict=True):
        board[:rows, columns] = ord("\n")
        out.append(board[:rows, : columns + 1].tobytes().decode("ascii")[:-1])
    return tuple(out)
