"""Batches of Sokoban demonstrations, each under a random one of the 8 symmetries of the square: images cost nothing."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from himac_lite.pretraining import Batch
from himac_lite.tasks.sokoban import language
from himac_lite.tasks.sokoban.rules import MOVES, NAMES, STEP, Outcome
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


def symmetric_batches(
    demonstrations: Iterator[Demonstration], batch_tokens: int, rng: np.random.Generator
) -> Iterator[Batch]:
    """Full batches of about `batch_tokens` tokens, of similar length, padded with 0; the rest of a pool is dropped."""
    while True:
        pool = list(itertools.islice(demonstrations, 8 * batch_tokens // 80))
        pool.sort(key=lambda d: -(-len(d.ids) // _BUCKET))
        made = []
        while pool:
            length = -(-len(pool[0].ids) // _BUCKET) * _BUCKET
            count = max(1, batch_tokens // length)
            group = [d for d in pool[:count] if len(d.ids) <= length]
            pool = pool[len(group) :]
            if len(group) == count:
                made.append(_collate(group, length, rng))
        for i in rng.permutation(len(made)):
            yield made[i]


def _collate(group: list[Demonstration], length: int, rng: np.random.Generator) -> Batch:
    ids = np.zeros((len(group), length), np.int64)
    learn = np.zeros((len(group), length), bool)
    for i, d in enumerate(group):
        ids[i, : len(d.ids)] = d.ids
        learn[i, : len(d.learn)] = d.learn
    symmetry = rng.integers(0, 8, len(group))
    for role, size in {(d.role, d.size) for d in group}:
        rows = np.array([d.role is role and d.size == size for d in group])
        ids[rows] = apply_symmetry(ids[rows], role, size, symmetry[rows])
    return ids, learn


def symmetry_tables(size: int) -> tuple[np.ndarray, np.ndarray]:
    """What each of the 8 symmetries does to a board of `size`: (cells [8, n·n] → cell, tokens [8, V] → token)."""
    n = size
    flips = [lambda r, c: (r, c), lambda r, c: (r, n - 1 - c)]
    cells = np.empty((8, n * n), np.int64)
    tokens = np.tile(np.arange(len(_VOCABULARY)), (8, 1))
    for s in range(8):

        def image(cell: Cell, s: int = s) -> Cell:
            r, c = flips[s % 2](*cell)
            for _ in range(s // 2):
                r, c = c, n - 1 - r
            return r, c

        centre = (n // 2, n // 2)
        turned = {}
        for move, (dr, dc) in STEP.items():
            a, b = image((centre[0] + dr, centre[1] + dc)), image(centre)
            turned[move] = next(m for m, d in STEP.items() if d == (a[0] - b[0], a[1] - b[1]))
        for r in range(n):
            for c in range(n):
                r2, c2 = image((r, c))
                cells[s, r * n + c] = r2 * n + c2
                pairs = [(language.cell_text((r, c)), language.cell_text((r2, c2)))]
                pairs += [
                    (language.observation_text(o, (r, c)), language.observation_text(o, (r2, c2))) for o in Outcome
                ]
                for old, new in pairs:
                    tokens[s, _VOCABULARY[old]] = _VOCABULARY[new]
        for move, to in turned.items():
            i, j = MOVES.index(move), MOVES.index(to)
            tokens[s, _VOCABULARY[language.ACTIONS[i]]] = _VOCABULARY[language.ACTIONS[j]]
            tokens[s, _VOCABULARY[f" {NAMES[i]} to "]] = _VOCABULARY[f" {NAMES[j]} to "]
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
