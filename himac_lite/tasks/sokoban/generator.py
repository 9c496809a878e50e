"""Seeded generation: random solvable levels of known optimal length, and the frozen splits."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from himac_lite import storage
from himac_lite.errors import LevelError, checked
from himac_lite.tasks.sokoban.binned import random_layout
from himac_lite.tasks.sokoban.distances import MAX_STATES, DistanceTable, distances
from himac_lite.tasks.sokoban.keys import Key, position_key
from himac_lite.tasks.sokoban.levels import (
    PARTS,
    SPLITS,
    canonical_hash,
    closed,
    held_out_levels,
    load_levels,
    save_levels,
)
from himac_lite.tasks.sokoban.rules import Board, board_from_level, rows_of
from himac_lite.tasks.sokoban.solver import optimal_length
from himac_lite.types import Level


def random_positions(
    rng: np.random.Generator, table: DistanceTable, layout: Board, lengths: tuple[int, int], tries: int
) -> list[tuple[Board, int]]:
    """Positions with an optimal length in `lengths`, distributed as after `tries` rounds of rejection sampling.

    The number of positions is binomial with the share of placements that qualify. Rejection sampling would need one
    search per placement; this needs one search per layout.
    """
    keys = table.positions(*lengths)
    floor, boxes = len(table.geometry.cells), len(layout.targets)
    placements = floor * math.comb(floor - 1, boxes)
    count = rng.binomial(tries, len(keys) / placements)
    picked = [table.board(layout, int(k)) for k in rng.choice(keys, count)] if count else []
    return [(b, table.distance(b) or 0) for b in picked]


@checked
def generate(
    rng: np.random.Generator,
    n: int,
    size: int = 7,
    boxes: int = 2,
    lengths: tuple[int, int] = (6, 25),
    max_density: float = 0.25,
    exclude: Iterable[str] = (),
) -> list[Level]:
    """`n` solvable square levels with optimal lengths in `lengths`, no two of them equal up to symmetry.

    exclude: canonical hashes that must not appear. After three seconds a progress bar is shown. The same generator
    state gives the same levels on every machine.
    Raises `LevelError` if the size has no room or is too large to search, or if too few levels are found.
    """
    floor = (size - 2) ** 2
    if size < 3 or boxes < 1 or floor <= 2 * boxes:
        raise LevelError(f"no room for {boxes} boxes, {boxes} targets and a player on {size}x{size} with its border")
    if floor * math.comb(floor - 1, boxes) > MAX_STATES:
        raise LevelError(
            f"{size}x{size} with {boxes} boxes has over {MAX_STATES:,} positions; take a smaller size or fewer"
        )
    seen = set(exclude)
    levels: list[Level] = []
    with tqdm(total=n, unit="level", delay=3, leave=False) as bar:
        for drawn in _drawn(rng, size, boxes, lengths, max_density, max(10_000, 1_000 * n)):
            bar.update(len(levels) - bar.n)
            for level in drawn:
                key = canonical_hash(level)
                if key in seen:
                    continue
                seen.add(key)
                levels.append(_with_pushes(level))
                if len(levels) == n:
                    return levels
    raise LevelError(f"found {len(levels)} of {n} levels {size}x{size} with {boxes} boxes and lengths {lengths}")


def _drawn(
    rng: np.random.Generator, size: int, boxes: int, lengths: tuple[int, int], max_density: float, layouts: int
) -> Iterator[list[Level]]:
    """Levels of each random layout, with their optimal moves; the same level may come again."""
    for _ in range(layouts):
        layout = random_layout(rng, size, boxes, max_density)
        table = distances(layout)
        positions = random_positions(rng, table, layout, lengths, 4)
        yield [replace(closed(Level(rows_of(board))), optimal_moves=length) for board, length in positions]


def _with_pushes(level: Level) -> Level:
    pushes = optimal_length(level, "pushes")
    assert pushes is not None, "the backward search found it solvable"
    return replace(level, optimal_pushes=pushes)


# The frozen splits

ROOT_SEED = 20260301
RESERVE = 768
"""Levels that the holdout is chosen from. Pretraining avoids them all, so the choice changes none of its batches."""


def level_key(level: Level) -> Key:
    return position_key(board_from_level(level))


def _rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([ROOT_SEED, *seed]))


@cache
def reserve() -> tuple[Level, ...]:
    """The candidates for ``core/holdout``: none has the position of a level of ``core``.

    A position of an open layout is more often in a split already. To keep the distribution of ``core``, as many levels
    of each length and number of walls are taken as the first draws have, new or not.
    """
    spec = SPLITS["core"]
    seen = {level_key(level) for part in PARTS for level in load_levels("core", part)}  # other splits, other sizes
    layouts = _drawn(_rng(spec.seed, 1), spec.size, spec.boxes, spec.lengths, spec.max_density, 1000 * RESERVE)
    draws = itertools.chain.from_iterable(layouts)
    first = list(itertools.islice(draws, RESERVE))
    wanted = Counter(map(_kind, first))
    levels: list[Level] = []
    for level in itertools.chain(first, draws):
        key = level_key(level)
        if key not in seen and wanted[_kind(level)]:
            seen.add(key)
            wanted[_kind(level)] -= 1
            levels.append(level)
            if len(levels) == RESERVE:
                break
    return tuple(levels)


def _kind(level: Level) -> tuple[int, int]:
    """What the reserve has as often as the first draws: the number of walls and the optimal moves."""
    return level.text.count("#"), level.optimal_moves or 0


def holdout(seed: int) -> list[Level]:
    """The levels of ``core/holdout`` for a seed: a random choice from the reserve."""
    spec, levels = SPLITS["core"], reserve()
    return [_with_pushes(levels[i]) for i in _rng(spec.seed, 2, seed).permutation(RESERVE)[: spec.counts[-1]]]


@cache
def held_out_keys() -> frozenset[Key]:
    """Keys of all validation and test levels and of the reserve: no demonstration passes through such a position."""
    return frozenset(map(level_key, (*held_out_levels(), *reserve())))


def make_splits(folder: Path) -> None:
    """Write the frozen splits and their manifest. No level is in two parts or two splits, up to symmetry."""
    manifest: dict[str, object] = {}
    for name, spec in SPLITS.items():
        levels = generate(_rng(spec.seed), sum(spec.counts), spec.size, spec.boxes, spec.lengths, spec.max_density)
        start = 0
        for part, count in zip(PARTS, spec.counts, strict=True):
            manifest |= _frozen(folder, name, part, levels[start : start + count])
            start += count
        if spec.holdout_seed is not None:
            manifest |= _frozen(folder, name, "holdout", holdout(spec.holdout_seed))
    storage.write(folder / "manifest.json", json.dumps(manifest, separators=(",", ":")) + "\n")


def _frozen(folder: Path, split: str, part: str, levels: Sequence[Level]) -> dict[str, object]:
    """Write the levels of one part; its entry in the manifest."""
    levels = [replace(level, title=f"{split}/{part} {i}") for i, level in enumerate(levels, 1)]
    file = folder / f"{split}-{part}.xsb"
    save_levels(levels, file)
    entry = {
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "levels": len(levels),
        "canonical": [canonical_hash(level)[:16] for level in levels],
        "optimal_moves": [level.optimal_moves for level in levels],
        "optimal_pushes": [level.optimal_pushes for level in levels],
    }
    return {file.name: entry}
