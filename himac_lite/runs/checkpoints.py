"""Checkpoints of a run: written beside, hashed, renamed; verified before use; the last few and the best are kept.

A checkpoint is a folder named by its iteration. Its ``state.json`` has the hashes of its other files, and the run's
manifest has the hash of ``state.json``. The manifest is written before the folder gets its name, so no byte can change
unnoticed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from himac_lite import storage
from himac_lite.errors import RunError

Say = Callable[[str], None]


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint: its folder, its iteration, and its ``state.json``."""

    folder: Path
    iteration: int
    state: Mapping[str, Any]


def numbered(folder: Path, suffix: str = "") -> list[Path]:
    """The files or folders that are named by an iteration, oldest first."""
    found = folder.glob(f"[0-9]*{suffix}")
    return sorted(f for f in found if f.name.removesuffix(suffix).isdecimal() and len(f.name) < 20)


def verified(folder: Path, sealed: Any) -> Checkpoint:
    """The checkpoint, if every byte is as it was written. Raises `RunError` that names what differs.

    sealed: the manifest's hashes of ``state.json`` by folder name; None for a run of a version without them.
    """
    if folder.is_symlink():
        raise RunError("it is a symbolic link")
    state = storage.read_json(folder / "state.json")
    known = sealed.get(folder.name) if isinstance(sealed, dict) else None
    if sealed is not None and known != storage.sha256(folder / "state.json"):
        raise RunError("state.json does not match its hash in the manifest")
    hashes = state.get("sha256")
    reached = state.get("iteration")
    if type(reached) is not int or reached != int(folder.name) or not isinstance(hashes, dict) or not hashes:
        raise RunError("state.json belongs to another checkpoint")
    for name, digest in hashes.items():
        if not storage.lies_inside(name) or any((folder / up).is_symlink() for up in PurePosixPath(name).parents):
            raise RunError(f"state.json names {str(name)[:80]!r}, which is not a file of this folder")
        if storage.sha256(folder / name) != digest:
            raise RunError(f"{name} does not match its hash")
    return Checkpoint(folder, reached, state)


def first_intact(folders: Sequence[Path], sealed: Any, say: Say) -> Checkpoint | None:
    """The first intact checkpoint; damaged ones before it, and the one used instead, are reported to `say`."""
    damaged = False
    for folder in folders:
        try:
            found = verified(folder, sealed)
        except RunError as error:
            say(f"checkpoint {folder} is damaged: {error}")
            damaged = True
            continue
        if damaged:
            say(f"checkpoint {folder.name} is intact and used instead")
        return found
    if damaged:
        say("no checkpoint is intact")
    return None


def by_validation(folders: Sequence[Path]) -> list[Path]:
    """The checkpoints with a validation score, the best first; of equal ones the later first."""
    scored = [(score, folder) for folder in folders if (score := _validation(folder)) is not None]
    return [folder for _, folder in sorted(scored, reverse=True)]


def _validation(folder: Path) -> float | None:
    try:
        score = storage.read_json(folder / "state.json").get("validation")
    except RunError:
        return None
    return float(score) if isinstance(score, int | float) and math.isfinite(score) else None


def write(
    parent: Path, iteration: int, state: Mapping[str, Any], save: Callable[[Path], None],
    seal: Callable[[str, str], None],
) -> None:  # fmt: skip
    """Write a checkpoint. save: writes the tensors into a folder. seal: enters (name, hash) in the manifest."""
    name = f"{iteration:06d}"
    with storage.beside(parent / name) as made:
        made.mkdir(parents=True)
        save(made)
        files = [f for f in sorted(made.rglob("*")) if f.is_file()]
        hashes = {f.relative_to(made).as_posix(): storage.sha256(f) for f in files}
        text = json.dumps({**state, "iteration": iteration, "sha256": hashes}) + "\n"
        (made / "state.json").write_text(text, "utf-8")
        seal(name, hashlib.sha256(text.encode()).hexdigest())


def prune(parent: Path, keep: int) -> None:
    """Remove all but the last `keep` and the best."""
    folders = numbered(parent)
    best = by_validation(folders)[:1]
    for old in folders[:-keep]:
        if old not in best:
            storage.discard(old)
