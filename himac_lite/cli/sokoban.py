"""What `himac-lite levels read | generate | solve | split` do.

Every function prints lines for a person, or with ``json=True`` one JSON object and nothing else, and returns that
object as a dict. Bad input raises `HimacError` with one clear line.
"""

from __future__ import annotations

import hashlib
import json as jsonlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from himac_lite import storage
from himac_lite.errors import ConfigError, LevelError
from himac_lite.tasks.sokoban import generator, solver
from himac_lite.tasks.sokoban import levels as files
from himac_lite.tasks.sokoban.language import subgoal_text
from himac_lite.tasks.sokoban.rules import board_from_level
from himac_lite.types import Level

MAX_LEVELS = 100_000
MAX_SIZE = 50


def read(path: str | os.PathLike[str], skip_bad: bool = False, json: bool = False) -> dict[str, Any]:
    """Read a file or split. Returns path, n, sizes, boxes, optimal_moves and, for each level, its rows and title.

    skip_bad: leave levels out that cannot be read, and return what is wrong with each under ``errors``.
    """
    errors: list[str] = []
    if skip_bad:
        every = list(files.iter_levels(path))
        found = [one for one in every if isinstance(one, Level)]
        errors = [str(one) for one in every if isinstance(one, LevelError)]
    else:
        found = files.load_levels(path)
    if not found:
        raise LevelError(errors[0])
    out = {"path": os.fspath(path), **_summary(found), "levels": [_entry(level) for level in found]}
    if skip_bad:
        out["errors"] = errors
    return _show(out, [*errors, f"{os.fspath(path)}: {_sentence(out)}", "first level:", found[0].text], json)


def generate(
    out: str | os.PathLike[str],
    n: int = 16,
    seed: int = 0,
    size: int = 7,
    boxes: int = 2,
    min_length: int = 6,
    max_length: int = 25,
    max_density: float = 0.25,
    allow_held_out: bool = False,
    json: bool = False,
) -> dict[str, Any]:
    """Write `n` new levels to the XSB file `out`. Returns its path, sha256 and the summary of `read`, without levels.

    size: side of the square board in cells, border included. min_length, max_length: optimal moves, inclusive.
    max_density: the largest share of inner cells that are walls. allow_held_out: levels of the frozen validation and
    test splits may appear among them. The same arguments give the same file on every machine.
    """
    _between("n", n, 1, MAX_LEVELS)
    _between("seed", seed, 0, 2**63)
    _between("size", size, 3, MAX_SIZE)
    _between("boxes", boxes, 1, MAX_SIZE)
    _between("min_length", min_length, 1, 10_000)
    _between("max_length", max_length, min_length, 10_000)
    _between("max_density", max_density, 0.0, 0.8)
    rng = np.random.default_rng(seed)
    exclude = set() if allow_held_out else files.held_out_hashes()
    made = generator.generate(rng, n, size, boxes, (min_length, max_length), max_density, exclude)
    made = [replace(level, title=f"seed {seed}, level {i}") for i, level in enumerate(made, 1)]
    files.save_levels(made, out)
    sha256 = hashlib.sha256(files.format_levels(made).encode()).hexdigest()
    result = {"path": os.fspath(out), "seed": seed, "sha256": sha256, **_summary(made)}
    return _show(result, [f"wrote {os.fspath(out)}: {_sentence(result)}", f"sha256 {sha256}"], json)


