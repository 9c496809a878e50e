"""The rules of `sokoban.rules` for thousands of boards of mixed sizes, compiled by numba on first use.

The kernels read two cells ahead of the player and change at most three. They require boards enclosed by walls and check
nothing. They release the GIL, and `in_parts` splits a large batch among threads. Unlike numba's own parallel loops,
these threads survive a later fork of the process.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np

from himac_lite.processors import cores as _cores
from himac_lite.tasks.sokoban.jit import kernel
from himac_lite.tasks.sokoban.rules import BOX, MOVES, PLAYER, STEP, TARGET, Outcome

_DELTA = np.array([STEP[m] for m in MOVES], np.int64)  # [4, 2]
_OUTCOME = np.array([Outcome.BLOCKED.value, Outcome.MOVED.value, Outcome.PUSHED.value], np.int64)
_PART = 16_384  # boards per thread: about 0.1 ms of work, ten times the cost of a thread switch


def step_batch(cells: np.ndarray, player: np.ndarray, action: np.ndarray) -> np.ndarray:
    """One move on every board, in place.

    cells: uint8 [B, H, W] from `cells.pack`. player: int64 [B, 2]. action: int [B], 0–3 in the order of `MOVES`.
    Returns the outcome numbers int64 [B] (see `Outcome`). Raises `ValueError` for another shape or action.
    """
    action = np.asarray(action, np.int64)
    if cells.ndim != 3 or player.shape != (len(cells), 2) or action.shape != (len(cells),):
        raise ValueError(f"cells [B, H, W], player [B, 2], action [B] expected, not {cells.shape}, {player.shape}, "
                         f"{action.shape}")  # fmt: skip
    if len(action) and not 0 <= action.min() <= action.max() <= 3:
        raise ValueError("an action is 0, 1, 2 or 3")
    outcome = np.empty(len(cells), np.int64)
    in_parts(_step_all, len(cells), cells, player, action, outcome)
    return outcome


def in_parts(kernel: Callable[..., None], n: int, *arguments: object) -> None:
    """Call ``kernel(low, high, *arguments)`` over [0, n): in one call, or for large n in one call per core."""
    parts = min(_cores(), n // _PART)
    if parts < 2:
        kernel(0, n, *arguments)
        return
    bounds = [n * i // parts for i in range(parts + 1)]
    calls = [_pool(os.getpid()).submit(kernel, bounds[i], bounds[i + 1], *arguments) for i in range(1, parts)]
    kernel(0, bounds[1], *arguments)
    for call in calls:
        call.result()


@cache
def _pool(process: int) -> ThreadPoolExecutor:
    """The threads of this process: a forked child inherits the parent's pool object, but not its threads."""
    return ThreadPoolExecutor(_cores(), "sokoban")


@kernel(nogil=True, inline="always")
def _step(flat: np.ndarray, at: int, d: int) -> int:
    """One move of the player at index `at` by `d` cells, in place; returns 1 for a move, 2 for a push, 0 if blocked.

    There are no branches, because on thousands of boards no branch is predictable.
    """
    ahead = np.int64(flat[at + d])
    box = ahead >> 2 & 1
    last = at + d + d * box  # the cell that must be free: beyond the box, if there is one
    blocked = (ahead | flat[last] | (box & flat[last] >> 2)) & 1
    push = box & ~blocked
    mark = np.uint8(PLAYER * (1 - blocked))
    flat[at] ^= mark
    flat[at + d] ^= mark | np.uint8(BOX * push)
    flat[at + d + d * push] ^= np.uint8(BOX * push)
    return 1 - blocked + push


@kernel(nogil=True)
def _step_all(
    low: int, high: int, cells: np.ndarray, player: np.ndarray, action: np.ndarray, outcome: np.ndarray
) -> None:
    flat, size, width = cells.reshape(-1), cells.shape[1] * cells.shape[2], cells.shape[2]
    for i in range(low, high):
        dr, dc = _DELTA[action[i], 0], _DELTA[action[i], 1]
        done = _step(flat, i * size + player[i, 0] * width + player[i, 1], dr * width + dc)
        player[i, 0] += dr * (done > 0)
        player[i, 1] += dc * (done > 0)
        outcome[i] = _OUTCOME[done]


@kernel(nogil=True)
def step_episodes(
    low: int, high: int, cells: np.ndarray, player: np.ndarray, action: np.ndarray, skip: np.ndarray,
    missing: np.ndarray, moves: np.ndarray, gained: np.ndarray, solved: np.ndarray, late: np.ndarray, limit: int,
) -> None:  # fmt: skip
    """One step of every episode that `skip` does not mark; all arrays have length B and are written in place.

    missing: boxes off target. moves: steps taken. gained: boxes pushed onto targets minus boxes pushed off.
    solved: no box is missing. late: not solved after `limit` steps.
    """
    flat, size, width = cells.reshape(-1), cells.shape[1] * cells.shape[2], cells.shape[2]
    for i in range(low, high):
        gained[i] = 0
        if skip[i]:
            solved[i] = late[i] = False
            continue
        dr, dc = _DELTA[action[i], 0], _DELTA[action[i], 1]
        at, d = i * size + player[i, 0] * width + player[i, 1], dr * width + dc
        done = _step(flat, at, d)
        player[i, 0] += dr * (done > 0)
        player[i, 1] += dc * (done > 0)
        if done == 2:  # the box is now one cell ahead of the player
            gained[i] = np.int64(flat[at + 2 * d] & TARGET > 0) - np.int64(flat[at + d] & TARGET > 0)
            missing[i] -= gained[i]
        moves[i] += 1
        solved[i] = missing[i] == 0
        late[i] = not solved[i] and moves[i] >= limit


@kernel(nogil=True)
def begin_episodes(
    low: int, high: int, which: np.ndarray, level: np.ndarray, start_cells: np.ndarray, start_player: np.ndarray,
    start_missing: np.ndarray, cells: np.ndarray, player: np.ndarray, missing: np.ndarray, moves: np.ndarray,
) -> None:  # fmt: skip
    """Reset the boards `which` to the start of their level in `level`."""
    for k in range(low, high):
        i = which[k]
        start = level[i]
        for r in range(cells.shape[1]):
            for c in range(cells.shape[2]):
                cells[i, r, c] = start_cells[start, r, c]
        player[i, 0], player[i, 1] = start_player[start, 0], start_player[start, 1]
        missing[i] = start_missing[start]
        moves[i] = 0


@kernel(nogil=True)
def paint_tiles(low: int, high: int, cells: np.ndarray, sprites: np.ndarray, out: np.ndarray) -> None:
    """cells [B, H, W] and sprites [16, T, 3·T] → out [B, H, T, W, 3·T]: the pixels of every board."""
    _, height, width = cells.shape
    tile, row = sprites.shape[1], sprites.shape[2]
    for i in range(low, high):
        for r in range(height):
            for y in range(tile):
                for c in range(width):
                    code = cells[i, r, c]
                    for x in range(row):
                        out[i, r, y, c, x] = sprites[code, y, x]
