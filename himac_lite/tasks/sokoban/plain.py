"""The A* of `astar` in plain Python: the same solutions, without numba and without waiting for its compiler.

The floor is one integer with a bit for each place of the grid, so a step of a flood fill is a few shifts. The states,
their order in the queue and the pruning are those of `astar`, where they are explained; a test compares the two.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from himac_lite.tasks.sokoban.geometry import Geometry
from himac_lite.tasks.sokoban.searches import FAR, SLICE, Found, Limits, Outcome, Room, Start

_TICK = 256  # expansions between two readings of the clock
_NONE = 32_767  # cost of a state that was not yet reached


@dataclass
class Grid:
    """The floor of a layout. A place is the number of a bit; floor cell i is the place ``places[i]``.

    The border of the grid is free of floor, so no shift leads from one side of the board to the other.
    """

    places: list[int]
    targets: list[int]
    floor: int
    steps: tuple[int, int, int, int]
    """What a place changes by in the directions up, down, left and right."""
    _sides: dict[int, list[int]] = field(default_factory=dict)

    @classmethod
    def of(cls, geometry: Geometry) -> Grid:
        width = max(c for _, c in geometry.cells) + 3
        places = [(r + 1) * width + c + 1 for r, c in geometry.cells]
        floor = sum(1 << place for place in places)
        return cls(places, [places[t] for t in geometry.targets], floor, (-width, width, -1, 1))

    def flood(self, start: int, free: int) -> int:
        """The bits of `free` that are connected with the bit `start`."""
        width, reach, edge = self.steps[1], start, start
        while edge:
            edge = (edge >> width | edge << width | edge >> 1 | edge << 1) & free & ~reach
            reach |= edge
        return reach

    def sides(self, box: int) -> list[int]:
        """The part of the floor, without the box's place, that holds each of its four neighbours; 0 for a wall."""
        if (known := self._sides.get(box)) is not None:
            return known
        free = self.floor & ~(1 << box)
        parts: list[int] = []
        for step in self.steps:
            side = 1 << (box + step)
            parts.append(next((p for p in parts if p & side), 0) or (self.flood(side, free) if side & free else 0))
        self._sides[box] = parts
        return parts

    def distances(self, target: int) -> dict[int, int]:
        """Place → fewest pushes that bring a single box from there to the target; `bounds.push_distances`."""
        found = {target: 0}
        queue = [(target, a) for a in range(4) if self.sides(target)[a]]
        cost = dict.fromkeys(queue, 0)
        for box, at in queue:  # the queue grows
            came = box + self.steps[at]
            if not self.floor >> (came + self.steps[at]) & 1:
                continue
            sides = self.sides(came)
            for before in range(4):
                if sides[before] == sides[at] and (came, before) not in cost:
                    cost[came, before] = cost[box, at] + 1
                    found.setdefault(came, cost[came, before])
                    queue.append((came, before))
        return found


def push_distances(geometry: Geometry) -> np.ndarray:
    """int32 [G, F]: the fewest pushes that bring a single box from each cell to each target, `FAR` if impossible."""
    grid = Grid.of(geometry)
    rows = [[found.get(place, FAR) for place in grid.places] for found in map(grid.distances, grid.targets)]
    return np.array(rows, np.int32).reshape(len(rows), len(grid.places))


