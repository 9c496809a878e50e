"""Exact search: optimal solutions of a level, and the distance to a solution of every position of a layout.

Both searches run over the same packed states (player and sorted boxes, one floor index each, in 64 bits) and are
compiled by numba at their first use. `solve` is a breadth-first search forwards from the level; `distances` is one
backwards from all solved positions, which yields thousands of positions with known optimal length at once and an
optimal move from anywhere: that is what the generator and the demonstrations need.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numba import njit

from himac_lite.errors import LevelError
from himac_lite.sokoban.rules import MOVES, STEP, Board, Outcome, board_from_level, step
from himac_lite.types import Cell, Level

MAX_STATES = 20_000_000
_NONE = -1
Array = np.ndarray


@dataclass(frozen=True)
class Solution:
    """A solution as LURD (capitals push), optimal in ``moves`` or in ``pushes`` as it was asked for."""

    lurd: str

    @property
    def moves(self) -> int:
        return len(self.lurd)

    @property
    def pushes(self) -> int:
        return sum(m.isupper() for m in self.lurd)


@dataclass(frozen=True)
class Geometry:
    """The floor of a layout: what the compiled searches work on. F floor cells, in reading order."""

    cells: tuple[Cell, ...]
    targets: tuple[int, ...]

    @classmethod
    def of(cls, board: Board) -> Geometry:
        cells = tuple((r, c) for r in range(board.height) for c in range(board.width) if (r, c) not in board.walls)
        index = {cell: i for i, cell in enumerate(cells)}
        return cls(cells, tuple(sorted(index[t] for t in board.targets)))

    @cached_property
    def index(self) -> dict[Cell, int]:
        return {cell: i for i, cell in enumerate(self.cells)}

    @cached_property
    def neighbours(self) -> np.ndarray:
        """int16 [F, 4]: the floor cell one step away, −1 for a wall."""
        out = np.full((len(self.cells), 4), _NONE, np.int16)
        for i, (r, c) in enumerate(self.cells):
            for a, move in enumerate(MOVES):
                dr, dc = STEP[move]
                out[i, a] = self.index.get((r + dr, c + dc), _NONE)
        return out

    @cached_property
    def alive(self) -> np.ndarray:
        """bool [F]: cells from which a lone box can still be pushed to some target (pulled back from it)."""
        nb = self.neighbours
        alive = np.zeros(len(self.cells), np.bool_)
        stack = list(self.targets)
        alive[stack] = True
        while stack:
            box = stack.pop()
            for a in range(4):
                # The box came from nb[box, back]; the pusher stood one further.
                came = nb[box, a]
                if came >= 0 and nb[came, a] >= 0 and not alive[came]:
                    alive[came] = True
                    stack.append(int(came))
        return alive

    def bits(self, n_boxes: int) -> int:
        """Bits for one floor index, or 0 if a state of so many boxes does not fit 64 bits."""
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
def _pack(player: int, boxes: np.ndarray, bits: int) -> np.uint64:
    key = np.uint64(player)
    for box in boxes:
        key = (key << np.uint64(bits)) | np.uint64(box)
    return key


@njit(cache=True)
def _unpack(key: np.uint64, boxes: np.ndarray, bits: int) -> np.int64:
    mask = np.uint64((1 << bits) - 1)
    for i in range(len(boxes) - 1, -1, -1):
        boxes[i] = np.int64(key & mask)
        key = key >> np.uint64(bits)
    return np.int64(key)


@njit(cache=True)
def _slot(table: np.ndarray, keys: np.ndarray, key: np.uint64) -> np.int64:
    """The slot of the open-addressing table that holds `key`, or the empty one where it belongs."""
    mask = np.uint64(len(table) - 1)
    at = (key * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(20)) & mask
    while table[np.int64(at)] >= 0 and keys[table[np.int64(at)]] != key:
        at = (at + np.uint64(1)) & mask
    return np.int64(at)


@njit(cache=True)
def _rehash(keys: np.ndarray, n: int, size: int) -> np.ndarray:
    table = np.full(size, -1, np.int32)
    for i in range(n):
        table[_slot(table, keys, keys[i])] = i
    return table


@njit(cache=True)
def _replace_sorted(boxes: np.ndarray, i: int, value: int | np.int64, out: np.ndarray) -> None:
    """Copy sorted `boxes` to `out` with element i changed to `value`, sorted again."""
    out[:] = boxes
    out[i] = value
    while i > 0 and out[i - 1] > out[i]:
        out[i - 1], out[i] = out[i], out[i - 1]
        i -= 1
    while i < len(out) - 1 and out[i + 1] < out[i]:
        out[i + 1], out[i] = out[i], out[i + 1]
        i += 1


@njit(cache=True)
def _find(boxes: np.ndarray, cell: int) -> int:
    for i in range(len(boxes)):
        if boxes[i] == cell:
            return i
    return -1


@njit(cache=True)
def _forward(
    nb: Array, alive: Array, target: Array, start: np.uint64, k: int, bits: int, by_pushes: bool, limit: int
) -> tuple[int, Array, Array]:
    """Breadth-first search; returns (goal state or −1 unsolvable / −2 limit, parents, moves).

    By moves, every successor joins the queue. By pushes, successors by a push wait until all that can be reached with
    fewer pushes has been expanded.
    """
    cap = 1 << 12
    keys = np.empty(cap, np.uint64)
    parent = np.empty(cap, np.int32)
    move = np.empty(cap, np.uint8)
    table = np.full(cap * 2, -1, np.int32)
    wait_key = np.empty(1 << 10, np.uint64)
    wait_from = np.empty(1 << 10, np.int32)
    wait_move = np.empty(1 << 10, np.uint8)
    n_wait = 0
    boxes = np.empty(k, np.int64)
    moved = np.empty(k, np.int64)
    keys[0] = start
    table[_slot(table, keys, start)] = 0
    n, head = 1, 0
    while head < n:
        if n + n_wait + 8 >= cap:
            while n + n_wait + 8 >= cap:
                cap *= 2
            if cap > limit:
                return -2, parent, move
            keys = np.append(keys, np.empty(cap - len(keys), np.uint64))
            parent = np.append(parent, np.empty(cap - len(parent), np.int32))
            move = np.append(move, np.empty(cap - len(move), np.uint8))
            table = _rehash(keys, n, cap * 2)
        player = _unpack(keys[head], boxes, bits)
        done = True
        for box in boxes:
            done = done and target[box]
        if done:
            return head, parent, move
        for a in range(4):
            ahead = nb[player, a]
            if ahead < 0:
                continue
            i = _find(boxes, ahead)
            if i < 0:
                key = _pack(ahead, boxes, bits)
            else:
                beyond = nb[ahead, a]
                if beyond < 0 or not alive[beyond] or _find(boxes, beyond) >= 0:
                    continue
                _replace_sorted(boxes, i, beyond, moved)
                key = _pack(ahead, moved, bits)
            slot = _slot(table, keys, key)
            if table[slot] >= 0:
                continue
            if by_pushes and i >= 0:
                if n_wait == len(wait_key):
                    wait_key = np.append(wait_key, np.empty(n_wait, np.uint64))
                    wait_from = np.append(wait_from, np.empty(n_wait, np.int32))
                    wait_move = np.append(wait_move, np.empty(n_wait, np.uint8))
                wait_key[n_wait], wait_from[n_wait], wait_move[n_wait] = key, head, a
                n_wait += 1
                continue
            keys[n], parent[n], move[n] = key, head, a
            table[slot] = n
            n += 1
        head += 1
        if head == n and n_wait:
            for w in range(n_wait):
                slot = _slot(table, keys, wait_key[w])
                if table[slot] < 0:
                    keys[n], parent[n], move[n] = wait_key[w], wait_from[w], wait_move[w]
                    table[slot] = n
                    n += 1
            n_wait = 0
    return -1, parent, move


@njit(cache=True)
def _backward(nb: np.ndarray, targets: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distances in moves of every position that can be solved: (keys [S], distance [S], hash table)."""
    k = len(targets)
    cap = 1 << 14
    keys = np.empty(cap, np.uint64)
    dist = np.empty(cap, np.int16)
    table = np.full(cap * 2, -1, np.int32)
    boxes = np.empty(k, np.int64)
    moved = np.empty(k, np.int64)
    n, head = 0, 0
    for cell in range(len(nb)):
        if _find(targets, cell) < 0:
            key = _pack(cell, targets, bits)
            keys[n], dist[n] = key, 0
            table[_slot(table, keys, key)] = n
            n += 1
    while head < n:
        if n + 8 >= cap:
            cap *= 2
            keys = np.append(keys, np.empty(cap - len(keys), np.uint64))
            dist = np.append(dist, np.empty(cap - len(dist), np.int16))
            table = _rehash(keys, n, cap * 2)
        player = _unpack(keys[head], boxes, bits)
        for a in range(4):
            before = nb[player, a ^ 1]  # the player stood here before moving in direction a
            if before < 0 or _find(boxes, before) >= 0:
                continue
            ahead = nb[player, a]
            i = _find(boxes, ahead) if ahead >= 0 else -1
            for pushed in range(2):
                if pushed and i < 0:
                    continue
                if pushed:
                    _replace_sorted(boxes, i, player, moved)
                    key = _pack(before, moved, bits)
                else:
                    key = _pack(before, boxes, bits)
                slot = _slot(table, keys, key)
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
    """Walk down the distances with occasional random moves; returns (actions, whether each was optimal)."""
    actions = np.empty(len(random), np.uint8)
    optimal = np.empty(len(random), np.bool_)
    boxes = np.empty(k, np.int64)
    moved = np.empty(k, np.int64)
    after = np.empty(4, np.uint64)
    gain = np.empty(4, np.int64)
    for t in range(len(random)):
        here = dist[table[_slot(table, keys, key)]]
        if here == 0:
            return actions[:t], optimal[:t]
        player = _unpack(key, boxes, bits)
        for a in range(4):
            ahead = nb[player, a]
            i = _find(boxes, ahead) if ahead >= 0 else -1
            after[a] = key  # blocked, unless it turns out otherwise
            if ahead >= 0 and i < 0:
                after[a] = _pack(ahead, boxes, bits)
            elif ahead >= 0:
                beyond = nb[ahead, a]
                if beyond >= 0 and _find(boxes, beyond) < 0:
                    _replace_sorted(boxes, i, beyond, moved)
                    after[a] = _pack(ahead, moved, bits)
            at = table[_slot(table, keys, after[a])]
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
        """Moves to the nearest solution; None where there is none."""
        key = np.uint64(self.geometry.key(board.player, board.boxes))
        at = self.table[_slot(self.table, self.keys, key)]
        return None if at < 0 else int(self.dist[at])

    def best_moves(self, board: Board) -> str:
        """Every move, lower case, that begins an optimal solution; empty where there is none."""
        here = self.distance(board)
        if not here:
            return ""
        out = ""
        for move in MOVES:
            after, outcome = step(board, move)
            if outcome is not Outcome.BLOCKED and self.distance(after) == here - 1:
                out += move
        return out

    def play(
        self, board: Board, rng: np.random.Generator, noise: float = 0.0, limit: int = 200
    ) -> tuple[str, list[bool]]:
        """Moves from `board` to a solution (or `limit` of them), and which of them were optimal.

        Ties are broken at random; with probability `noise` a step is any move that leaves the level solvable.
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
        """The board of a packed state; `like` gives walls and targets."""
        boxes = np.empty(len(self.geometry.targets), np.int64)
        player = _unpack(np.uint64(key), boxes, self.geometry.bits(len(boxes)))
        cells = self.geometry.cells
        return replace(like, boxes=frozenset(cells[int(b)] for b in boxes), player=cells[int(player)])


def distances(board: Board) -> DistanceTable:
    """The distance table of a board's layout (its boxes and player are ignored; one box a target).

    Raises `LevelError` where a position does not fit 64 bits.
    """
    geometry = Geometry.of(board)
    targets = np.array(geometry.targets, np.int64)
    bits = geometry.bits(len(targets))
    if bits == 0:
        raise LevelError(f"no distance table for {len(targets)} boxes on {len(geometry.cells)} floor cells: too many")
    keys, dist, table = _backward(geometry.neighbours, targets, bits)
    return DistanceTable(geometry, keys, dist, table)


def solve(level: Level, optimal: str = "moves", max_states: int = MAX_STATES) -> Solution | None:
    """An optimal solution of a level, or None if it has none (or needs more than `max_states` states).

    optimal: ``moves`` for the fewest moves, ``pushes`` for the fewest pushes (and short walks between them).
    """
    if optimal not in ("moves", "pushes"):
        raise ValueError(f"optimal must be 'moves' or 'pushes', not {optimal!r}")
    board = board_from_level(level)
    geometry = Geometry.of(board)
    bits = geometry.bits(len(board.boxes))
    if bits == 0 or len(board.boxes) > len(board.targets):
        return None
    target = np.zeros(len(geometry.cells), np.bool_)
    target[list(geometry.targets)] = True
    start = np.uint64(geometry.key(board.player, board.boxes))
    goal, parent, move = _forward(
        geometry.neighbours, geometry.alive, target, start, len(board.boxes), bits, optimal == "pushes", max_states
    )
    if goal < 0:
        return None
    letters = []
    while goal != 0:
        letters.append(MOVES[move[goal]])
        goal = parent[goal]
    return Solution(as_lurd(board, "".join(reversed(letters))))


def as_lurd(board: Board, moves: str) -> str:
    """Moves with the pushes in capitals."""
    out = []
    for m in moves:
        board, outcome = step(board, m)
        out.append(m.upper() if outcome is Outcome.PUSHED else m.lower())
    return "".join(out)
