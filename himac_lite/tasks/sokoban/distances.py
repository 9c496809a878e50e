"""The optimal length of every position of a layout, by one backward breadth-first search from all solved positions.

The generator and the demonstrations use it: one search gives thousands of positions of known optimal length, and an
optimal move from each of them. The search is compiled by numba on first use.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numba import njit

from himac_lite.errors import LevelError
from himac_lite.tasks.sokoban.geometry import Geometry, find, find_slot, pack, rehash, replace_sorted, unpack
from himac_lite.tasks.sokoban.rules import MOVES, Board

MAX_STATES = 20_000_000
Array = np.ndarray


@njit(cache=True)
def _backward(nb: np.ndarray, targets: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Optimal length in moves of every solvable position: (keys [S], distance [S], hash table)."""
    k = len(targets)
    cap = 1 << 14
    keys = np.empty(cap, np.uint64)
    dist = np.empty(cap, np.int16)
    table = np.full(cap * 2, -1, np.int32)
    boxes = np.empty(k, np.int64)
    moved = np.empty(k, np.int64)
    n, head = 0, 0
    for cell in range(len(nb)):
        if find(targets, cell) < 0:
            key = pack(cell, targets, bits)
            keys[n], dist[n] = key, 0
            table[find_slot(table, keys, key)] = n
            n += 1
    while head < n:
        if n + 8 >= cap:
            cap *= 2
            keys = np.append(keys, np.empty(cap - len(keys), np.uint64))
            dist = np.append(dist, np.empty(cap - len(dist), np.int16))
            table = rehash(keys, n, cap * 2)
        player = unpack(keys[head], boxes, bits)
        for a in range(4):
            before = nb[player, a ^ 1]  # the player stood here before moving in direction a
            if before < 0 or find(boxes, before) >= 0:
                continue
            ahead = nb[player, a]
            i = find(boxes, ahead) if ahead >= 0 else -1
            for pushed in range(2):
                if pushed and i < 0:
                    continue
                if pushed:
                    replace_sorted(boxes, i, player, moved)
                    key = pack(before, moved, bits)
                else:
                    key = pack(before, boxes, bits)
                slot = find_slot(table, keys, key)
                if table[slot] < 0:
                    keys[n], dist[n] = key, dist[head] + 1
                    table[slot] = n
                    n += 1
        head += 1
    return keys[:n], dist[:n], table


@njit(cache=True)
def _descend(
    nb: Array, keys: Array, dist: Array, table: Array, key: np.uint64, k: int, bits: int, noise: float, random: Array
) -> tuple[Array, Array]:
    """Follow optimal moves, with random moves at rate `noise`; returns (actions, whether each was optimal)."""
    actions = np.empty(len(random), np.uint8)
    optimal = np.empty(len(random), np.bool_)
    boxes = np.empty(k, np.int64)
    moved = np.empty(k, np.int64)
    after = np.empty(4, np.uint64)
    gain = np.empty(4, np.int64)
    for t in range(len(random)):
        here = dist[table[find_slot(table, keys, key)]]
        if here == 0:
            return actions[:t], optimal[:t]
        player = unpack(key, boxes, bits)
        for a in range(4):
            ahead = nb[player, a]
            i = find(boxes, ahead) if ahead >= 0 else -1
            after[a] = key  # blocked, unless set below
            if ahead >= 0 and i < 0:
                after[a] = pack(ahead, boxes, bits)
            elif ahead >= 0:
                beyond = nb[ahead, a]
                if beyond >= 0 and find(boxes, beyond) < 0:
                    replace_sorted(boxes, i, beyond, moved)
                    after[a] = pack(ahead, moved, bits)
            at = table[find_slot(table, keys, after[a])]
            gain[a] = here - dist[at] if at >= 0 else -99
        wander = random[t, 0] < noise
        candidates = (gain > -99) if wander else (gain == 1)
        pick = np.int64(random[t, 1] * candidates.sum())
        for a in range(4):
            if candidates[a]:
                if pick == 0:
                    actions[t], optimal[t], key = a, gain[a] == 1, after[a]
                    break
                pick -= 1
    return actions, optimal


@dataclass(frozen=True)
class DistanceTable:
    """Optimal length, in moves, of every solvable position of a layout (walls and targets)."""

    geometry: Geometry
    keys: np.ndarray
    dist: np.ndarray
    table: np.ndarray

    def distance(self, board: Board) -> int | None:
        """Moves to the nearest solution; None if there is none."""
        key = np.uint64(self.geometry.key(board.player, board.boxes))
        at = self.table[find_slot(self.table, self.keys, key)]
        return None if at < 0 else int(self.dist[at])

    def play(
        self, board: Board, rng: np.random.Generator, noise: float = 0.0, limit: int = 200
    ) -> tuple[str, list[bool]]:
        """Moves from `board` to a solution, at most `limit`, and which of them were optimal.

        Ties are broken at random. With probability `noise` a step is any move that keeps the level solvable.
        """
        bits = self.geometry.bits(len(board.boxes))
        key = np.uint64(self.geometry.key(board.player, board.boxes))
        random, nb = rng.random((limit, 2)), self.geometry.neighbours
        actions, optimal = _descend(nb, self.keys, self.dist, self.table, key, len(board.boxes), bits, noise, random)
        return "".join(MOVES[a] for a in actions), optimal.tolist()

    def positions(self, low: int, high: int) -> np.ndarray:
        """Packed states (uint64) whose optimal length lies in [low, high]."""
        found: np.ndarray = self.keys[(self.dist >= low) & (self.dist <= high)]
        return found

    def board(self, like: Board, key: int) -> Board:
        """The board of a packed state, with the walls and targets of `like`."""
        boxes = np.empty(len(self.geometry.targets), np.int64)
        player = unpack(np.uint64(key), boxes, self.geometry.bits(len(boxes)))
        cells = self.geometry.cells
        return replace(like, boxes=frozenset(cells[int(b)] for b in boxes), player=cells[int(player)])


def distances(board: Board) -> DistanceTable:
    """The distance table of a board's layout, with one box per target; boxes and player of `board` are ignored.

    Raises `LevelError` if a position does not fit into 64 bits.
    """
    geometry = Geometry.of(board)
    targets = np.array(geometry.targets, np.int64)
    bits = geometry.bits(len(targets))
    if bits == 0:
        raise LevelError(f"no distance table for {len(targets)} boxes on {len(geometry.cells)} floor cells: too many")
    keys, dist, table = _backward(geometry.neighbours, targets, bits)
    return DistanceTable(geometry, keys, dist, table)
