"""`himac-lite levels read | generate | solve | split`.

A verb is a function from the parsed arguments to what ``--json`` prints and the lines for a person.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from himac_lite import storage
from himac_lite.cli.console import note, say
from himac_lite.errors import ConfigError, LevelError
from himac_lite.types import Level

HELP = "read, generate, solve and split level files"
MAX_LEVELS = 100_000
MAX_SIZE = 50
Answer = tuple[dict[str, Any], list[str]]


def arguments(p: argparse.ArgumentParser) -> None:
    verbs = p.add_subparsers(required=True, metavar="verb")
    reading = verbs.add_parser("read", help="check a level file and describe its levels")
    reading.add_argument("path", help="level file or split")
    reading.add_argument("--skip-bad", action="store_true", help="skip levels that cannot be read, and report why")
    reading.add_argument("--max-side", type=int, metavar="N", help="skip levels with more than N rows or columns")
    reading.add_argument("--out", type=Path, help="write the levels that were read to this file, as XSB text")
    generating = verbs.add_parser("generate", help="write new random levels to a file")
    generating.add_argument("out", type=Path)
    for name, default in (("n", 16), ("seed", 0), ("size", 7), ("boxes", 2), ("min-length", 6), ("max-length", 25)):
        generating.add_argument(f"--{name}", type=int, default=default, help=f"default: {default}")
    generating.add_argument(
        "--max-density", type=float, default=0.25, help="maximum share of inner walls; default: 0.25"
    )
    solving = verbs.add_parser("solve", help="solve every level of a file")
    solving.add_argument("path", help="level file or split")
    solving.add_argument("--optimal", choices=("moves", "pushes"), default="moves")
    solving.add_argument("--seconds", type=float, help="time limit for each level; default: only memory is limited")
    solving.add_argument("--out", type=Path, help="write the levels, with both lengths of those that are solved")
    splitting = verbs.add_parser("split", help="counts and hashes of a frozen split")
    splitting.add_argument("name", help="warmup, core or hard; or one part, such as core/test")
    splitting.add_argument(
        "--write", type=Path, metavar="FOLDER", help="first generate all splits again in this folder"
    )
    for parser, verb in ((reading, read), (generating, generate), (solving, solve), (splitting, split)):
        parser.add_argument("--json", action="store_true", help="print one JSON object")
        parser.set_defaults(run=run, verb=verb)


def run(given: argparse.Namespace) -> dict[str, Any]:
    if getattr(given, "out", None):
        from himac_lite.tasks.sokoban.levels import refuse_unwritable

        refuse_unwritable(given.out)
    found, lines = given.verb(given)
    if not given.json:
        say("\n".join(lines))
    return found  # type: ignore[no-any-return]


def read(given: argparse.Namespace) -> Answer:
    """Read a file or split: path, n, sizes, boxes, optimal_moves, the levels.

    With ``--skip-bad`` also the errors, with ``--max-side`` the number of larger levels.
    """
    from himac_lite.tasks.sokoban.levels import iter_levels, load_levels, save_levels

    every = list(iter_levels(given.path)) if given.skip_bad else load_levels(given.path)
    found = [one for one in every if isinstance(one, Level)]
    errors = [str(one) for one in every if isinstance(one, LevelError)]
    if not found:
        raise LevelError(errors[0])
    n, most = len(found), given.max_side
    found = [level for level in found if most is None or max(len(level.rows), len(level.rows[0])) <= most]
    if not found:
        raise LevelError(f"no level of {given.path} has at most {most} rows and columns")
    if given.out:
        save_levels(found, given.out)
    names = ("title", "author", "comments", "rows", "optimal_moves", "optimal_pushes")
    levels = [{name: getattr(level, name) for name in names} for level in found]
    out = {"path": given.path, **_summary(found), "levels": levels, **({"errors": errors} if given.skip_bad else {})}
    lines = list(errors)
    if most is not None:
        out["larger"] = n - len(found)
        lines.append(f"{n - len(found)} levels with more than {most} rows or columns skipped")
    if given.out:
        lines.append(f"wrote {given.out}")
    return out, [*lines, f"{given.path}: {_sentence(out)}", "first level:", found[0].text]


def generate(given: argparse.Namespace) -> Answer:
    """Write new levels to an XSB file. The same arguments give the same file on every machine.

    No validation, test or holdout level of a frozen split is among them, up to symmetry.
    """
    import numpy as np

    from himac_lite.tasks.sokoban import generator
    from himac_lite.tasks.sokoban.levels import format_levels, held_out_hashes, save_levels

    for name, low, high in (
        ("n", 1, MAX_LEVELS), ("seed", 0, 2**63), ("size", 3, MAX_SIZE), ("boxes", 1, MAX_SIZE),
        ("min_length", 1, 10_000), ("max_length", given.min_length, 10_000), ("max_density", 0.0, 0.8),
    ):  # fmt: skip
        if not low <= (value := getattr(given, name)) <= high:
            raise ConfigError(f"{name} must be from {low} to {high}, not {value}")
    made = generator.generate(
        np.random.default_rng(given.seed), given.n, given.size, given.boxes, (given.min_length, given.max_length),
        given.max_density, held_out_hashes(),
    )  # fmt: skip
    made = [replace(level, title=f"seed {given.seed}, level {i}") for i, level in enumerate(made, 1)]
    save_levels(made, given.out)
    sha256 = hashlib.sha256(format_levels(made).encode()).hexdigest()
    out = {"path": str(given.out), "seed": given.seed, "sha256": sha256, **_summary(made)}
    return out, [f"wrote {given.out}: {_sentence(out)}", f"sha256 {sha256}"]


def solve(given: argparse.Namespace) -> Answer:
    """Solve every level of a file or split.

    A level's entry has its number from 1, title, solution (LURD, capitals push), moves, pushes, and either the
    blueprint (straight runs of pushes as sub-goals, one per line) or the reason why there is no solution.
    Each line is printed when its level is solved, with ``--json`` to stderr.
    """
    from himac_lite.tasks.sokoban import solver
    from himac_lite.tasks.sokoban.language import subgoal_text
    from himac_lite.tasks.sokoban.levels import load_levels, save_levels
    from himac_lite.tasks.sokoban.rules import board_from_level

    entries, levels = [], load_levels(given.path)
    for number, level in enumerate(levels, 1):
        name = f"level {number} ({level.title})" if level.title else f"level {number}"
        search = solver.search(level, given.optimal, seconds=given.seconds)
        entry: dict[str, Any] = {"level": number, "title": level.title, "solution": None, "moves": None, "pushes": None}
        if found := search.solution:
            runs = solver.pushes_of(board_from_level(level), found.lurd)
            entry |= {"solution": found.lurd, "moves": found.moves, "pushes": found.pushes}
            entry["blueprint"] = "\n".join(subgoal_text(*run) for run in runs)
            line = f"{name}: {found.moves} moves, {found.pushes} pushes: {found.lurd}"
        else:
            entry["reason"] = f"{search.outcome.value} ({search.states:,} states)"
            line = f"{name}: {entry['reason']}"
        (note if given.json else say)(line)
        entries.append(entry)
        if given.out and found:
            other = solver.optimal_length(level, "pushes" if given.optimal == "moves" else "moves")
            moves, pushes = (found.moves, other) if given.optimal == "moves" else (other, found.pushes)
            levels[number - 1] = replace(level, optimal_moves=moves, optimal_pushes=pushes)
    if given.out:
        save_levels(levels, given.out)
    n, solved = len(entries), sum(entry["solution"] is not None for entry in entries)
    out = {"path": given.path, "optimal": given.optimal, "n": n, "solved": solved, "levels": entries}
    return out, [f"{solved} of {n} solved, fewest {given.optimal}"]


def split(given: argparse.Namespace) -> Answer:
    """Counts and hashes of a frozen split or of one part, checked against the manifest.

    Raises `LevelError` for an unknown name and for a file that differs from the frozen one.
    """
    from himac_lite.tasks.sokoban.levels import SPLITS, load_levels

    base, _, part = given.name.partition("/")
    known = base if base in SPLITS else "core"
    if base != known or (part and part not in SPLITS[known].parts):
        allowed = f"{', '.join(SPLITS)}, or one part: {known}/{'|'.join(SPLITS[known].parts)}"
        raise LevelError(f"unknown split {given.name!r}; say {allowed}")
    if given.write is not None:
        from himac_lite.tasks.sokoban.generator import make_splits

        given.write.mkdir(parents=True, exist_ok=True)
        make_splits(given.write)
    folder = storage.data_dir() / "levels"
    try:
        manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise LevelError(f"cannot read {folder / 'manifest.json'}; install himac-lite again ({error})") from None
    parts, lines = {}, []
    for which in [part] if part else SPLITS[base].parts:
        file = folder / f"{base}-{which}.xsb"
        found = load_levels(base, which)
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        if manifest.get(file.name, {}).get("sha256") != sha256:
            raise LevelError(f"{file} is not the frozen file of the manifest; install himac-lite again")
        parts[which] = {"file": str(file), "sha256": sha256, **_summary(found)}
        lines += [f"{base}/{which}: {_sentence(parts[which])}", f"  sha256 {sha256} (as frozen)"]
    return {"split": given.name, "parts": parts}, lines


def _summary(found: Sequence[Level]) -> dict[str, Any]:
    """n; how many levels of each size (rows x columns) and number of boxes; min, median and max optimal moves."""
    known = [level.optimal_moves for level in found if level.optimal_moves is not None]
    sizes = Counter(f"{len(level.rows)}x{len(level.rows[0])}" for level in found)
    boxes = Counter(str(level.n_boxes) for level in found)
    lengths = {"min": min(known), "median": float(statistics.median(known)), "max": max(known)} if known else None
    return {"n": len(found), "sizes": dict(sizes), "boxes": dict(boxes), "optimal_moves": lengths}


def _sentence(summary: dict[str, Any]) -> str:
    def span(name: str) -> str:
        kinds = list(summary[name])
        return kinds[0] if len(kinds) == 1 else f"{len(kinds)} different"

    text = f"{summary['n']} levels, size {span('sizes')}, boxes {span('boxes')}"
    if lengths := summary["optimal_moves"]:
        text += f", optimal moves {lengths['min']} to {lengths['max']} (median {lengths['median']:g})"
    return text
