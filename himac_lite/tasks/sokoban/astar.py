"""A* over pushes: solutions with the fewest pushes or the fewest moves, for boards of any size.

A state is the sorted boxes and a player cell. When pushes are counted, all cells that the player can walk to are one
state, and the lowest cell number stands for them. When moves are counted, the cell is where the last push left the
player. The bound is the cheapest assignment of boxes to targets by push distance (`bounds`), so solutions are optimal.
Among states of equal cost + bound, the deepest is expanded first. A state with a frozen box off a target, or without an
assignment, is pruned. Sources: Hart, Nilsson and Raphael 1968; Junghanns and Schaeffer 2001 (Sokoban).
"""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np

from himac_lite.tasks.sokoban.bounds import is_deadlock, least_cost, push_distances
from himac_lite.tasks.sokoban.jit import kernel
from himac_lite.tasks.sokoban.packed import replace_sorted
from himac_lite.tasks.sokoban.searches import FAR, MARGIN, SLICE, Found, Limits, Outcome, Room, Start

_SOLVED, _EXHAUSTED, _GROW, _PAUSED = range(4)
_DEAD = np.int16(-1)


class _Table(NamedTuple):
    """Arrays of the search, with room for S states and Q queue entries."""

    state: np.ndarray  # [S, 1 + K]: player, then the boxes
    cost: np.ndarray
    bound: np.ndarray
    parent: np.ndarray
    push: np.ndarray  # [S, 2]: cell of the box, direction
    slots: np.ndarray  # hash table of states
    entry: np.ndarray  # [Q, 3]: state, its cost when it was queued, next entry
    bucket: np.ndarray  # first entry of every cost + bound
    counts: np.ndarray  # states, entries, first free entry, lowest bucket

    @classmethod
    def new(cls, room: Room) -> _Table:
        size, k, cell = room.states, room.boxes, np.dtype(f"u{room.cell_bytes}")
        return cls(
            np.empty((size, k + 1), cell), np.empty(size, np.int16), np.empty(size, np.int16), np.empty(size, np.int32),
            np.empty((size, 2), cell), np.full(2 * size, -1, np.int32), np.empty((room.entries, 3), np.int32),
            np.full(4 * FAR, -1, np.int32), np.array([0, 0, -1, 0], np.int64),
        )  # fmt: skip

    def of_size(self, room: Room) -> _Table:
        """The table with room for more states or more queue entries."""
        table = self
        if room.states > len(self.cost):
            names = ("state", "cost", "bound", "parent", "push")
            table = table._replace(**{name: _longer(getattr(self, name), room.states) for name in names})
            table = table._replace(slots=np.full(2 * room.states, -1, np.int32))
            _fill_slots(table.state, int(self.counts[0]), table.slots)
        if room.entries > len(self.entry):
            table = table._replace(entry=_longer(self.entry, room.entries))
        return table


def _longer(old: np.ndarray, size: int) -> np.ndarray:
    new = np.empty((size, *old.shape[1:]), old.dtype)
    new[: len(old)] = old
    return new


def search(start: Start, limits: Limits) -> Found:
    """Search from a position."""
    began, room = time.monotonic(), Room.of(start)
    nb, targets = start.geometry.neighbours.astype(np.int64), np.array(start.geometry.targets, np.int64)
    distance = push_distances(nb, targets)
    alive, target = np.asarray((distance < FAR).any(axis=0)), np.zeros(len(nb), np.bool_)
    target[targets] = True
    table = _Table.new(room)
    if not _begin(nb, distance, np.array([start.player, *start.boxes], np.int64), start.by_moves, table):
        return Found(Outcome.UNSOLVABLE, None, 1)
    while True:
        status, last = _expand(nb, distance, alive, target, start.by_moves, SLICE, table)
        states, entries = int(table.counts[0]), int(table.counts[1])
        if status == _SOLVED:
            pushes, cost = [], int(table.cost[last])
            while last:
                pushes.append((int(table.push[last, 0]), int(table.push[last, 1])))
                last = table.parent[last]
            return Found(Outcome.SOLVED, pushes[::-1], states, cost)
        if status == _EXHAUSTED:
            return Found(Outcome.UNSOLVABLE, None, states)
        if states >= limits.states or (status == _GROW and 2 * room.bytes > limits.bytes):
            return Found(Outcome.STATES, None, states)
        if limits.seconds is not None and time.monotonic() - began > limits.seconds:
            return Found(Outcome.SECONDS, None, states)
        if status == _GROW:
            room.grow(states, entries)
            table = table.of_size(room)


@kernel
def _hash(state: np.ndarray, mask: int) -> np.int64:
    h = np.uint64(0xCBF29CE484222325)
    for value in state:
        h = (h ^ np.uint64(value)) * np.uint64(0x9E3779B97F4A7C15)
        h ^= h >> np.uint64(29)
    return np.int64(h & np.uint64(mask))


@kernel
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


@kernel
def _fill_slots(states: np.ndarray, n: int, slots: np.ndarray) -> None:
    for i in range(n):
        slots[_slot(states, slots, states[i])] = i


@kernel
def walk_steps(nb: np.ndarray, occupied: np.ndarray, player: int, steps: np.ndarray, queue: np.ndarray) -> int:
    """Write the steps from the player to every cell, −1 if unreachable; return the lowest reachable cell number."""
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


@kernel
def _put(entry: np.ndarray, bucket: np.ndarray, counts: np.ndarray, state: int, cost: int, total: int) -> None:
    """Queue a state under `total`, its cost + bound."""
    at = counts[2]
    if at >= 0:
        counts[2] = entry[at, 2]
    else:
        at = counts[1]
        counts[1] += 1
    entry[at, 0], entry[at, 1], entry[at, 2] = state, cost, bucket[total]
    bucket[total] = at
    counts[3] = min(counts[3], total)


@kernel
def _begin(nb: np.ndarray, distance: np.ndarray, start: np.ndarray, by_moves: bool, table: _Table) -> bool:
    """Queue the start state; False if its boxes have no assignment to targets."""
    states, cost, bound, parent, _, slots, entry, bucket, counts = table
    occupied = np.zeros(len(nb), np.bool_)
    occupied[start[1:]] = True
    work = np.empty((6, max(len(distance), len(start)) + 1), np.int32)
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


@kernel
def _expand(
    nb: np.ndarray, distance: np.ndarray, alive: np.ndarray, target: np.ndarray, by_moves: bool, budget: int,
    table: _Table,
) -> tuple[int, int]:  # fmt: skip
    """Expand at most `budget` states; return the status and the solved state."""
    states, cost, bound, parent, push, slots, entry, bucket, counts = table
    n, k = len(nb), states.shape[1] - 1
    occupied, as_wall = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    steps, other_steps = np.empty(n, np.int32), np.empty(n, np.int32)
    queue, boxes = np.empty(n, np.int64), np.empty(k, np.int64)
    child, moved = np.empty(k + 1, states.dtype), np.empty(k, np.int64)
    work = np.empty((6, max(len(distance), k) + 1), np.int32)
    for _ in range(budget):
        if counts[0] + MARGIN > len(cost) or counts[1] + MARGIN > len(entry):
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
            if entry[at, 1] == cost[entry[at, 0]]:  # otherwise a cheaper path was found after it was queued
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
                    replace_sorted(boxes, i, beyond, moved)
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
                        # Pathmax (Méró 1984): the bound of a child is never lower than its parent's minus the step.
                        _put(entry, bucket, counts, known, price, max(total, price + bound[known]))
                occupied[box], occupied[beyond] = True, False
        for i in range(k):
            occupied[boxes[i]] = False
    return _PAUSED, -1