def bits(mask: int) -> Iterator[int]:
    """The places in a set of bits, in order."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def is_frozen(box: int, boxes: int, walls: int, alive: int, width: int) -> bool:
    """`bounds.is_frozen` on sets of bits. walls: walls, and the boxes that count as walls."""
    walls |= 1 << box
    for step in (width, 1):
        one, other = box - step, box + step
        if (walls >> one | walls >> other) & 1 or not (alive >> one | alive >> other) & 1:
            continue
        if boxes >> one & 1 and is_frozen(one, boxes, walls, alive, width):
            continue
        if boxes >> other & 1 and is_frozen(other, boxes, walls, alive, width):
            continue
        return False
    return True


def search(start: Start, limits: Limits, patience: float = float("inf")) -> Found | None:
    """`astar.search`, or None as soon as more than `patience` states would be kept."""
    began, grid, room = time.monotonic(), Grid.of(start.geometry), Room.of(start)
    bound_of, alive = _bounds(grid, len(start.boxes))
    not_target = ~sum(1 << t for t in grid.targets)
    width, walls = grid.steps[1], ~grid.floor
    first = sum(1 << grid.places[box] for box in start.boxes)
    player = 1 << grid.places[start.player]
    if not start.by_moves:
        player = _lowest(grid.flood(player, grid.floor & ~first))
    least = bound_of(first)
    if least >= FAR:
        return Found(Outcome.UNSOLVABLE, None, 1)
    # A state is (bit of the player, bits of the boxes); a push is (place of the box, direction).
    states, number = [(player, first)], {(player, first): 0}
    cost, bound, parent, push = [0], [least], [-1], [(0, 0)]
    queue: dict[int, list[tuple[int, int]]] = {least: [(0, 0)]}  # cost + bound → (state, its cost when queued)
    total, queued, most, left, tick = least, 1, 1, SLICE, 0
    while True:
        full = room.full(len(cost), most)
        if full or left == 0:
            if len(cost) >= limits.states or (full and 2 * room.bytes > limits.bytes):
                return Found(Outcome.STATES, None, len(cost))
            room.grow(len(cost), most)
            left = SLICE
        tick += 1
        if tick % _TICK == 0 and limits.seconds is not None and time.monotonic() - began > limits.seconds:
            return Found(Outcome.SECONDS, None, len(cost))
        if len(cost) > patience:
            return None
        left -= 1
        here = -1
        while here < 0:
            if not queued:
                return Found(Outcome.UNSOLVABLE, None, len(cost))
            if not (entries := queue.get(total)):
                total += 1
                continue
            at, price = entries.pop()
            queued -= 1
            if price == cost[at]:  # otherwise a cheaper path was found after it was queued
                here = at
        if bound[here] == 0:
            solved, pushes = here, []
            while here:
                pushes.append(push[here])
                here = parent[here]
            cells = {place: cell for cell, place in enumerate(grid.places)}
            return Found(Outcome.SOLVED, [(cells[p], a) for p, a in pushes[::-1]], len(cost), cost[solved])
        player, boxes = states[here]
        walks = _walks(grid, player, boxes)
        for box in bits(boxes):
            for a, step in enumerate(grid.steps):
                walk, beyond = walks.get(box - step), box + step
                if walk is None or not alive & ~boxes & 1 << beyond:
                    continue
                moved = boxes ^ (1 << box | 1 << beyond)
                near = 1 << beyond | 1 << (beyond - width) | 1 << (beyond + width) | 5 << (beyond - 1)
                if any(is_frozen(b, moved, walls, alive, width) for b in bits(near & moved & not_target)):
                    continue
                after = 1 << box
                if not start.by_moves:
                    after = _lowest(grid.flood(after, grid.floor & ~moved))
                price = cost[here] + 1 + (walk if start.by_moves else 0)
                known = number.setdefault((after, moved), len(cost))
                if known == len(cost):
                    states.append((after, moved))
                    bound.append(bound_of(moved))
                    cost.append(_NONE)
                    parent.append(here)
                    push.append((box, a))
                if bound[known] < FAR and price < cost[known]:
                    cost[known], parent[known], push[known] = price, here, (box, a)
                    queue.setdefault(max(total, price + bound[known]), []).append((known, price))
                    queued += 1
                    most = max(most, queued)


def _lowest(mask: int) -> int:
    return mask & -mask


def _walks(grid: Grid, player: int, boxes: int) -> dict[int, int]:
    """Place beside a box → steps of the player's shortest walk to it; places out of reach are left out."""
    width, free = grid.steps[1], grid.floor & ~boxes
    wanted = (boxes >> width | boxes << width | boxes >> 1 | boxes << 1) & free
    reach, edge, steps, walks = player, player, 0, {}
    while edge:
        for place in bits(edge & wanted):
            walks[place] = steps
        wanted &= ~edge
        if not wanted:
            break
        edge = (edge >> width | edge << width | edge >> 1 | edge << 1) & free & ~reach
        reach |= edge
        steps += 1
    return walks


def _bounds(grid: Grid, k: int) -> tuple[Callable[[int], int], int]:
    """The bound of a set of k boxes, and the places from which a box can reach a target."""
    found = [grid.distances(target) for target in grid.targets]
    rows = [[one.get(place, FAR) for place in range(max(grid.places) + 1)] for one in found]
    work = [[0] * (max(len(rows), k) + 1) for _ in range(6)]
    known: dict[int, int] = {}

    def bound(boxes: int) -> int:
        if boxes not in known:
            known[boxes] = least_cost(rows, list(bits(boxes)), k, work)
        return known[boxes]

    return bound, sum(1 << place for place in set().union(*found))


def least_cost(cost: Sequence[Any], rows: Sequence[int], k: int, work: Sequence[Any]) -> int:
    """The minimum total distance when each of k boxes gets its own target; at least `FAR` if there is no assignment.

    cost: [G][F]. rows: cells of the boxes. work: [6][G + 1], scratch space. Lists or arrays: numba compiles it as well.
    Source: the Hungarian method with potentials (Kuhn 1955; Jonker and Volgenant 1987), O(k² G).
    """
    m = len(cost)
    u, v, match, way, least, used = work[0], work[1], work[2], work[3], work[4], work[5]
    for j in range(m + 1):
        u[j] = v[j] = match[j] = 0
    for i in range(1, k + 1):
        match[0] = i
        column = 0
        for j in range(m + 1):
            least[j], used[j] = 1_000_000, 0
        while True:
            used[column] = 1
            row, delta, following = match[column], 1_000_000, 0
            for j in range(1, m + 1):
                if not used[j]:
                    reduced = cost[j - 1][rows[row - 1]] - u[row] - v[j]
                    if reduced < least[j]:
                        least[j] = reduced
                        way[j] = column
                    if least[j] < delta:
                        delta = least[j]
                        following = j
            for j in range(m + 1):
                if used[j]:
                    u[match[j]] += delta
                    v[j] -= delta
                else:
                    least[j] -= delta
            column = following
            if match[column] == 0:
                break
        while column:
            match[column] = match[way[column]]
            column = way[column]
    total = 0
    for j in range(1, m + 1):
        if match[j]:
            total += cost[j - 1][rows[match[j] - 1]]
    return total
