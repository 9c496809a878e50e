"""A run folder: manifest, metrics, rollouts, checkpoints. Nothing is written in place; a torn run can be resumed.

``manifest.json`` (config, versions, git commit, level hashes, machine), ``metrics.jsonl`` (one line an iteration),
``rollouts/000012.jsonl`` (groups of an iteration, what widgets show), ``checkpoints/000012/`` (adapter, optimizer,
state with hashes), ``results.json`` (scores at the end).

All randomness of a run is derived from (seed, iteration, purpose), so a checkpoint needs no generator state.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from himac_lite import config as configs
from himac_lite.config import Train
from himac_lite.errors import ConfigError, RunError
from himac_lite.types import Item

FORMAT = 1
_PACKAGES = ("himac-lite", "torch", "transformers", "peft", "bitsandbytes", "numpy")


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint: its folder and the counters that were reached."""

    folder: Path
    iteration: int
    state: Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """A run folder, open for reading or for going on with."""

    folder: Path

    # Reading

    @property
    def manifest(self) -> dict[str, Any]:
        return _read_json(self.folder / "manifest.json")

    @property
    def config(self) -> Train:
        try:
            return configs.from_dict(self.manifest["config"])
        except KeyError:
            raise RunError(f"{self.folder / 'manifest.json'} has no 'config'; it is no himac-lite run") from None
        except ConfigError as error:
            raise RunError(f"{self.folder / 'manifest.json'}: {error}") from None

    @property
    def results(self) -> dict[str, Any]:
        """Scores at the end of the run; empty while it is unfinished."""
        file = self.folder / "results.json"
        return _read_json(file) if file.exists() else {}

    def metrics(self) -> list[dict[str, Any]]:
        """One dict an iteration (see docs/metrics.md)."""
        return list(_read_lines(self.folder / "metrics.jsonl"))

    def rollouts(self, iteration: int) -> list[dict[str, Any]]:
        """The groups recorded at an iteration: one dict a level, with `macro` and `micro`."""
        return list(_read_lines(self.folder / "rollouts" / f"{iteration:06d}.jsonl"))

    def recorded_iterations(self) -> list[int]:
        return sorted(int(f.stem) for f in (self.folder / "rollouts").glob("*.jsonl"))

    def latest_checkpoint(self) -> Checkpoint | None:
        """The newest checkpoint whose files match their hashes; damaged ones are skipped."""
        for folder in sorted((self.folder / "checkpoints").glob("[0-9]*"), reverse=True):
            try:
                state = _read_json(folder / "state.json")
                if all(_sha256(folder / name) == digest for name, digest in state["sha256"].items()):
                    return Checkpoint(folder, int(state["iteration"]), state)
            except (OSError, RunError, KeyError, TypeError, ValueError, AttributeError):
                continue
        return None

    # Writing

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        with _explained(self.folder), (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def record(self, iteration: int, groups: Sequence[Mapping[str, Any]]) -> None:
        _write(self.folder / "rollouts" / f"{iteration:06d}.jsonl", "".join(json.dumps(g) + "\n" for g in groups))

    def write_results(self, results: Mapping[str, Any]) -> None:
        _write(self.folder / "results.json", json.dumps(results, indent=1) + "\n")

    def save_checkpoint(self, iteration: int, state: Mapping[str, Any], save: Any, keep: int) -> None:
        """Write a checkpoint beside and rename it; `save(folder)` writes the tensors. The last `keep` stay."""
        parent = self.folder / "checkpoints"
        beside = parent / f".{iteration:06d}.tmp"
        try:
            with _explained(self.folder):
                shutil.rmtree(beside, ignore_errors=True)
                beside.mkdir(parents=True)
                save(beside)
                hashes = {f.name: _sha256(f) for f in sorted(beside.iterdir()) if f.is_file()}
                _write(beside / "state.json", json.dumps({**state, "iteration": iteration, "sha256": hashes}) + "\n")
                final = parent / f"{iteration:06d}"
                shutil.rmtree(final, ignore_errors=True)
                beside.rename(final)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        for old in sorted(parent.glob("[0-9]*"))[:-keep]:
            shutil.rmtree(old, ignore_errors=True)

    def rewind(self, iteration: int) -> None:
        """Forget all that came after `iteration`, damaged checkpoints and final scores too: it will be made again."""
        kept = [line for line in self.metrics() if line["iteration"] <= iteration]
        _write(self.folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept))
        for file in (self.folder / "rollouts").glob("*.jsonl"):
            if int(file.stem) > iteration:
                file.unlink()
        for folder in (self.folder / "checkpoints").glob("[0-9]*"):
            if int(folder.name) > iteration:
                shutil.rmtree(folder, ignore_errors=True)
        (self.folder / "results.json").unlink(missing_ok=True)


def create_run(folder: Path, config: Train, levels: Mapping[str, Sequence[Item]]) -> Run:
    """Make the folder and its manifest. Raises `RunError` if it holds a run already or cannot be written."""
    refuse_existing(folder)
    manifest = {
        "format": FORMAT,
        "config": configs.as_dict(config),
        "levels": {name: {"n": len(lv), "sha256": levels_hash(lv)} for name, lv in levels.items()},
        "versions": {name: _version(name) for name in _PACKAGES} | {"python": platform.python_version()},
        "git_commit": git_commit(),
        "machine": {"platform": f"{platform.system()} {platform.machine()}", "cpus": os.cpu_count()},
    }
    with _explained(folder):
        (folder / "rollouts").mkdir(parents=True, exist_ok=True)
        (folder / "checkpoints").mkdir(exist_ok=True)
        _write(folder / "metrics.jsonl", "")
        _write(folder / "manifest.json", json.dumps(manifest, indent=1) + "\n")
    return Run(folder)


def refuse_existing(folder: Path) -> None:
    """Raise `RunError` if the folder holds a run already."""
    if (folder / "manifest.json").exists():
        raise RunError(f"{folder} holds a run already; choose another --out, or go on with it by --resume {folder}")


def load_run(path: str | os.PathLike[str]) -> Run:
    """Open a run folder. Raises `RunError` that names the folder and what is missing."""
    folder = Path(path)
    if not (folder / "manifest.json").is_file():
        raise RunError(f"{folder} is no run folder: it has no manifest.json")
    run = Run(folder)
    if run.manifest.get("format") != FORMAT:
        raise RunError(f"{folder} was written by another version (format {run.manifest.get('format')}, not {FORMAT})")
    return run


def levels_hash(levels: Sequence[Item]) -> str:
    return hashlib.sha256("\n\n".join(level.text for level in levels).encode()).hexdigest()


# Files


class _explained:
    """Turn an OSError into one clear line; what was written before stays."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if isinstance(error, OSError):
            raise RunError(
                f"cannot write to {self.folder}: {error.strerror or error}; what was written before is kept"
            ) from None


def _write(file: Path, text: str) -> None:
    beside = file.with_name(file.name + ".tmp")
    with _explained(file.parent):
        try:
            beside.write_text(text, "utf-8")
            beside.replace(file)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise


def _read_json(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {file}: {error}") from None
    if not isinstance(data, dict):
        raise RunError(f"{file} should hold a JSON object")
    return data


def _read_lines(file: Path) -> Iterator[dict[str, Any]]:
    """JSON lines; a torn last line (the process was killed while writing) is left out."""
    if not file.exists():
        return
    for line in file.read_text("utf-8").splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


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
