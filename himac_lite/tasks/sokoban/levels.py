"""Level files, the frozen splits, and the hash that identifies a puzzle up to symmetry."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from himac_lite import storage
from himac_lite.errors import LevelError, RunError
from himac_lite.tasks import PARTS
from himac_lite.tasks.sokoban import files
from himac_lite.tasks.sokoban.files import enclosed, format_levels
from himac_lite.types import Level

MAX_BYTES = 50_000_000


@dataclass(frozen=True)
class SplitSpec:
    """The definition of a frozen split; `lengths` are optimal moves, inclusive."""

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


# Files


def parse_levels(text: str, source: str = "text", errors: str = "raise") -> list[Level]:
    """Every level of a text (`files.read_levels` describes the format).

    errors: ``raise`` the first `LevelError`, which names source, level number and line, or ``skip`` unreadable levels.
    """
    return _collect(files.read_levels(text.splitlines(), source), errors)


def load_levels(path: str | os.PathLike[str], part: str | None = None, errors: str = "raise") -> list[Level]:
    """Levels of a file, or of a frozen split: ``core/test``, ``warmup/train``; ``core`` with `part` given.

    errors: see `parse_levels`. Raises `LevelError` that names the file, the level and the rule, also for a file larger
    than 50 MB; `iter_levels` reads such a file.
    """
    file = _file_of(path, part)
    size = _endless_refused(file, path).st_size
    if size > MAX_BYTES:
        limit = f"{MAX_BYTES // 1_000_000} MB"
        how = "split the collection into smaller files, or read it level by level with iter_levels"
        raise LevelError(f"{file}: larger than {limit}; {how}", str(file))
    return _collect(iter_levels(path, part), errors)


def iter_levels(path: str | os.PathLike[str], part: str | None = None) -> Iterator[Level | LevelError]:
    """Iterate over the levels of a file or split, in bounded memory for a file of any length.

    The place of an unreadable level has its error. Raises `LevelError` for a file that cannot be opened.
    """
    file = _file_of(path, part)
    _endless_refused(file, path)
    try:
        with file.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
            yield from files.read_levels(_short_lines(lines), str(file))
    except OSError as error:
        raise _unreadable(path, error) from None


def _endless_refused(file: Path, path: str | os.PathLike[str]) -> os.stat_result:
    """The file's status. Raises `LevelError` if the file does not exist or is an endless device."""
    try:
        found = file.stat()
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise _unreadable(path, error) from None
    if stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
        raise _unreadable(path, OSError(0, "it is a device"))
    return found


def _short_lines(lines: TextIO) -> Iterator[str]:
    """Lines, each cut at a limit; a line that is not UTF-8 is read as Latin-1, which old collections use."""
    limit, within = 100 * files.MAX_SIDE, False
    while line := lines.readline(limit):
        if not within:
            yield _decoded(line)
        within = not line.endswith("\n")


def _decoded(line: str) -> str:
    try:
        line.encode()
    except UnicodeEncodeError:
        return line.encode("utf-8", "surrogateescape").decode("latin-1")
    return line


def _collect(found: Iterable[Level | LevelError], errors: str) -> list[Level]:
    if errors not in ("raise", "skip"):
        raise ValueError(f"errors must be 'raise' or 'skip', not {errors!r}")
    levels = []
    for one in found:
        if isinstance(one, Level):
            levels.append(one)
        elif errors == "raise":
            raise one
    return levels


def _file_of(path: str | os.PathLike[str], part: str | None) -> Path:
    """The path of a level file or of a split; an existing file comes first."""
    name = os.fspath(path)
    split, _, own_part = name.partition("/")
    if split not in SPLITS or Path(name).is_file():
        return Path(name)
    if (own_part or part) not in PARTS:
        raise LevelError(f"unknown split {name!r}; say {split}/train, {split}/validation or {split}/test")
    return storage.data_dir() / "levels" / f"{split}-{own_part or part}.xsb"


def _unreadable(path: str | os.PathLike[str], error: OSError | ValueError) -> LevelError:
    allowed = f"give an XSB file or a split: {', '.join(SPLITS)}"
    reason = getattr(error, "strerror", None) or str(error)
    return LevelError(f"cannot read levels from {os.fspath(path)!r} ({reason}); {allowed}", os.fspath(path))


def save_levels(levels: Iterable[Level], path: str | os.PathLike[str]) -> None:
    """Write levels as XSB text; a file that exists is replaced in one step. Raises `LevelError` if it cannot be."""
    try:
        storage.write(Path(path), format_levels(levels))
    except RunError as error:
        raise LevelError(str(error), os.fspath(path)) from None


# Symmetry


def symmetries(level: Level) -> list[Level]:
    """The level under the 8 symmetries of the square (4 rotations, with and without reflection), without titles."""
    out = []
    rows = level.rows
    for _ in range(4):
        rows = tuple("".join(col) for col in zip(*rows[::-1], strict=True))
        out += [rows, tuple(row[::-1] for row in rows)]
    return [Level(r, "", level.optimal_moves, level.optimal_pushes) for r in out]


def closed(level: Level) -> Level:
    """The level with unreachable floor filled with walls. Raises `LevelError` for an open level."""
    try:
        return replace(level, rows=enclosed(level.rows))
    except LevelError as error:
        raise LevelError(f"level: {error}") from None


def canonical_hash(level: Level) -> str:
    """SHA-256 of the smallest of the 8 symmetric texts: equal exactly for levels that are the same puzzle.

    Unreachable floor counts as wall. Raises `LevelError` for an open level.
    """
    return hash_of_closed(closed(level))


def hash_of_closed(level: Level) -> str:
    """`canonical_hash` of a level without unreachable floor."""
    return hashlib.sha256(min(s.text for s in symmetries(level)).encode()).hexdigest()


def held_out_hashes() -> set[str]:
    """Canonical hashes of all validation and test levels, which training and pretraining must not contain."""
    return {canonical_hash(level) for split in SPLITS for part in PARTS[1:] for level in load_levels(split, part)}
