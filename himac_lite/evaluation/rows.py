"""Rows: one a finished run, as JSON lines (all of it) and CSV (what a spreadsheet can show), and its curve beside.

FOLDER/rows.jsonl · FOLDER/rows.csv · FOLDER/curves/VARIANT-SEED.jsonl
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from himac_lite import config as configs
from himac_lite import storage
from himac_lite.errors import RunError
from himac_lite.runs.folder import Run, load_run

CURVE = (
    "iteration", "env_steps", "tokens", "seconds", "validation/success", "macro/success", "micro/success",
    "macro/zero_variance", "micro/zero_variance",
)  # fmt: skip
"""What is kept of a run's metrics."""
_BOOKKEEPING = (
    "variant", "seed", "checkpoint_every", "keep_checkpoints", "keep_rollouts", "record_levels", "probe_levels",
    "probe_every", "warn_after",
)  # fmt: skip
"""Settings that a cell has for itself, or that change nothing of what is learnt or measured."""


@dataclass(frozen=True)
class Row:
    """What one variant reached with one seed; success and its Wilson interval on the test levels, greedy."""

    variant: str
    seed: int
    success: float
    low: float
    high: float
    n: int
    by_length: Mapping[str, Mapping[str, float]]
    """Bin of optimal length → n and success."""
    env_steps: int
    """Environment steps of training; 0 for a policy that was only prompted."""
    tokens: int
    """Tokens the model chose in training."""
    minutes: float
    """Wall-clock minutes of training (of a prompted policy: of the test)."""
    iterations: int
    mode: str
    base_success: float
    """The untrained model under the same rules and levels."""
    random_success: float
    test_steps: float
    """Environment steps a level at test time."""
    solved: str = ""
    """1 or 0 a test level, in their order; empty where the record does not have it."""
    commit: str = ""
    machine: str = ""
    base_by_length: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    random_by_length: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """As `by_length`, of the untrained model and the random policy; empty where the record does not have it."""
    score: float | None = None
    base_score: float | None = None
    random_score: float | None = None
    """Mean share of the goal that was reached (WebShop's reward); None where the record does not have it."""


def settings_of(config: configs.Train, levels: Mapping[str, str], model: str) -> dict[str, Any]:
    """What all rows of a folder share, flat: settings but variant, seed, book-keeping; hashes of levels and model."""
    out: dict[str, Any] = {f"sha256 of {part} levels": digest for part, digest in levels.items()}
    for name, value in configs.as_dict(config).items():
        parts = {f"{name}.{inner}": v for inner, v in value.items()} if isinstance(value, dict) else {name: value}
        out |= {k: v for k, v in parts.items() if k not in _BOOKKEEPING}
    return {**out, "sha256 of the model": model}


