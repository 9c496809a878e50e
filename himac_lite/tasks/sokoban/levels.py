"""Level files, the frozen splits, and the hash that identifies a puzzle up to symmetry."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TextIO

from himac_lite import storage
from himac_lite.errors import ConfigError, LevelError, RunError, checked
from himac_lite.tasks import PARTS
from himac_lite.tasks.sokoban import files, slc
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
    holdout_seed: int | None = None
    """Chooses the levels of the part ``holdout``, which is as large as ``test``; None: there is no such part."""

    @property
    def parts(self) -> dict[str, int]:
        """Part → number of levels."""
        return dict(zip(PARTS, self.counts, strict=True)) | (
            {} if self.holdout_seed is None else {"holdout": self.counts[-1]}
        )


SPLITS = {
    "warmup": SplitSpec(size=6, boxes=1, lengths=(4, 20), counts=(1024, 256, 512), seed=1),
    "core": SplitSpec(size=7, boxes=2, lengths=(6, 25), counts=(4096, 512, 512), seed=2),
    "hard": SplitSpec(size=8, boxes=3, lengths=(10, 40), counts=(1024, 256, 512), seed=3),
}


# Files


@checked
def parse_levels(text: str, source: str = "text", errors: str = "raise") -> list[Level]:
    """Every level of a text (docs/levels.md describes the formats).

    errors: ``raise`` the first `LevelError`, which names source, level number and line, or ``skip`` unreadable levels.
    """
    if slc.is_xml(text):
        return _collect(slc.read_levels([text.encode("utf-8", "replace")], source, "utf-8"), errors)
    return _collect(files.read_levels(text.splitlines(), source), errors)


@checked
def load_levels(
    path: str | os.PathLike[str], part: str | None = None, errors: str = "raise", max_side: int | None = None
) -> list[Level]:
    """Levels of a file, or of a frozen split: ``core/test``, ``warmup/train``; ``core`` with `part` given.

    errors: see `parse_levels`. max_side: most rows and columns; a larger level is an error. Raises `LevelError` that
    names the file, the level and the rule, also for a file larger than 50 MB; `iter_levels` reads such a file.
    """
    file = _file_of(path, part)
    size = _endless_refused(file, path).st_size
    if size > MAX_BYTES:
        limit = f"{MAX_BYTES // 1_000_000} MB"
        how = "split the collection into smaller files, or read it level by level with iter_levels"
        raise LevelError(f"{file}: larger than {limit}; {how}", str(file))
    return _collect(iter_levels(path, part, max_side), errors)


@checked
def iter_levels(
    path: str | os.PathLike[str], part: str | None = None, max_side: int | None = None
) -> Iterator[Level | LevelError]:
    """Iterate over the levels of a file or split, in bounded memory for a file of any length.

    The place of a level that is unreadable, or larger than `max_side`, has its error. Raises `LevelError` for a file
    that cannot be opened.
    """
    for number, one in enumerate(_read(path, part), 1):
        if max_side and isinstance(one, Level) and max(len(one.rows), len(one.rows[0])) > max_side:
            what = f"{os.fspath(path)}, level {number}{f' ({one.title})' if one.title else ''}"
            message = (
                f"{what} has {len(one.rows)}x{len(one.rows[0])} cells; the limit is {max_side}x{max_side}: himac-lite "
                f"levels read {os.fspath(path)} --max-side {max_side} --out SMALL.xsb keeps the other levels"
            )
            yield LevelError(message, os.fspath(path), number)
        else:
            yield one


def _read(path: str | os.PathLike[str], part: str | None) -> Iterator[Level | LevelError]:
    file = _file_of(path, part)
    _endless_refused(file, path)
    try:
        with file.open("rb") as data:
            if slc.is_xml(data.peek()[:1000].decode("utf-8", "replace")):
                yield from slc.read_levels(iter(partial(data.read, 1 << 16), b""), str(file))
                return
            lines = io.TextIOWrapper(data, "utf-8-sig", "surrogateescape")
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
        raise ConfigError(f"errors must be 'raise' or 'skip', not {errors!r}")
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
    if (own_part or part) not in SPLITS[split].parts:
        *names, last = (f"{split}/{known}" for known in SPLITS[split].parts)
        raise LevelError(f"unknown split {name!r}; say {', '.join(names)} or {last}")
    return storage.data_dir() / "levels" / f"{split}-{own_part or part}.xsb"


def _unreadable(path: str | os.PathLike[str], error: OSError | ValueError) -> LevelError:
    allowed = f"give a level file (XSB, SOK or SLC) or a split: {', '.join(SPLITS)}"
    reason = getattr(error, "strerror", None) or str(error)
    return LevelError(f"cannot read levels from {os.fspath(path)!r} ({reason}); {allowed}", os.fspath(path))


@checked
def save_levels(levels: Iterable[Level], path: str | os.PathLike[str]) -> None:
    """Write levels as XSB text; a file that exists is replaced in one step.

    Raises `LevelError` if it cannot be written, or is to be an SLC file, which is only read.
    """
    refuse_unwritable(Path(path))
    try:
        storage.write(Path(path), format_levels(levels))
    except RunError as error:
        raise LevelError(str(error), os.fspath(path)) from None
    except ValueError:  # no name, or a null character in it
        raise LevelError(f"cannot write levels to {os.fspath(path)!r}: name a file", os.fspath(path)) from None


def refuse_unwritable(file: Path) -> None:
    """Raise `LevelError` if `save_levels` could not write this file; long work calls it first."""
    if file.suffix.lower() == ".slc":
        raise LevelError(f"cannot write to {file}: SLC is only read; name the file .xsb", str(file))
    if not file.parent.is_dir():
        raise LevelError(f"cannot write to {file}: {file.parent} is not a folder", str(file))
    try:
        storage.refuse_unwritable(file.parent)
    except RunError as error:
        raise LevelError(str(error), str(file)) from None


# Symmetry


@checked
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


@checked
def canonical_hash(level: Level) -> str:
    """SHA-256 of the smallest of the 8 symmetric texts: equal exactly for levels that are the same puzzle.

    Unreachable floor counts as wall. Raises `LevelError` for an open level.
    """
    return hash_of_closed(closed(level))


def hash_of_closed(level: Level) -> str:
    """`canonical_hash` of a level without unreachable floor."""
    return hashlib.sha256(min(s.text for s in symmetries(level)).encode()).hexdigest()


def held_out_hashes() -> set[str]:
    """Canonical hashes of all validation, test and holdout levels, which training must not contain."""
    return {canonical_hash(level) for level in held_out_levels()}


def held_out_levels() -> list[Level]:
    """The levels of every part of every split but ``train``."""
    parts = [(split, part) for split, spec in SPLITS.items() for part in spec.parts if part != "train"]
    return [level for split, part in parts for level in load_levels(split, part)]
