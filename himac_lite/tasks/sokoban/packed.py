"""Positions packed into 64 bits, and a hash table of them: kernels of the compiled searches."""

from __future__ import annotations

import numpy as np

from himac_lite.tasks.sokoban.jit import kernel


@kernel
def pack(player: int, boxes: np.ndarray, bits: int) -> np.uint64:
    key = np.uint64(player)
    for box in boxes:
        key = (key << np.uint64(bits)) | np.uint64(box)
    return key


@kernel
def unpack(key: np.uint64, boxes: np.ndarray, bits: int) -> np.int64:
    mask = np.uint64((1 << bits) - 1)
    for i in range(len(boxes) - 1, -1, -1):
        boxes[i] = np.int64(key & mask)
        key = key >> np.uint64(bits)
    return np.int64(key)


@kernel
def find_slot(table: np.ndarray, keys: np.ndarray, key: np.uint64) -> np.int64:
    """The slot of the open-addressing table that holds `key`, or the empty one where it belongs."""
    mask = np.uint64(len(table) - 1)
    at = (key * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(20)) & mask
    while table[np.int64(at)] >= 0 and keys[table[np.int64(at)]] != key:
        at = (at + np.uint64(1)) & mask
    return np.int64(at)


@kernel
def rehash(keys: np.ndarray, n: int, size: int) -> np.ndarray:
    table = np.full(size, -1, np.int32)
    for i in range(n):
        table[find_slot(table, keys, keys[i])] = i
    return table


@kernel
def replace_sorted(boxes: np.ndarray, i: int, value: int | np.int64, out: np.ndarray) -> None:
    """Copy sorted `boxes` to `out` with element i replaced by `value`, sorted again."""
    out[:] = boxes
    out[i] = value
    while i > 0 and out[i - 1] > out[i]:
        out[i - 1], out[i] = out[i], out[i - 1]
        i -= 1
    while i < len(out) - 1 and out[i + 1] < out[i]:
        out[i + 1], out[i] = out[i], out[i + 1]
        i += 1


@kernel
def find(boxes: np.ndarray, cell: int) -> int:
    for i in range(len(boxes)):
        if boxes[i] == cell:
            return i
    return -1
