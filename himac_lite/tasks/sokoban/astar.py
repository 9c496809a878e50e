"""A* over pushes: optimal in pushes, or in moves, for boards of any size as far as time and memory go.

A state is the sorted boxes and a player cell. To count pushes, every cell that the player can walk to is the same
state, and the least of them stands for it; to count moves, it is the cell on which the last push left the player. The
bound is the cheapest assignment of boxes to targets by push distance (`bounds`), so solutions are optimal; among
states of equal sum the deepest is expanded first. States are dropped that hold a frozen box off a target, or boxes for
which no assignment exists. (Hart, Nilsson, Raphael 1968; Junghanns and Schaeffer 2001 for Sokoban.)
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numba import njit

from himac_lite.tasks.sokoban.bounds import FAR, is_deadlock, least_cost, push_distances

_SOLVED, _EXHAUSTED, _GROW, _PAUSED = range(4)
_SLICE = 20_000  # expansions between two looks at the clock
_DEAD = np.int16(-1)


class Outcome(Enum):
    """How a search ended."""

    SOLVED = "solved"
    UNSOLVABLE = "no solution"
    STATES = "the limit of states was reached"
    SECONDS = "the limit of time was reached"


@dataclass(frozen=True)
class Found:
    """pushes: (cell of the box, direction 0–3) one after the other, None unless solved; states: how many were kept;
    cost: the moves or pushes of the solution."""

    outcome: Outcome
    pushes: list[tuple[int, int]] | None
    states: int
    cost: int | None = None


class _Table:
    """Arrays of the search, S states long, that grow by doubling."""

    def __init__(self, k: int, floor: int, goals: int) -> None:
        self.state = np.empty((1 << 12, k + 1), np.uint8 if floor < 256 else np.uint16)  # player, then the boxes
        self.cost, self.bound = np.empty(1 << 12, np.int16), np.empty(1 << 12, np.int16)
        self.parent, self.push = np.empty(1 << 12, np.int32), np.empty((1 << 12, 2), self.state.dtype)
        self.slots = np.full(1 << 13, -1, np.int32)
        self.entry = np.empty((1 << 13, 3), np.int32)  # of the queue: state, its cost when it was queued, next entry
        self.bucket = np.full(4 * FAR, -1, np.int32)  # first entry of every sum of cost and bound
        self.counts = np.zeros(4, np.int64)  # states, entries, first free entry, lowest bucket
        self.counts[2] = -1

    def grow(self) -> None:
        """Twice the room for states, or for queue entries, whichever is full."""
        if self.counts[0] + 1024 > len(self.cost):
            for name in ("state", "cost", "bound", "parent", "push"):
                old = getattr(self, name)
                new = np.empty((2 * len(old), *old.shape[1:]), old.dtype)
                new[: len(old)] = old
                setattr(self, name, new)
                del old
            self.slots = np.full(2 * len(self.cost), -1, np.int32)
            _fill_slots(self.state, int(self.counts[0]), self.slots)
        if self.counts[1] + 1024 > len(self.entry):
            self.entry = np.concatenate((self.entry, np.empty_like(self.entry)))

    @property
    def bytes(self) -> int:
        arrays = (self.state, self.cost, self.bound, self.parent, self.push, self.slots, self.entry)
        return sum(array.nbytes for array in arrays)


def search(
    nb: np.ndarray, targets: np.ndarray, boxes: np.ndarray, player: int, by_moves: bool, max_states: int,
    max_bytes: int, seconds: float | None,
) -> Found:  # fmt: skip
    """Search from a position: nb int16 [F, 4]; cells of targets [G], of boxes [K ≤ G], and of the player."""
    began, k = time.monotonic(), len(boxes)
    nb64, targets = nb.astype(np.int64), np.asarray(targets, np.int64)
    distance = push_distances(nb64, targets)
    alive, target = np.asarray((distance < FAR).any(axis=0)), np.zeros(len(nb), np.bool_)
    target[targets] = True
    table = _Table(k, len(nb), len(targets))
    start = np.array([player, *sorted(boxes)], np.int64)
    if not _begin(nb64, distance, start, by_moves, table.state, table.cost, table.bound, table.parent, table.slots,
                  table.entry, table.bucket, table.counts):  # fmt: skip
        return Found(Outcome.UNSOLVABLE, None, 1)
    while True:
        status, last = _expand(
            nb64, distance, alive, target, by_moves, _SLICE, table.state, table.cost, table.bound, table.parent,
            table.push, table.slots, table.entry, table.bucket, table.counts,
        )  # fmt: skip
        states = int(table.counts[0])
        if status == _SOLVED:
            pushes, cost = [], int(table.cost[last])
            while last:
                pushes.append((int(table.push[last, 0]), int(table.push[last, 1])))
                last = table.parent[last]
            return Found(Outcome.SOLVED, pushes[::-1], states, cost)
        if status == _EXHAUSTED:
            return Found(Outcome.UNSOLVABLE, None, states)
        if states >= max_states or (status == _GROW and 2 * table.bytes > max_bytes):
            return Found(Outcome.STATES, None, states)
        if seconds is not None and time.monotonic() - began > seconds:
            return Found(Outcome.SECONDS, None, states)
        if status == _GROW:
            table.grow()


@njit(cache=True)
def _hash(state: np.ndarray, mask: int) -> np.int64:
    h = np.uint64(0xCBF29CE484222325)
    for value in state:
        h = (h ^ np.uint64(value)) * np.uint64(0x9E3779B97F4A7C15)
        h ^= h >> np.uint64(29)
    return np.int64(h & np.uint64(mask))


@njit(cache=True)
def _slot(states: np.ndarray, slots: np.ndarray, state: np.ndarray) -> np.int64:
    """The slot that holds a state, or the empty one where it belongs."""
    mask = len(slots) - 1
    at = _hash(state, mask)
    while slots[at] >= 0:
        known = states[slots[at]]
        same = True
        for i in range(len(state)):
            if known[i] != state[i]:
                same = False
                break
        if same:
            break
        at = (at + 1) & mask
    return at


@njit(cache=True)
def _fill_slots(states: np.ndarray, n: int, slots: np.ndarray) -> None:
    for i in range(n):
        slots[_slot(states, slots, states[i])] = i


@njit(cache=True)
def walk_steps(nb: np.ndarray, occupied: np.ndarray, player: int, steps: np.ndarray, queue: np.ndarray) -> int:
    """Steps from the player to every cell, −1 where it cannot get; returns the least cell that it can get to."""
    steps[:] = -1
    steps[player], queue[0], head, tail, least = 0, player, 0, 1, player
    while head < tail:
        here = queue[head]
        head += 1
        for a in range(4):
            near = nb[here, a]
            if near >= 0 and steps[near] < 0 and not occupied[near]:
                steps[near] = steps[here] + 1
                least = min(least, near)
                queue[tail] = near
                tail += 1
    return least


@njit(cache=True)
def _put(entry: np.ndarray, bucket: np.ndarray, counts: np.ndarray, state: int, cost: int, total: int) -> None:
    """Queue a state under its sum of cost and bound."""
    at = counts[2]
    if at >= 0:
        counts[2] = entry[at, 2]
    else:
        at = counts[1]
        counts[1] += 1
    entry[at, 0], entry[at, 1], entry[at, 2] = state, cost, bucket[total]
    bucket[total] = at
    counts[3] = min(counts[3], total)


@njit(cache=True)
def _begin(
    nb: np.ndarray, distance: np.ndarray, start: np.ndarray, by_moves: bool, states: np.ndarray, cost: np.ndarray,
    bound: np.ndarray, parent: np.ndarray, slots: np.ndarray, entry: np.ndarray, bucket: np.ndarray, counts: np.ndarray,
) -> bool:  # fmt: skip
    """Queue the start; False if its boxes cannot all get to targets."""
    occupied = np.zeros(len(nb), np.bool_)
    occupied[start[1:]] = True
    work = np.empty((5, max(len(distance), len(start)) + 1), np.int32)
    least = least_cost(distance, start[1:], len(start) - 1, work)
    if least >= FAR:
        return False
    if not by_moves:
        start[0] = walk_steps(nb, occupied, start[0], np.empty(len(nb), np.int32), np.empty(len(nb), np.int64))
    states[0] = start.astype(states.dtype)
    cost[0], bound[0], parent[0] = 0, least, -1
    slots[_slot(states, slots, states[0])] = 0
    counts[0], counts[3] = 1, least
    _put(entry, bucket, counts, 0, 0, least)
    return True


@njit(cache=True)
def _expand(
    nb: np.ndarray, distance: np.ndarray, alive: np.ndarray, target: np.ndarray, by_moves: bool, budget: int,
    states: np.ndarray, cost: np.ndarray, bound: np.ndarray, parent: np.ndarray, push: np.ndarray, slots: np.ndarray,
    entry: np.ndarray, bucket: np.ndarray, counts: np.ndarray,
) -> tuple[int, int]:  # fmt: skip
    """Expand `budget` states at most; returns how it ended and the solved state."""
    n, k = len(nb), states.shape[1] - 1
    occupied, as_wall = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    steps, other_steps = np.empty(n, np.int32), np.empty(n, np.int32)
    queue, boxes = np.empty(n, np.int64), np.empty(k, np.int64)
    child, moved = np.empty(k + 1, states.dtype), np.empty(k, np.int64)
    work = np.empty((5, max(len(distance), k) + 1), np.int32)
    for _ in range(budget):
        if counts[0] + 1024 > len(cost) or counts[1] + 1024 > len(entry):
            return _GROW, -1
        here = -1
        while here < 0:
            total = counts[3]
            if total >= len(bucket) - 1:
                return _EXHAUSTED, -1
            at = bucket[total]
            if at < 0:
                counts[3] += 1
                continue
            bucket[total] = entry[at, 2]
            entry[at, 2], counts[2] = counts[2], at
            if entry[at, 1] == cost[entry[at, 0]]:  # else a cheaper way to it was found since
                here = entry[at, 0]
        if bound[here] == 0:
            return _SOLVED, here
        for i in range(k):
            boxes[i] = states[here, i + 1]
            occupied[boxes[i]] = True
        walk_steps(nb, occupied, states[here, 0], steps, queue)
        for i in range(k):
            box = boxes[i]
            for a in range(4):
                behind, beyond = nb[box, a ^ 1], nb[box, a]
                if behind < 0 or steps[behind] < 0 or beyond < 0 or not alive[beyond] or occupied[beyond]:
                    continue
                occupied[box], occupied[beyond] = False, True
                if not is_deadlock(beyond, occupied, as_wall, nb, alive, target):
                    j = i  # the boxes stay sorted
                    moved[:] = boxes
                    moved[j] = beyond
                    while j > 0 and moved[j - 1] > moved[j]:
                        moved[j - 1], moved[j] = moved[j], moved[j - 1]
                        j -= 1
                    while j < k - 1 and moved[j + 1] < moved[j]:
                        moved[j + 1], moved[j] = moved[j], moved[j + 1]
                        j += 1
                    for j in range(k):
                        child[j + 1] = moved[j]
                    child[0] = box if by_moves else walk_steps(nb, occupied, box, other_steps, queue)
                    price = cost[here] + 1 + (steps[behind] if by_moves else 0)
                    slot = _slot(states, slots, child)
                    known = slots[slot]
                    if known < 0:
                        least = least_cost(distance, moved, k, work)
                        known = counts[0]
                        counts[0] += 1
                        slots[slot] = known
                        states[known] = child
                        bound[known] = least if least < FAR else _DEAD
                        cost[known] = 32_767
                    if bound[known] >= 0 and price < cost[known]:
                        cost[known], parent[known] = price, here
                        push[known, 0], push[known, 1] = box, a
                        # A bound that has fallen by more than the step cost (pathmax, Méró 1984) is lifted again.
                        _put(entry, bucket, counts, known, price, max(total, price + bound[known]))
                occupied[box], occupied[beyond] = True, False
        for i in range(k):
            occupied[boxes[i]] = False
    return _PAUSED, -1
