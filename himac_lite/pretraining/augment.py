"""Batches of Sokoban demonstrations, each under a random one of the 8 symmetries of the square: images cost nothing."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from himac_lite.pretraining import Batch
from himac_lite.pretraining.lessons import padded
from himac_lite.tasks.sokoban import language
from himac_lite.tasks.sokoban.rules import MOVES, NAMES, STEP, Board, Outcome
from himac_lite.types import Cell, Role

_VOCABULARY = {piece: i for i, piece in enumerate(language.vocabulary())}
_BUCKET = 16
"""Lengths are padded to a multiple of this: little waste, and few shapes."""


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One training sequence of the small model; `learn[t]` is true where the loss counts token t."""

    role: Role
    size: int
    ids: tuple[int, ...]
    learn: tuple[bool, ...]
    boards: tuple[Board, ...] = ()
    """The board of the prompt, and the board after every push that the sequence makes or plans."""


def symmetric_batches(
    demonstrations: Iterator[Demonstration], batch_tokens: int, rng: np.random.Generator
) -> Iterator[Batch]:
    """Full batches of about `batch_tokens` tokens, of similar length, padded with 0.

    What does not fill a batch stays for the next pool: otherwise lengths that are rare would never be learnt.
    """
    rest: list[Demonstration] = []
    while True:
        pool = rest + list(itertools.islice(demonstrations, 8 * batch_tokens // 80))
        pool.sort(key=lambda d: -(-len(d.ids) // _BUCKET))
        made, rest = [], []
        while pool:
            length = -(-len(pool[0].ids) // _BUCKET) * _BUCKET
            count = max(1, batch_tokens // length)
            group = [d for d in pool[:count] if len(d.ids) <= length]
            pool = pool[len(group) :]
            if len(group) == count:
                made.append(_collate(group, length, rng))
            else:
                rest += group
        for i in rng.permutation(len(made)):
            yield made[i]


def _collate(group: list[Demonstration], length: int, rng: np.random.Generator) -> Batch:
    ids, learn = padded([(d.ids, d.learn) for d in group], length)
    symmetry = rng.integers(0, 8, len(group))
    for role, size in {(d.role, d.size) for d in group}:
        rows = np.array([d.role is role and d.size == size for d in group])
        ids[rows] = apply_symmetry(ids[rows], role, size, symmetry[rows])
    return ids, learn


@lru_cache
def symmetry_tables(size: int) -> tuple[np.ndarray, np.ndarray]:
    """What each of the 8 symmetries does to a board of `size`: (cells [8, n·n] → cell, tokens [8, V] → token)."""
    grid = np.arange(size * size).reshape(size, size)
    cells = np.empty((8, size * size), np.int64)
    tokens = np.tile(np.arange(len(_VOCABULARY)), (8, 1))
    centre = (size // 2, size // 2)
    for s in range(8):
        # Mirrored where s is odd, then turned s // 2 times; what stands at a cell now came from the cell it names.
        cells[s, np.rot90(grid[:, :: 1 - 2 * (s % 2)], -(s // 2)).ravel()] = grid.ravel()

        def image(cell: Cell, s: int = s) -> Cell:
            r, c = divmod(int(cells[s, cell[0] * size + cell[1]]), size)
            return r, c

        pairs = []
        for i, (dr, dc) in enumerate(STEP[move] for move in MOVES):
            (r, c), (r2, c2) = image(centre), image((centre[0] + dr, centre[1] + dc))
            j = [STEP[move] for move in MOVES].index((r2 - r, c2 - c))
            pairs += [(language.ACTIONS[i], language.ACTIONS[j]), (f" {NAMES[i]} to ", f" {NAMES[j]} to ")]
        for number in range(size * size):
            cell = divmod(number, size)
            pairs.append((language.cell_text(cell), language.cell_text(image(cell))))
            pairs += [(language.observation_text(o, cell), language.observation_text(o, image(cell))) for o in Outcome]
        for old, new in pairs:
            tokens[s, _VOCABULARY[old]] = _VOCABULARY[new]
    return cells, tokens


def apply_symmetry(ids: np.ndarray, role: Role, size: int, symmetry: np.ndarray) -> np.ndarray:
    """Sequences int [B, T] of one role and board size under one symmetry each (int [B], 0–7)."""
    cells, tokens = symmetry_tables(size)
    out: np.ndarray = tokens[symmetry[:, None], ids]
    inner = np.array([r * size + c for r in range(1, size - 1) for c in range(1, size - 1)])
    length = 1 + (size - 2) * (size - 1)  # of one board in tokens
    at = 1 + 1 + np.array([(c // size - 1) * (size - 1) + c % size - 1 for c in inner])  # after role and top border
    second = at + length + 1 + (4 if role is Role.EXECUTOR else 0)
    lookup = np.zeros(size * size, np.int64)
    for where in (at, second):
        lookup[inner] = where
        out[np.arange(len(ids))[:, None], lookup[cells[symmetry][:, inner]]] = ids[:, where]
    return out
