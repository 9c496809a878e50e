"""A run folder: manifest, metrics, rollouts, checkpoints. Nothing is written in place; a torn run can be resumed.

``manifest.json`` (config, versions, git commit, level hashes, machine, hashes of the checkpoints), ``metrics.jsonl``
(one line an iteration), ``rollouts/000012.jsonl`` (groups of an iteration, what widgets show), ``checkpoints/000012/``
(adapter, optimizer, state), ``results.json`` (scores at the end).

All randomness of a run is derived from (seed, iteration, purpose), so a checkpoint needs no generator state.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from himac_lite.runs import checkpoints, records
from himac_lite import storage
from himac_lite import config as configs
from himac_lite.runs.checkpoints import Checkpoint, Say, numbered
from himac_lite.config import Train
from himac_lite.errors import ConfigError, RunError
from himac_lite.hierarchy import Hierarchy
from himac_lite.hierarchy.named import in_words, own_axes
from himac_lite.types import Item

FORMAT = 1
_PACKAGES = ("himac-lite", "torch", "transformers", "peft", "bitsandbytes", "numpy")


@dataclass(frozen=True)
class Run:
    """A run folder, open for reading or for going on with."""

    folder: Path

    # Reading

    @property
    def manifest(self) -> dict[str, Any]:
        return storage.read_json(self.folder / "manifest.json")

    @property
    def config(self) -> Train:
        try:
            return configs.from_dict(self.manifest["config"])
        except KeyError:
            raise RunError(f"{self.folder / 'manifest.json'} has no 'config'; it is no himac-lite run") from None
        except ConfigError as error:
            raise RunError(f"{self.folder / 'manifest.json'}: {error}") from None

    @property
    def variant(self) -> str:
        """The preset that was trained, or the folder's name for a hierarchy of one's own."""
        return self.folder.name if self.manifest.get("hierarchy") else self.config.variant

    def refuse_another(self, hierarchy: Hierarchy) -> None:
        """Raise `RunError` if the run was begun with another hierarchy, as far as names can tell."""
        given, manifest = own_axes(hierarchy, variant := self.config.variant), self.manifest
        began = manifest.get("hierarchy", given)  # one of an earlier version does not say
        if began != given:
            what = f"a hierarchy of its own ({in_words(began):.300})" if began else f"the preset {variant}"
            raise RunError(f"{self.folder} was begun with {what}, not this one; in Python, give hierarchy= the same")

    @property
    def results(self) -> dict[str, Any]:
        """Scores at the end of the run; empty while it is unfinished."""
        file = self.folder / "results.json"
        return storage.read_json(file) if file.exists() else {}

    def metrics(self) -> list[dict[str, Any]]:
        """One dict an iteration (see docs/metrics.md)."""
        file = self.folder / "metrics.jsonl"
        lines = list(storage.read_lines(file))
        for number, line in enumerate(lines, 1):
            if type(line.get("iteration")) is not int:
                raise RunError(f"{file}, line {number} names no iteration")
        return lines

    def rollouts(self, iteration: int) -> list[dict[str, Any]]:
        """The groups recorded at an iteration: one dict a level, with `macro` or `micro` or both."""
        file, found = self.folder / "rollouts" / f"{iteration:06d}.jsonl", []
        for number, line in enumerate(storage.read_lines(file), 1):
            try:
                records.check(line)
            except RunError as error:
                raise RunError(f"{file}, line {number}: {error}") from None
            found.append(line)
        return found

    def recorded_iterations(self) -> list[int]:
        return [int(f.stem) for f in numbered(self.folder / "rollouts", ".jsonl")]

    def latest_checkpoint(self, say: Say = lambda _: None) -> Checkpoint | None:
        """The newest intact checkpoint; `say` is told of damaged ones, and what is used instead."""
        return checkpoints.first_intact(self._checkpoints()[::-1], self.manifest.get("checkpoints"), say)

    def best_checkpoint(self, say: Say = lambda _: None) -> Checkpoint | None:
        """The intact checkpoint with the highest validation score; None if none was made at a point of that curve."""
        found = checkpoints.by_validation(self._checkpoints())
        return checkpoints.first_intact(found, self.manifest.get("checkpoints"), say)

    def _checkpoints(self) -> list[Path]:
        return numbered(self.folder / "checkpoints")

    # Writing

    def alone(self) -> contextlib.AbstractContextManager[None]:
        """While this lasts no other process may write to the run; `RunError` if one does."""
        return storage.locked(self.folder)

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        storage.append(self.folder / "metrics.jsonl", json.dumps(line))

    def record(self, iteration: int, groups: Sequence[Mapping[str, Any]], keep: int | None = None) -> None:
        """Write the groups of an iteration; of all such files the newest `keep` stay."""
        lines = "".join(json.dumps(g) + "\n" for g in groups)
        storage.write(self.folder / "rollouts" / f"{iteration:06d}.jsonl", lines)
        with storage.explained(self.folder):
            for old in numbered(self.folder / "rollouts", ".jsonl")[: -(keep or 10**9)]:
                old.unlink()

    def write_results(self, results: Mapping[str, Any]) -> None:
        storage.write(self.folder / "results.json", json.dumps(results, indent=1) + "\n")

    def save_checkpoint(self, iteration: int, state: Mapping[str, Any], save: Any, keep: int) -> None:
        """Write a checkpoint beside and rename it; `save(folder)` writes the tensors.

        The last `keep` stay, and of all the one with the highest `validation` in its state.
        """
        checkpoints.write(self.folder / "checkpoints", iteration, state, save, self._seal)
        self.prune(keep)

    def _seal(self, name: str, digest: str) -> None:
        manifest, there = self.manifest, [f.name for f in self._checkpoints()]
        if isinstance(known := manifest.get("checkpoints"), dict):
            sealed = {n: known[n] for n in there if n in known}
        else:  # an earlier version began the run: its checkpoints are as they are
            sealed = {n: storage.sha256(self.folder / "checkpoints" / n / "state.json") for n in there}
        sealed[name] = digest
        text = json.dumps({**manifest, "checkpoints": sealed}, indent=1) + "\n"
        storage.write(self.folder / "manifest.json", text)

    def prune(self, keep: int) -> None:
        """Drop all checkpoints but the last `keep` and the best."""
        with storage.explained(self.folder):
            checkpoints.prune(self.folder / "checkpoints", keep)

    def rewind(self, iteration: int) -> None:
        """Forget all that came after `iteration`, damaged checkpoints and final scores too: it will be made again.

        What a process that was killed left half done goes, too.
        """
        for name in ("manifest.json", "metrics.jsonl", "results.json", "rollouts", "checkpoints"):
            if (self.folder / name).is_symlink():
                raise RunError(f"{self.folder / name} is a symbolic link: a run is gone on with in its own folder")
        kept = [line for line in self.metrics() if line["iteration"] <= iteration]
        storage.write(self.folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept))
        with storage.explained(self.folder):
            for kind in ("rollouts", "checkpoints"):
                (self.folder / kind).mkdir(exist_ok=True)
            for file in numbered(self.folder / "rollouts", ".jsonl"):
                if int(file.stem) > iteration:
                    file.unlink()
            for folder in self._checkpoints():
                if int(folder.name) > iteration:
                    storage.discard(folder)
            half = (*self.folder.glob(".*.json*.tmp"), *self.folder.glob("rollouts/.*.tmp"))
            for file in (*half, self.folder / "results.json"):
                file.unlink(missing_ok=True)
            for folder in self.folder.glob("checkpoints/.*"):
                shutil.rmtree(folder, ignore_errors=True)


class ReadOnlyRun(Run):
    """A run as a process sees it that is not the one that writes (see `distributed`): it reads, and writes nothing."""

    def alone(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def append_metrics(self, line: Mapping[str, Any]) -> None: ...

    def record(self, iteration: int, groups: Sequence[Mapping[str, Any]], keep: int | None = None) -> None: ...

    def write_results(self, results: Mapping[str, Any]) -> None: ...

    def save_checkpoint(self, iteration: int, state: Mapping[str, Any], save: Any, keep: int) -> None: ...

    def prune(self, keep: int) -> None: ...

    def rewind(self, iteration: int) -> None: ...


def create_run(
    folder: Path, config: Train, levels: Mapping[str, Sequence[Item]], hierarchy: Mapping[str, Any] | None = None
) -> Run:
    """Make the folder and its manifest. Raises `RunError` if it holds a run already or cannot be written.

    hierarchy: the axes of a variant of one's own, as `hierarchy.named` says them; None for the preset of the config.
    """
    refuse_existing(folder)
    manifest = {
        "format": FORMAT,
        "config": configs.as_dict(config),
        "hierarchy": hierarchy,
        "levels": {name: {"n": len(lv), "sha256": levels_hash(lv)} for name, lv in levels.items()},
        "versions": {name: _version(name) for name in _PACKAGES} | {"python": platform.python_version()},
        "git_commit": git_commit(),
        "machine": {"platform": f"{platform.system()} {platform.machine()}", "cpus": os.cpu_count()},
        "checkpoints": {},
    }
    with storage.explained(folder):
        (folder / "rollouts").mkdir(parents=True, exist_ok=True)
        (folder / "checkpoints").mkdir(exist_ok=True)
        storage.write(folder / "metrics.jsonl", "")
        storage.write(folder / "manifest.json", json.dumps(manifest, indent=1) + "\n")
    return Run(folder)


def refuse_existing(folder: Path) -> None:
    """Raise `RunError` if the folder holds a run already."""
    if (folder / "manifest.json").exists():
        raise RunError(f"{folder} holds a run already; choose another --out, or go on with it by --resume {folder}")


def load_run(path: str | os.PathLike[str]) -> Run:
    """Open a run folder. Raises `RunError` that names the folder and what is missing."""
    folder = Path(path)
    if not (folder / "manifest.json").is_file():
        begun = (folder / "metrics.jsonl").is_file()
        hint = f"; its run was stopped before it began: start it again with --out {folder}" if begun else ""
        raise RunError(f"{folder} is no run folder: it has no manifest.json{hint}")
    run = Run(folder)
    if run.manifest.get("format") != FORMAT:
        raise RunError(f"{folder} was written by another version (format {run.manifest.get('format')}, not {FORMAT})")
    return run


def levels_hash(levels: Sequence[Item]) -> str:
    return hashlib.sha256("\n\n".join(level.text for level in levels).encode()).hexdigest()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def git_commit() -> str | None:
    """The commit of the code at work; None outside a clone."""
    try:
        out = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return out.stdout.strip() or None
