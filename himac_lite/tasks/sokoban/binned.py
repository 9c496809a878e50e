"""Levels of any size, with the requested number of levels in each bin of optimal length.

A small layout is searched exhaustively, which gives the exact length of every position. On a larger layout a random
player pulls the boxes away from their targets, so the level is solvable, and the solver finds the optimal length.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from himac_lite.errors import ConfigError, LevelError, checked
from himac_lite.tasks.sokoban.distances import distances
from himac_lite.tasks.sokoban.geometry import Geometry
from himac_lite.tasks.sokoban.levels import closed, hash_of_closed
from himac_lite.tasks.sokoban.rules import Board, rows_of
from himac_lite.tasks.sokoban.solver import optimal_length
from himac_lite.types import Level

Bins = Mapping[tuple[int, int], int]
"""(min, max) optimal length, inclusive → number of levels. Where bins overlap, the first bin with room is filled."""

_WHOLE = 300_000  # positions up to which a layout is searched exhaustively
_PER_LAYOUT = 4  # maximum number of levels per layout and bin
_STATES = 200_000  # state limit of the solver for one candidate


@checked
def generate_bins(
    seed: np.random.Generator | np.random.SeedSequence | int,
    bins: Bins,
    size: int | tuple[int, int] = 7,
    boxes: int = 2,
    optimal: str = "moves",
    max_density: float = 0.25,
    exclude: Iterable[str] = (),
    tries: int = 100_000,
) -> list[Level]:
    """Solvable levels whose optimal lengths fill the bins exactly, no two of them equal up to symmetry.

    size: rows and columns with the border, or one number for both. optimal: the unit of a length, ``moves`` or
    ``pushes``; a level's other length is None if the search for it would be long. max_density: maximum share of inner
    walls. exclude: canonical hashes that must not appear. tries: maximum number of layouts.
    Returns the levels in the order of the bins, the same for one seed in every process.
    Raises `LevelError` if the size has no room, if a bin is invalid, or if too few levels are found.
    Raises `TaskError` for a large layout without numba.
    """
    height, width = size if isinstance(size, tuple) else (size, size)
    floor = (height - 2) * (width - 2)
    if min(height, width) < 3 or boxes < 1 or floor <= 2 * boxes:
        raise LevelError(f"no room for {boxes} boxes, {boxes} targets and a player on {height}x{width} with its border")
    if optimal not in ("moves", "pushes"):
        raise ConfigError(f"optimal must be 'moves' or 'pushes', not {optimal!r}")
    if isinstance(seed, int) and seed < 0:
        raise ConfigError(f"seed must be at least 0, not {seed}")
    if not bins or not all(1 <= low <= high and n >= 0 for (low, high), n in bins.items()):
        raise LevelError(f"bins are (shortest, longest) optimal lengths from 1, and counts from 0, not {dict(bins)}")
    rng, seen = np.random.default_rng(seed), set(exclude)
    made: dict[tuple[int, int], list[Level]] = {span: [] for span in bins}
    whole = optimal == "moves" and floor * math.comb(floor - 1, boxes) <= _WHOLE
    for _ in range(tries):
        wanted = [span for span in bins if len(made[span]) < bins[span]]
        if not wanted:
            return [level for levels in made.values() for level in levels]
        layout = random_layout(rng, (height, width), boxes, max_density)
        for level in _searched(rng, layout, wanted) if whole else _pulled(rng, layout, wanted, optimal):
            length = level.optimal_moves if optimal == "moves" else level.optimal_pushes
            span = next((s for s in wanted if s[0] <= (length or 0) <= s[1] and len(made[s]) < bins[s]), None)
            key = hash_of_closed(level)
            if span is not None and key not in seen:
                seen.add(key)
                made[span].append(_with_both(level))
    found = {span: f"{len(levels)} of {bins[span]}" for span, levels in made.items()}
    raise LevelError(f"after {tries:,} layouts {height}x{width} with {boxes} boxes the bins hold {found}")


def random_layout(rng: np.random.Generator, size: int | tuple[int, int], boxes: int, max_density: float) -> Board:
    """Border walls, random inner walls (density uniform in [0, max_density]), targets on random floor cells.

    Boxes and player are placeholders: the boxes stand on the targets, the player anywhere else.
    """
    if not 0 <= max_density <= 1:
        raise ConfigError(f"max_density must lie between 0 and 1; it is {max_density}")
    height, width = size if isinstance(size, tuple) else (size, size)
    while True:
        wall = np.ones((height, width), bool)
        wall[1:-1, 1:-1] = rng.random((height - 2, width - 2)) < rng.uniform(0, max_density)
        floor = np.argwhere(~wall)
        if len(floor) <= 2 * boxes:
            continue
        cells = [(int(r), int(c)) for r, c in floor[rng.permutation(len(floor))[: boxes + 1]]]
        walls = frozenset((int(r), int(c)) for r, c in np.argwhere(wall))
        return Board(height, width, walls, frozenset(cells[:boxes]), frozenset(cells[:boxes]), cells[boxes])


def _searched(rng: np.random.Generator, layout: Board, wanted: list[tuple[int, int]]) -> Iterator[Level]:
    """Random positions of a layout from the wanted bins."""
    table = distances(layout)
    for low, high in wanted:
        keys = table.positions(low, high)
        for key in rng.choice(keys, min(_PER_LAYOUT, len(keys)), replace=False) if len(keys) else ():
            board = table.board(layout, int(key))
            yield closed(replace(Level(rows_of(board)), optimal_moves=table.distance(board)))


def _pulled(rng: np.random.Generator, layout: Board, wanted: list[tuple[int, int]], optimal: str) -> Iterator[Level]:
    """A position after random pulls, with its optimal length; nothing if the solver reaches its limit."""
    from himac_lite.tasks.sokoban.pulling import pull

    longest = max(high for _, high in wanted)
    geometry = Geometry.of(layout)
    pulls = int(rng.integers(1, 2 * longest + 1))
    targets = np.array(geometry.targets, np.int64)
    boxes, player = pull(
        geometry.neighbours.astype(np.int64), targets, geometry.index[layout.player], rng.random((pulls, 2))
    )
    cells = geometry.cells
    board = replace(layout, boxes=frozenset(cells[int(b)] for b in boxes), player=cells[int(player)])
    if board.solved:
        return
    level = closed(Level(rows_of(board)))
    if (length := optimal_length(level, optimal, _STATES)) is not None:
        yield replace(level, optimal_moves=length) if optimal == "moves" else replace(level, optimal_pushes=length)


def _with_both(level: Level) -> Level:
    """The level with its other optimal length too, if a short search finds it."""
    if level.optimal_moves is None:
        return replace(level, optimal_moves=optimal_length(level, "moves", _STATES))
    return replace(level, optimal_pushes=optimal_length(level, "pushes", _STATES))