def keep_settings(folder: Path, settings: Mapping[str, Any], begun: bool) -> None:
    """Write FOLDER/settings.json, or compare with it if rows are there (`begun`).

    Raises `RunError` that names the first setting that differs. A setting that one of the two does not know (it is of
    another version) is no difference.
    """
    file = folder / "settings.json"
    if begun and file.exists():
        try:
            old = dict(json.loads(file.read_text("utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise RunError(f"cannot read {file}: {error}") from None
        for name in settings.keys() & old.keys():
            if settings[name] != old[name]:
                raise RunError(
                    f"{folder} holds rows with {name}={old[name]!r}, not {settings[name]!r}; "
                    "choose another --out, or move them away"
                )
        return
    _write(file, json.dumps(settings, indent=1) + "\n")


def row_of_run(run: Run) -> Row:
    """The row of a finished run. Raises `RunError` if it is not finished."""
    results, config, manifest = run.results, run.config, run.manifest
    if not results:
        raise RunError(f"{run.folder} has no final scores yet; go on with it by --resume {run.folder}")
    trained = results["trained"]
    low, high = trained["ci95"]
    machine = manifest.get("machine", {})
    return Row(
        config.variant, config.seed, trained["success"], low, high, trained["n"], trained["by_length"],
        results["env_steps"], results["tokens"], round(results["seconds"] / 60, 2), results["iterations"],
        results["mode"], results["base"]["success"], results["random"]["success"], trained["mean_steps"],
        trained.get("solved", ""), manifest.get("git_commit") or "",
        f"{machine.get('platform', '')}, {machine.get('cpus', '?')} CPUs",
        results["base"].get("by_length", {}), results["random"].get("by_length", {}),
        *(results[who].get("mean_progress") for who in ("trained", "base", "random")),
    )  # fmt: skip


def rows_of_runs(folder: Path) -> list[Row]:
    """Rows of all finished runs in a folder, such as data/runs/core. Whether their settings agree is not checked."""
    found = [load_run(f.parent) for f in sorted(folder.glob("*/manifest.json"))]
    return [row_of_run(run) for run in found if run.results]


def curve_of_run(run: Run) -> list[dict[str, Any]]:
    """What is kept of a run's metrics, one dict an iteration."""
    return [{k: line[k] for k in CURVE if k in line} for line in run.metrics()]


def read_rows(folder: Path) -> list[Row]:
    """The rows of FOLDER/rows.jsonl, none if there is no such file. Raises `RunError` with the line that is broken."""
    file, out = folder / "rows.jsonl", []
    if not file.exists():
        return []
    known = {f.name for f in fields(Row)}
    for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
        try:
            data = json.loads(line)
            out.append(Row(**{k: v for k, v in data.items() if k in known}))
        except (ValueError, TypeError, AttributeError) as error:
            raise RunError(f"{file}, line {number}: {error}") from None
    return out


def read_curve(folder: Path, row: Row) -> list[dict[str, Any]]:
    """The curve of a row: FOLDER/curves/VARIANT-SEED.jsonl, or that of the run FOLDER/VARIANT-SEED; [] without."""
    name = f"{row.variant}-{row.seed}"
    file = folder / "curves" / f"{name}.jsonl"
    if file.exists():
        return [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    return curve_of_run(load_run(folder / name)) if (folder / name / "manifest.json").is_file() else []


def write_rows(folder: Path, rows: Iterable[Row], curves: Mapping[str, Sequence[Mapping[str, Any]]] = {}) -> None:
    """Write all rows anew, beside and renamed, and the curves that are given: VARIANT-SEED → lines."""
    listed = sorted(rows, key=lambda r: (r.variant, r.seed))
    _write(folder / "rows.jsonl", "".join(json.dumps(asdict(row)) + "\n" for row in listed))
    _write(folder / "rows.csv", _as_csv(listed))
    for name, lines in curves.items():
        _write(folder / "curves" / f"{name}.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


def add_row(folder: Path, row: Row, curve: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Put a row, in the place of the one of the same variant and seed, and its curve into a table; returns all rows.

    Several processes may do so at a time: each reads what the others have written.
    """
    with storage.locked(folder, wait=True):
        rows = [r for r in read_rows(folder) if (r.variant, r.seed) != (row.variant, row.seed)] + [row]
        write_rows(folder, rows, {f"{row.variant}-{row.seed}": curve})
    return rows


def _as_csv(rows: Sequence[Row]) -> str:
    bins = list(dict.fromkeys(name for row in rows for name in row.by_length))
    plain = [f.name for f in fields(Row) if f.name != "solved" and not f.name.endswith("by_length")]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*plain, *(f"success_{name}" for name in bins)])
    for row in rows:
        cells = [getattr(row, name) for name in plain]
        writer.writerow([*cells, *(row.by_length.get(name, {}).get("success", "") for name in bins)])
    return out.getvalue()


def _write(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        beside = file.with_name(file.name + ".tmp")
        beside.write_text(text, "utf-8")
        beside.replace(file)
    except OSError as error:
        raise RunError(f"cannot write {file}: {error.strerror or error}") from None