def solve(
    path: str | os.PathLike[str], optimal: str = "moves", seconds: float | None = None, json: bool = False
) -> dict[str, Any]:
    """Solve every level of a file or split, with the fewest ``moves`` or ``pushes``.

    seconds: time that a level may take; None for as long as memory lasts.
    Returns path, optimal, n, solved (how many) and, for each level, its number from 1, title, solution (LURD, capitals
    push), moves, pushes, blueprint (its straight runs of pushes as sub-goals, one a line) and, where the solution is
    None, the reason.
    """
    if optimal not in ("moves", "pushes"):
        raise ConfigError(f"optimal must be moves or pushes, not {optimal!r}")
    entries, lines = [], []
    for number, level in enumerate(files.load_levels(path), 1):
        name = f"level {number} ({level.title})" if level.title else f"level {number}"
        search = solver.search(level, optimal, seconds=seconds)
        entry: dict[str, Any] = {"level": number, "title": level.title, "solution": None, "moves": None, "pushes": None}
        if found := search.solution:
            runs = solver.pushes_of(board_from_level(level), found.lurd)
            entry |= {"solution": found.lurd, "moves": found.moves, "pushes": found.pushes}
            entry["blueprint"] = "\n".join(subgoal_text(*run) for run in runs)
            lines.append(f"{name}: {found.moves} moves, {found.pushes} pushes: {found.lurd}")
        else:
            entry["reason"] = f"{search.outcome.value} ({search.states:,} states)"
            lines.append(f"{name}: {entry['reason']}")
        entries.append(entry)
    solved = sum(entry["solution"] is not None for entry in entries)
    out = {"path": os.fspath(path), "optimal": optimal, "n": len(entries), "solved": solved, "levels": entries}
    return _show(out, [*lines, f"{solved} of {len(entries)} solved, fewest {optimal}"], json)


def split(name: str, write: str | os.PathLike[str] | None = None, json: bool = False) -> dict[str, Any]:
    """Counts and hashes of a frozen split (``core``) or of one part (``core/test``), checked against the manifest.

    write: a folder in which all splits are made again from their seeds first, to compare them with the frozen ones.
    Returns split and, under parts, for each part: file, sha256 and the summary of `read`, without levels.
    Raises `LevelError` for another name, and where a file is not the one that was frozen.
    """
    base, _, part = name.partition("/")
    if base not in files.SPLITS or (part and part not in files.PARTS):
        allowed = f"{', '.join(files.SPLITS)}, or one part: {base if base in files.SPLITS else 'core'}/"
        raise LevelError(f"unknown split {name!r}; say {allowed}{'|'.join(files.PARTS)}")
    if write is not None:
        os.makedirs(write, exist_ok=True)
        generator.make_splits(Path(write))
    folder = storage.data_dir() / "levels"
    try:
        manifest = jsonlib.loads((folder / "manifest.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise LevelError(f"cannot read {folder / 'manifest.json'}; install himac-lite again ({error})") from None
    parts, lines = {}, []
    for which in [part] if part else files.PARTS:
        found = files.load_levels(base, which)
        file = folder / f"{base}-{which}.xsb"
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        if manifest.get(file.name, {}).get("sha256") != sha256:
            raise LevelError(f"{file} is not the frozen file of the manifest; install himac-lite again")
        parts[which] = {"file": str(file), "sha256": sha256, **_summary(found)}
        lines += [f"{base}/{which}: {_sentence(parts[which])}", f"  sha256 {sha256} (as frozen)"]
    return _show({"split": name, "parts": parts}, lines, json)


def _between(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{name} must be from {low} to {high}, not {value}")


def _entry(level: Level) -> dict[str, Any]:
    return {
        "title": level.title,
        "author": level.author,
        "comments": list(level.comments),
        "rows": list(level.rows),
        "optimal_moves": level.optimal_moves,
        "optimal_pushes": level.optimal_pushes,
    }


def _summary(found: Sequence[Level]) -> dict[str, Any]:
    """n; how many of each size (rows x columns) and number of boxes; least, median and greatest optimal moves."""
    known = [level.optimal_moves for level in found if level.optimal_moves is not None]
    sizes = Counter(f"{len(level.rows)}x{len(level.rows[0])}" for level in found)
    boxes = Counter(str(level.n_boxes) for level in found)
    lengths = {"min": min(known), "median": float(np.median(known)), "max": max(known)} if known else None
    return {"n": len(found), "sizes": dict(sizes), "boxes": dict(boxes), "optimal_moves": lengths}


def _sentence(summary: dict[str, Any]) -> str:
    def span(name: str) -> str:
        kinds = list(summary[name])
        return kinds[0] if len(kinds) == 1 else f"{len(kinds)} different"

    text = f"{summary['n']} levels, size {span('sizes')}, boxes {span('boxes')}"
    if lengths := summary["optimal_moves"]:
        text += f", optimal moves {lengths['min']} to {lengths['max']} (median {lengths['median']:g})"
    return text


def _show(out: dict[str, Any], lines: Sequence[str], json: bool) -> dict[str, Any]:
    print(jsonlib.dumps(out) if json else "\n".join(lines))
    return out
