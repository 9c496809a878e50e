"""The optimal length of every position of a layout, by one backward breadth-first search from all solved positions.

The generator and the demonstrations use it: one search gives thousands of positions of known optimal length, and an
optimal move from each of them. Small layouts are searched with NumPy at first, and by numba once that pays.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from himac_lite.errors import LevelError
from himac_lite.tasks.sokoban import patience
from himac_lite.tasks.sokoban.geometry import Geometry
from himac_lite.tasks.sokoban.rules import MOVES, Board

MAX_STATES = 20_000_000
_DENSE_BITS = 22
"""Bits of a packed position up to which NumPy searches, with one byte for each number of so many bits."""


@dataclass(frozen=True)
class DistanceTable:
    """Optimal length, in moves, of every solvable position of a layout (walls and targets)."""

    geometry: Geometry
    keys: np.ndarray
    """uint64 [S]: packed positions, by length."""
    dist: np.ndarray
    """int16 [S]: their optimal lengths."""

    def distance(self, board: Board) -> int | None:
        """Moves to the nearest solution; None if there is none."""
        at = np.flatnonzero(self.keys == np.uint64(self.geometry.key(board.player, board.boxes)))
        return int(self.dist[at[0]]) if len(at) else None

    @cached_property
    def _slots(self) -> np.ndarray:
        from himac_lite.tasks.sokoban.packed import rehash

        return np.asarray(rehash(self.keys, len(self.keys), 1 << (2 * len(self.keys)).bit_length()))

    def play(
        self, board: Board, rng: np.random.Generator, noise: float = 0.0, limit: int = 200
    ) -> tuple[str, list[bool]]:
        """Moves from `board` to a solution, at most `limit`, and which of them were optimal.

        Ties are broken at random. With probability `noise` a step is any move that keeps the level solvable.
        Raises `TaskError` without numba.
        """
        from himac_lite.tasks.sokoban.backward import descend

        k, geometry = len(board.boxes), self.geometry
        key, random = np.uint64(geometry.key(board.player, board.boxes)), rng.random((limit, 2))
        actions, optimal = descend(
            geometry.neighbours, self.keys, self.dist, self._slots, key, k, geometry.bits(k), noise, random
        )
        return "".join(MOVES[a] for a in actions), optimal.tolist()

    def positions(self, low: int, high: int) -> np.ndarray:
        """Packed states (uint64) whose optimal length lies in [low, high]."""
        found: np.ndarray = self.keys[(self.dist >= low) & (self.dist <= high)]
        return found

    def board(self, like: Board, key: int) -> Board:
        """The board of a packed state, with the walls and targets of `like`."""
        player, boxes = _unpacked(np.array([key], np.uint64), len(self.geometry.targets), self.geometry)
        cells = self.geometry.cells
        return replace(like, boxes=frozenset(cells[b] for b in boxes[0].tolist()), player=cells[int(player[0])])


def distances(board: Board) -> DistanceTable:
    """The distance table of a board's layout, with one box per target; boxes and player of `board` are ignored.

    Raises `LevelError` if a position does not fit into 64 bits, and `TaskError` for a large layout without numba.
    """
    geometry = Geometry.of(board)
    k = len(geometry.targets)
    bits = geometry.bits(k)
    if bits == 0:
        raise LevelError(f"no distance table for {k} boxes on {len(geometry.cells)} floor cells: too many")
    if bits * (k + 1) <= _DENSE_BITS and any(patience.allowances()):
        keys, dist = _backward(geometry)
        patience.spend(len(keys) // 10)
    else:
        from himac_lite.tasks.sokoban.backward import backward

        keys, dist = backward(geometry.neighbours, np.array(geometry.targets, np.int64), bits)
    return DistanceTable(geometry, keys, dist)


def _unpacked(keys: np.ndarray, k: int, geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """Packed positions [S] → (player int64 [S], boxes int64 [S, k])."""
    bits = geometry.bits(k)
    shifts = np.arange(bits * (k - 1), -1, -bits, dtype=np.uint64)
    boxes = keys[:, None] >> shifts & np.uint64((1 << bits) - 1)
    return (keys >> np.uint64(bits * k)).astype(np.int64), boxes.astype(np.int64)


def _packed(player: np.ndarray, boxes: np.ndarray, bits: int) -> np.ndarray:
    """uint64 [S]; the boxes are sorted first."""
    keys = player.astype(np.uint64)
    for column in np.sort(boxes, axis=1).astype(np.uint64).T:
        keys = keys << np.uint64(bits) | column
    return keys


def _backward(geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """`backward.backward` with NumPy, one length after another: the same positions in the same order."""
    k, nb = len(geometry.targets), geometry.neighbours.astype(np.int64)
    bits, targets = geometry.bits(k), np.array(geometry.targets, np.int64)
    player = np.setdiff1d(np.arange(len(nb)), targets)
    layer = _packed(player, np.tile(targets, (len(player), 1)), bits)
    known = np.zeros(1 << bits * (k + 1), np.bool_)
    layers = []
    while len(layer):
        known[layer] = True
        layers.append(layer)
        player, boxes = _unpacked(layer, k, geometry)
        after, fits = np.empty((len(layer), 4, 2), np.uint64), np.empty((len(layer), 4, 2), np.bool_)
        for a in range(4):
            before, ahead = nb[player, a ^ 1], nb[player, a]  # the player stood at `before` and moved in direction a
            pulled = (boxes == ahead[:, None]) & (ahead >= 0)[:, None]
            fits[:, a, 0] = (before >= 0) & ~(boxes == before[:, None]).any(axis=1)
            fits[:, a, 1] = fits[:, a, 0] & pulled.any(axis=1)
            after[:, a, 0] = _packed(before, boxes, bits)
            after[:, a, 1] = _packed(before, np.where(pulled, player[:, None], boxes), bits)
        found = after[fits]
        found = found[~known[found]]
        layer = found[np.sort(np.unique(found, return_index=True)[1])]
    lengths = np.repeat(np.arange(len(layers), dtype=np.int16), [len(one) for one in layers])
    return np.concatenate([*layers, layer]), lengths
