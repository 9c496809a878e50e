"""A run folder: manifest, metrics, rollouts, checkpoints. Nothing is written in place; a torn run can be resumed.

``manifest.json`` (config, origin of a user's own variant or task, hash of the base model, level hashes, versions, git
commit, machine, hashes of the checkpoints), ``metrics.jsonl`` (one line per iteration), ``rollouts/000012.jsonl``
(groups of an iteration, shown by widgets), ``checkpoints/000012/`` (adapter, optimizer, state), ``results.json`` (final
scores).

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

from himac_lite import config as configs
from himac_lite import storage
from himac_lite.config import Train
from himac_lite.errors import ConfigError, RunError, checked
from himac_lite.from_file import Chosen, T
from himac_lite.hierarchy import Hierarchy, choose
from himac_lite.runs import checkpoints, records
from himac_lite.runs.checkpoints import Checkpoint, Say, numbered
from himac_lite.tasks import World, registry
from himac_lite.types import Item

FORMAT = 1
_PACKAGES = ("himac-lite", "torch", "transformers", "peft", "bitsandbytes", "numpy")


@dataclass(frozen=True)
class Run:
    """A run folder, open for reading or for resuming."""

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
            raise RunError(f"{self.folder / 'manifest.json'} has no 'config'; it is not a himac-lite run") from None
        except ConfigError as error:
            raise RunError(f"{self.folder / 'manifest.json'}: {error}") from None

    @property
    def variant(self) -> str:
        """The name of the variant, or the folder's for a hierarchy that was given as a value."""
        own = self.manifest.get("hierarchy")
        return self.config.variant if own is None or (isinstance(own, dict) and "file" in own) else self.folder.name

    def hierarchy(self, given: Hierarchy | str | None = None, changed: Say | None = None) -> Chosen[Hierarchy]:
        """The variant that the run was begun with; `given` again if it is not a preset.

        given: the value, ``FILE.py:NAME`` or a preset's name. The manifest only names a file, which is never imported
        for that. changed: called with one line if the file has changed. Without it, for a run that is resumed, a
        changed file is an error: the result would belong to neither version, and could not be repeated.
        Raises `RunError` if the run needs `given` and there is none, or it is not what the run was begun with.
        """
        began = self._own("hierarchy", given is None, "--variant FILE.py:NAME (in Python: hierarchy=)")
        return self._same(began, choose(given, self.config.variant), self.config.variant, changed)

    def world(self, given: World | str | None = None, changed: Say | None = None) -> Chosen[World]:
        """The world of the run's task, in the same way as `hierarchy`."""
        began = self._own("world", given is None, "--task FILE.py:NAME (in Python: world=)")
        return self._same(began, registry.choose(given, self.config.task), self.config.task, changed)

    def _own(self, key: str, absent: bool, option: str) -> dict[str, Any] | None:
        """The origin of a variant or world that is not the library's. Version 0.1 wrote the axes of a variant here."""
        own = self.manifest.get(key)
        own = own if own is None or isinstance(own, dict) else {}
        if own is not None and absent:
            raise RunError(f"{self.folder} was begun with {_said(own)}, which a manifest cannot restore; add {option}")
        return own

    def _same(self, began: dict[str, Any] | None, chosen: Chosen[T], name: str, changed: Say | None) -> Chosen[T]:
        now = chosen.origin or {}
        if began is None:
            same = not now and chosen.name == name
        elif "file" in began:
            same = now.get("name") == began.get("name")
        else:
            same = bool(now) and began.get("value", now["value"]) == now["value"]
        if not same:
            was = repr(name) if began is None else _said(began)
            raise RunError(f"{self.folder} was begun with {was}, not with {_said(now) if now else repr(chosen.name)}")
        if began and "file" in began and began.get("sha256") != now["sha256"]:
            line = f"{now['file']} has changed since {self.folder} began"
            if changed is None:
                raise RunError(f"{line}; restore it, or start a new run")
            changed(line)
        return chosen

    @property
    def results(self) -> dict[str, Any]:
        """Scores at the end of the run; empty while it is unfinished."""
        file = self.folder / "results.json"
        if not file.exists():
            return {}
        found = storage.read_json(file)
        try:
            records.check_results(found)
        except RunError as error:
            raise RunError(f"{file}: {error}; delete it, and --resume {self.folder} scores the run again") from None
        return found

    def metrics(self) -> list[dict[str, Any]]:
        """One dict per iteration (see docs/metrics.md)."""
        file = self.folder / "metrics.jsonl"
        lines = list(storage.read_lines(file))
        for number, line in enumerate(lines, 1):
            if type(line.get("iteration")) is not int:
                raise RunError(f"{file}, line {number} has no iteration")
        return lines

    def table(self) -> Any:
        """`metrics` as a pandas DataFrame, one row per iteration. Raises `ConfigError` if pandas is not installed."""
        try:
            import pandas
        except ModuleNotFoundError:
            raise ConfigError("Run.table needs pandas: pip install pandas") from None
        return pandas.DataFrame(self.metrics())

    @checked
    def rollouts(self, iteration: int) -> list[dict[str, Any]]:
        """The groups recorded at an iteration: one dict per level, with `macro` or `micro` or both."""
        file, found = self.folder / "rollouts" / f"{iteration:06d}.jsonl", []
        for number, line in enumerate(storage.read_lines(file), 1):
            try:
                records.check(line)
            except RunError as error:
                raise RunError(f"{file}, line {number}: {error}") from None
            found.append(line)
        return found

    def recorded_iterations(self) -> list[int]:
        """The iterations with recorded groups; a training with record_levels=0 writes empty files."""
        return [int(f.stem) for f in numbered(self.folder / "rollouts", ".jsonl") if f.is_file() and f.stat().st_size]

    def latest_checkpoint(self, say: Say = lambda _: None) -> Checkpoint | None:
        """The newest intact checkpoint. say: called with a line for each damaged one and what is used instead."""
        return checkpoints.first_intact(self._checkpoints()[::-1], self.manifest.get("checkpoints"), say)

    def best_checkpoint(self, say: Say = lambda _: None) -> Checkpoint | None:
        """The intact checkpoint with the highest validation score; None if no checkpoint has one."""
        found = checkpoints.by_validation(self._checkpoints())
        return checkpoints.first_intact(found, self.manifest.get("checkpoints"), say)

    def _checkpoints(self) -> list[Path]:
        return numbered(self.folder / "checkpoints")

    # Writing

    def alone(self) -> contextlib.AbstractContextManager[None]:
        """A context in which no other process may write to the run; `RunError` if one does."""
        return storage.locked(self.folder)

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        storage.append(self.folder / "metrics.jsonl", json.dumps(line))

    def record(self, iteration: int, groups: Sequence[Mapping[str, Any]], keep: int | None = None) -> None:
        """Write the groups of an iteration and delete all such files but the newest `keep`."""
        lines = "".join(json.dumps(g) + "\n" for g in groups)
        storage.write(self.folder / "rollouts" / f"{iteration:06d}.jsonl", lines)
        with storage.explained(self.folder):
            for old in numbered(self.folder / "rollouts", ".jsonl")[: -(keep or 10**9)]:
                old.unlink()

    def write_results(self, results: Mapping[str, Any]) -> None:
        storage.write(self.folder / "results.json", json.dumps(results, indent=1) + "\n")

    def set_config(self, config: Train) -> None:
        """Write a new budget to the manifest, so that a later resume knows it."""
        if config != self.config:
            self._write_manifest({**self.manifest, "config": configs.as_dict(config)})

    def _write_manifest(self, manifest: Mapping[str, Any]) -> None:
        storage.write(self.folder / "manifest.json", json.dumps(manifest, indent=1) + "\n")

    def save_checkpoint(self, iteration: int, state: Mapping[str, Any], save: Any, keep: int) -> None:
        """Write a checkpoint beside and rename it; `save(folder)` writes the tensors.

        The last `keep` stay, and the one with the highest `validation` in its state.
        """
        checkpoints.write(self.folder / "checkpoints", iteration, state, save, self._seal)
        self.prune(keep)

    def _seal(self, name: str, digest: str) -> None:
        manifest, there = self.manifest, [f.name for f in self._checkpoints()]
        if isinstance(known := manifest.get("checkpoints"), dict):
            sealed = {n: known[n] for n in there if n in known}
        else:  # the run is of an earlier version, which did not seal its checkpoints
            sealed = {n: storage.sha256(self.folder / "checkpoints" / n / "state.json") for n in there}
        sealed[name] = digest
        self._write_manifest({**manifest, "checkpoints": sealed})

    def prune(self, keep: int) -> None:
        """Drop all checkpoints but the last `keep` and the best."""
        with storage.explained(self.folder):
            checkpoints.prune(self.folder / "checkpoints", keep)

    def rewind(self, iteration: int) -> None:
        """Delete everything after `iteration`, with damaged checkpoints and final scores: it will be computed again.

        Unfinished files of a killed process are deleted, too.
        """
        for name in ("manifest.json", "metrics.jsonl", "results.json", "rollouts", "checkpoints"):
            if (self.folder / name).is_symlink():
                raise RunError(f"{self.folder / name} is a symbolic link; a run is resumed only in its own folder")
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
    """The run as seen by a process that does not write (see `distributed`)."""

    def alone(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def append_metrics(self, line: Mapping[str, Any]) -> None: ...

    def record(self, iteration: int, groups: Sequence[Mapping[str, Any]], keep: int | None = None) -> None: ...

    def write_results(self, results: Mapping[str, Any]) -> None: ...

    def set_config(self, config: Train) -> None: ...

    def save_checkpoint(self, iteration: int, state: Mapping[str, Any], save: Any, keep: int) -> None: ...

    def prune(self, keep: int) -> None: ...

    def rewind(self, iteration: int) -> None: ...


def create_run(
    folder: Path, config: Train, levels: Mapping[str, Sequence[Item]], made_from: Mapping[str, Any] | None = None
) -> Run:
    """Make the folder and its manifest. Raises `RunError` if it holds a run already or cannot be written.

    made_from: what the configuration cannot say, by its key in the manifest: ``hierarchy`` and ``world`` (the origins
    of those that are not the library's, None otherwise), ``base_sha256`` (the hash of the base model's weights), and
    ``rules`` (`Hierarchy.rule_names`).
    """
    refuse_existing(folder)
    manifest = {
        "format": FORMAT,
        "config": configs.as_dict(config),
        **(made_from or {}),
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
        Run(folder)._write_manifest(manifest)
    return Run(folder)


def refuse_existing(folder: Path) -> None:
    """Raise `RunError` if the folder already holds a run, or cannot be written."""
    if (folder / "manifest.json").exists():
        raise RunError(f"{folder} already holds a run; choose another --out, or resume it with --resume {folder}")
    storage.refuse_unwritable(folder)


@checked
def load_run(path: str | os.PathLike[str] | Run) -> Run:
    """Open a run folder, or check a run. Raises `RunError` that names the folder and what is missing."""
    folder = Path(path.folder if isinstance(path, Run) else path)
    if not (folder / "manifest.json").is_file():
        begun = (folder / "metrics.jsonl").is_file()
        hint = f"; the run was stopped before it began: start it again with --out {folder}" if begun else ""
        raise RunError(f"{folder} is not a run folder: it has no manifest.json{hint}")
    run = Run(folder)
    if run.manifest.get("format") != FORMAT:
        raise RunError(f"{folder} was written by another version (format {run.manifest.get('format')}, not {FORMAT})")
    return run


def levels_hash(levels: Sequence[Item]) -> str:
    return hashlib.sha256("\n\n".join(level.text for level in levels).encode()).hexdigest()


def _said(origin: Mapping[str, Any]) -> str:
    """An origin in words, in quotes: a manifest may hold anything."""
    if "file" in origin:
        return f"{origin.get('name')!r:.100} of {origin['file']!r:.100}"
    return f"a value of its own ({origin.get('value', ', '.join(origin))!r:.300})"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def git_commit() -> str | None:
    """The commit of the running code; None outside a clone."""
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
