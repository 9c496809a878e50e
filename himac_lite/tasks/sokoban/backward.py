"""The backward search of `distances` and play by its table, compiled by numba."""

from __future__ import annotations

import numpy as np

from himac_lite.tasks.sokoban.jit import kernel
from himac_lite.tasks.sokoban.packed import find, find_slot, pack, rehash, replace_sorted, unpack

Array = np.ndarray


@kernel
def backward(nb: np.ndarray, targets: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Optimal length in moves of every solvable position: (keys [S], distance [S])."""
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
    return keys[:n], dist[:n]


@kernel
def descend(
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
