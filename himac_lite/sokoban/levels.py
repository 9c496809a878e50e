"""Level files (XSB text), seeded generation, and the frozen splits with their hashes."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from himac_lite.errors import LevelError
from himac_lite.sokoban.rules import Board, rows_of
from himac_lite.sokoban.solver import MAX_STATES, DistanceTable, distances, solve
from himac_lite.types import Level

MAX_BYTES = 50_000_000
PARTS = ("train", "validation", "test")
_BOARD_LINE = re.compile(r"(?=[^#]*#)[ #.$*@+_-]+")
_KEY = re.compile(r"([A-Za-z]+):(.*)")
_OPTIMAL = re.compile(r";\s*moves ([0-9]{1,9}), pushes ([0-9]{1,9})\s*$")


@dataclass(frozen=True)
class SplitSpec:
    """What a frozen split contains; `lengths` are optimal moves, inclusive."""

    size: int
    boxes: int
    lengths: tuple[int, int]
    counts: tuple[int, int, int]
    seed: int
    max_density: float = 0.25


SPLITS = {
    "warmup": SplitSpec(size=6, boxes=1, lengths=(4, 20), counts=(1024, 256, 512), seed=1),
    "core": SplitSpec(size=7, boxes=2, lengths=(6, 25), counts=(4096, 512, 512), seed=2),
    "hard": SplitSpec(size=8, boxes=3, lengths=(10, 40), counts=(1024, 256, 512), seed=3),
}


def data_dir() -> Path:
    """Where the shipped levels and models are: beside the package in a checkout, inside it in a wheel."""
    inside = Path(__file__).resolve().parents[1] / "_data"
    return inside if inside.is_dir() else Path(__file__).resolve().parents[2] / "data"


# Files


def parse_levels(text: str, source: str = "text") -> list[Level]:
    """Read every level of an XSB text. Comments before a board belong to it, and a SOK ``Title:`` directly below it.

    Raises `LevelError` that names source, level number and line.
    """
    levels: list[Level] = []
    rows: list[str] = []
    comments: list[str] = []
    first, below = 0, False
    for number, line in enumerate([*text.splitlines(), ""], 1):
        if _BOARD_LINE.fullmatch(line):
            if not rows:
                first = number
            rows.append(line.rstrip())
            continue
        if rows:
            levels.append(_checked(rows, comments, f"{source}, level {len(levels) + 1} (line {first})"))
            rows, comments, below = [], [], True
        if below and (found := _KEY.match(line)):
            if found[1] == "Title":
                levels[-1] = replace(levels[-1], title=found[2].strip())
            continue
        below = False
        if line.strip():
            comments.append(line.strip())
    if not levels:
        raise LevelError(f"{source}: no level found. A level is lines of # . $ * @ + and spaces.")
    return levels


def _checked(rows: Sequence[str], comments: Sequence[str], where: str) -> Level:
    width = max(map(len, rows))
    grid = tuple(row.replace("-", " ").replace("_", " ").ljust(width) for row in rows)
    text = "".join(grid)
    players, boxes = text.count("@") + text.count("+"), text.count("$") + text.count("*")
    targets = text.count(".") + text.count("*") + text.count("+")
    if players != 1:
        raise LevelError(f"{where}: {players} players (@ or +); a level has exactly one")
    if boxes != targets or boxes == 0:
        raise LevelError(f"{where}: {boxes} boxes but {targets} targets; a level has as many of each, at least one")
    level = Level(_enclosed(grid, where))
    for comment in comments:
        if found := _OPTIMAL.match(comment):
            level = replace(level, optimal_moves=int(found[1]), optimal_pushes=int(found[2]))
        elif not level.title:
            level = replace(level, title=comment.lstrip("; ").removeprefix("Title:").strip())
    return level


def _enclosed(grid: tuple[str, ...], where: str) -> tuple[str, ...]:
    """Fill what the player cannot reach with walls; an opening to the outside is an error."""
    height, width = len(grid), len(grid[0])
    start = next((r, c) for r in range(height) for c in range(width) if grid[r][c] in "@+")
    seen, stack = {start}, [start]
    while stack:
        r, c = stack.pop()
        if r in (0, height - 1) or c in (0, width - 1):
            raise LevelError(f"{where}: open to the outside at row {r}, column {c}; walls must enclose the player")
        for cell in ((r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1)):
            if cell not in seen and grid[cell[0]][cell[1]] != "#":
                seen.add(cell)
                stack.append(cell)
    filled = tuple(
        "".join(ch if (r, c) in seen or ch != " " else "#" for c, ch in enumerate(row)) for r, row in enumerate(grid)
    )
    border = filled[0] + filled[-1] + "".join(row[0] + row[-1] for row in filled)
    if border.strip("#"):
        raise LevelError(f"{where}: a box or target lies outside the walls; the border of a level is all wall")
    return filled


def load_levels(path: str | os.PathLike[str], part: str | None = None) -> list[Level]:
    """Levels of a file, or of a frozen split: ``core/test``, ``warmup/train``; ``core`` with `part` given.

    Raises `LevelError` with the file, the level and what is allowed.
    """
    name = os.fspath(path)
    split, _, own_part = name.partition("/")
    if split in SPLITS and not Path(name).is_file():
        if (own_part or part) not in PARTS:
            raise LevelError(f"unknown split {name!r}; say {split}/train, {split}/validation or {split}/test")
        file = data_dir() / "levels" / f"{split}-{own_part or part}.xsb"
    else:
        file = Path(name)
    try:
        if file.stat().st_size > MAX_BYTES:
            limit = f"{MAX_BYTES // 1_000_000} MB"
            raise LevelError(f"{file}: larger than {limit}; split the collection into smaller files")
        text = file.read_text("utf-8-sig")
    except OSError as error:
        allowed = f"give an XSB file or a split: {', '.join(SPLITS)}"
        raise LevelError(f"cannot read levels from {name!r} ({error.strerror}); {allowed}") from None
    except UnicodeDecodeError:
        raise LevelError(f"{file}: not a text file; levels are XSB text in UTF-8") from None
    return parse_levels(text, str(file))


def format_levels(levels: Iterable[Level]) -> str:
    """Levels as XSB text, title and optimal lengths in comment lines before each board."""
    blocks = []
    for level in levels:
        lines = [f"; {level.title}"] if level.title else []
        if level.optimal_moves is not None:
            lines.append(f"; moves {level.optimal_moves}, pushes {level.optimal_pushes}")
        blocks.append("\n".join([*lines, *level.rows]) + "\n")
    return "\n".join(blocks)


def save_levels(levels: Iterable[Level], path: str | os.PathLike[str]) -> None:
    """Write levels as XSB text; written beside and renamed, so that no half file is left."""
    target = Path(path)
    beside = target.with_name(target.name + ".tmp")
    try:
        beside.write_text(format_levels(levels), "utf-8", newline="\n")
        beside.replace(target)
    except OSError as error:
        raise LevelError(f"cannot write {target} ({error.strerror})") from None


# Symmetry


def symmetries(level: Level) -> list[Level]:
    """The level under the 8 symmetries of the square (4 rotations, each mirrored or not); titles are dropped."""
    out = []
    rows = level.rows
    for _ in range(4):
        rows = tuple("".join(col) for col in zip(*rows[::-1], strict=True))
        out += [rows, tuple(row[::-1] for row in rows)]
    return [Level(r, "", level.optimal_moves, level.optimal_pushes) for r in out]


def closed(level: Level) -> Level:
    """The level with unreachable floor as wall, as the reader has it. Raises `LevelError` for an open level."""
    return replace(level, rows=_enclosed(level.rows, "level"))


def canonical_hash(level: Level) -> str:
    """SHA-256 of the least of the 8 symmetric texts: equal exactly for levels that are the same puzzle.

    Floor that the player cannot reach counts as wall, as the reader has it. Raises `LevelError` for an open level.
    """
    return hashlib.sha256(min(s.text for s in symmetries(closed(level))).encode()).hexdigest()


# Generation


def random_layout(rng: np.random.Generator, size: int, boxes: int, max_density: float) -> Board:
    """Border walls, interior walls at random (density uniform in [0, max_density]), targets on random floor cells.

    Boxes and player are placeholders (on the targets, and anywhere else).
    """
    while True:
        wall = np.ones((size, size), bool)
        wall[1:-1, 1:-1] = rng.random((size - 2, size - 2)) < rng.uniform(0, max_density)
        floor = [(int(r), int(c)) for r, c in np.argwhere(~wall)]
        if len(floor) <= 2 * boxes:
            continue
        order = rng.permutation(len(floor))
        targets = frozenset(floor[i] for i in order[:boxes])
        walls = frozenset((int(r), int(c)) for r, c in np.argwhere(wall))
        return Board(size, size, walls, targets, targets, floor[order[boxes]])


def random_positions(
    rng: np.random.Generator, table: DistanceTable, layout: Board, lengths: tuple[int, int], tries: int
) -> list[tuple[Board, int]]:
    """What `tries` uniformly random placements of boxes and player would leave after rejection by optimal length.

    The number kept is binomial with the share of placements that qualify, so that the levels have the distribution of
    plain rejection sampling, at the price of one search a layout.
    """
    keys = table.positions(*lengths)
    floor, boxes = len(table.geometry.cells), len(layout.targets)
    placements = floor  # player first, then a set of boxes on the rest
    for i in range(boxes):
        placements = placements * (floor - 1 - i) // (i + 1)
    count = rng.binomial(tries, len(keys) / placements)
    picked = [table.board(layout, int(k)) for k in rng.choice(keys, count)] if count else []
    return [(b, table.distance(b) or 0) for b in picked]


def generate(
    rng: np.random.Generator,
    n: int,
    size: int = 7,
    boxes: int = 2,
    lengths: tuple[int, int] = (6, 25),
    max_density: float = 0.25,
    exclude: Iterable[str] = (),
) -> list[Level]:
    """`n` different solvable square levels with optimal lengths in `lengths`, none symmetric to another.

    exclude: canonical hashes that must not appear. The same generator state gives the same levels on every machine.
    Raises `LevelError` for a size and number of boxes without room or beyond the search, or if too few levels turn up.
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
    for _ in range(max(10_000, 1_000 * n)):
        layout = random_layout(rng, size, boxes, max_density)
        table = distances(layout)
        for board, length in random_positions(rng, table, layout, lengths, 4):
            level = closed(Level(rows_of(board)))
            key = canonical_hash(level)
            if key in seen:
                continue
            seen.add(key)
            by_pushes = solve(level, "pushes")
            assert by_pushes is not None, "the backward search found it solvable"
            levels.append(replace(level, optimal_moves=length, optimal_pushes=by_pushes.pushes))
            if len(levels) == n:
                return levels
    raise LevelError(f"found {len(levels)} of {n} levels {size}x{size} with {boxes} boxes and lengths {lengths}")


def make_splits(folder: Path) -> None:
    """Write the frozen splits and their manifest. Parts of one split, and splits, share no level up to symmetry."""
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
    (folder / "manifest.json").write_text(json.dumps(manifest, separators=(",", ":")) + "\n", "utf-8")


def held_out_hashes() -> set[str]:
    """Canonical hashes of every validation and test level: what training and pretraining must not contain."""
    return {canonical_hash(level) for split in SPLITS for part in PARTS[1:] for level in load_levels(split, part)}
