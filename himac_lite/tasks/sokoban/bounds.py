"""Push distances, the lower bound and the deadlock test of A*.

Floor cells are numbered in reading order; ``nb[cell, a]`` is the neighbour in direction a (up, down, left, right), −1
for a wall. ``a ^ 1`` is the opposite direction.
"""

from __future__ import annotations

import numpy as np

from himac_lite.tasks.sokoban import plain
from himac_lite.tasks.sokoban.jit import kernel
from himac_lite.tasks.sokoban.searches import FAR

least_cost = kernel(plain.least_cost)


@kernel
def push_distances(nb: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """int32 [G, F]: the fewest pushes that bring a single box from each cell to each target, `FAR` if impossible.

    Between two pushes the player must be able to walk around the box. The search runs backwards over (cell of the box,
    side on which the player stands); the result is the minimum over the four sides.
    """
    n = len(nb)
    part = np.full((n, 4), -1, np.int64)  # connected part of the floor, without the box's cell, of each side
    mark, stack = np.empty(n, np.int64), np.empty(n, np.int64)
    for box in range(n):
        mark[:] = -1
        mark[box] = n
        for a in range(4):
            start = nb[box, a]
            if start < 0:
                continue
            if mark[start] < 0:
                mark[start] = a
                stack[0], top = start, 1
                while top:
                    top -= 1
                    here = stack[top]
                    for b in range(4):
                        near = nb[here, b]
                        if near >= 0 and mark[near] < 0:
                            mark[near] = a
                            stack[top] = near
                            top += 1
            part[box, a] = mark[start]
    return _pulls(nb, targets, part)


@kernel
def _pulls(nb: np.ndarray, targets: np.ndarray, part: np.ndarray) -> np.ndarray:
    n = len(nb)
    out = np.full((len(targets), n), FAR, np.int32)
    side = np.empty((n, 4), np.int32)
    queue = np.empty((4 * n, 2), np.int64)
    for t in range(len(targets)):
        side[:] = FAR
        head, tail = 0, 0
        for a in range(4):
            if part[targets[t], a] >= 0:
                side[targets[t], a] = 0
                queue[tail, 0], queue[tail, 1] = targets[t], a
                tail += 1
        out[t, targets[t]] = 0
        while head < tail:
            box, at = queue[head, 0], queue[head, 1]
            head += 1
            # After a push the player stands on the box's previous cell.
            came = nb[box, at]
            if nb[came, at] < 0:
                continue
            for before in range(4):  # sides from which the player can walk to the pushing side
                if part[came, before] == part[came, at] and side[came, before] == FAR:
                    side[came, before] = side[box, at] + 1
                    out[t, came] = min(out[t, came], side[came, before])
                    queue[tail, 0], queue[tail, 1] = came, before
                    tail += 1
    return out


@kernel
def is_frozen(box: int, occupied: np.ndarray, as_wall: np.ndarray, nb: np.ndarray, alive: np.ndarray) -> bool:
    """Whether a box can never move again, because it is blocked along both axes.

    It is blocked along an axis by a wall, by dead cells on both sides (no box gets from them to a target), or by a
    neighbour that is frozen when this box counts as a wall. as_wall: bool [F], all false before and after the call.
    """
    as_wall[box] = True
    frozen = True
    for axis in (0, 2):
        one, other = nb[box, axis], nb[box, axis + 1]
        blocked = one < 0 or other < 0 or as_wall[one] or as_wall[other] or not (alive[one] or alive[other])
        if not blocked and occupied[one]:
            blocked = is_frozen(one, occupied, as_wall, nb, alive)
        if not blocked and occupied[other]:
            blocked = is_frozen(other, occupied, as_wall, nb, alive)
        if not blocked:
            frozen = False
            break
    as_wall[box] = False
    return frozen


@kernel
def is_deadlock(
    box: int, occupied: np.ndarray, as_wall: np.ndarray, nb: np.ndarray, alive: np.ndarray, target: np.ndarray
) -> bool:
    """Whether the box that was just pushed, or a box beside it, is frozen off a target."""
    if not target[box] and is_frozen(box, occupied, as_wall, nb, alive):
        return True
    for a in range(4):
        near = nb[box, a]
        if near >= 0 and occupied[near] and not target[near] and is_frozen(near, occupied, as_wall, nb, alive):
            return True
    return False
