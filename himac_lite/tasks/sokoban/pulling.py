"""Random pulls of `binned`, compiled by numba."""

from __future__ import annotations

import numpy as np

from himac_lite.tasks.sokoban.astar import walk_steps
from himac_lite.tasks.sokoban.jit import kernel


@kernel
def pull(nb: np.ndarray, boxes: np.ndarray, player: int, random: np.ndarray) -> tuple[np.ndarray, int]:
    """Boxes and player after one random pull for each row of `random` [T, 2].

    Half of the time the box of the last pull is pulled again, if possible: single pulls undo each other.
    """
    n, k, last = len(nb), len(boxes), -1
    boxes = boxes.copy()
    occupied = np.zeros(n, np.bool_)
    for box in boxes:
        occupied[box] = True
    steps, queue = np.empty(n, np.int32), np.empty(n, np.int64)
    options = np.empty((4 * k, 2), np.int64)
    for t in range(len(random)):
        walk_steps(nb, occupied, player, steps, queue)
        count, own = 0, 0
        for i in range(k):
            for a in range(4):
                beside = nb[boxes[i], a]  # the player stands here, and steps back in direction a
                if beside >= 0 and steps[beside] >= 0 and nb[beside, a] >= 0 and not occupied[nb[beside, a]]:
                    options[count, 0], options[count, 1] = i, a
                    own += i == last
                    count += 1
        if count == 0:
            break
        on = own > 0 and random[t, 0] < 0.5
        pick = np.int64(random[t, 1] * (own if on else count))
        for j in range(count):
            if on and options[j, 0] != last:
                continue
            if pick == 0:
                i, a = options[j, 0], options[j, 1]
                beside = nb[boxes[i], a]
                occupied[boxes[i]], occupied[beside] = False, True
                boxes[i], player, last = beside, nb[beside, a], i
                break
            pick -= 1
    return boxes, player
