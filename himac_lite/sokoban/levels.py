"""Level files (XSB text), the frozen splits, and the hash that tells puzzles apart up to symmetry."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from himac_lite.errors import LevelError
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


def held_out_hashes() -> set[str]:
    """Canonical hashes of every validation and test level: what training and pretraining must not contain."""
    return {canonical_hash(level) for split in SPLITS for part in PARTS[1:] for level in load_levels(split, part)}
