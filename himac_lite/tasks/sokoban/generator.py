"""Seeded generation: random solvable levels of known optimal length, and the frozen splits."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from himac_lite import storage
from himac_lite.errors import LevelError, checked
from himac_lite.tasks.sokoban.binned import random_layout
from himac_lite.tasks.sokoban.distances import MAX_STATES, DistanceTable, distances
from himac_lite.tasks.sokoban.levels import PARTS, SPLITS, canonical_hash, closed, save_levels
from himac_lite.tasks.sokoban.rules import Board, rows_of
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
        for _ in range(max(10_000, 1_000 * n)):
            bar.update(len(levels) - bar.n)
            layout = random_layout(rng, size, boxes, max_density)
            table = distances(layout)
            for board, length in random_positions(rng, table, layout, lengths, 4):
                level = closed(Level(rows_of(board)))
                key = canonical_hash(level)
                if key in seen:
                    continue
                seen.add(key)
                pushes = optimal_length(level, "pushes")
                assert pushes is not None, "the backward search found it solvable"
                levels.append(replace(level, optimal_moves=length, optimal_pushes=pushes))
                if len(levels) == n:
                    return levels
    raise LevelError(f"found {len(levels)} of {n} levels {size}x{size} with {boxes} boxes and lengths {lengths}")


def make_splits(folder: Path) -> None:
    """Write the frozen splits and their manifest. No level is in two parts or two splits, up to symmetry."""
    manifest: dict[str, object] = {}
    for name, spec in SPLITS.items():
        rng = np.random.default_rng(np.random.SeedSequence([20260301, spec.seed]))
        levels = generate(rng, sum(spec.counts), spec.size, spec.boxes, spec.lengths, spec.max_density)
        start = 0
        for part, count in zip(PARTS, spec.counts, strict=True):
            chosen = [replace(lv, title=f"{name}/{part} {i + 1}") for i, lv in enumerate(levels[start : start + count])]
            start += count
            file = folder / f"{name}-{part}.xsb"
            save_levels(chosen, file)
            manifest[file.name] = {
                "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
                "levels": count,
                "canonical": [canonical_hash(lv)[:16] for lv in chosen],
                "optimal_moves": [lv.optimal_moves for lv in chosen],
                "optimal_pushes": [lv.optimal_pushes for lv in chosen],
            }
    storage.write(folder / "manifest.json", json.dumps(manifest, separators=(",", ":")) + "\n")
