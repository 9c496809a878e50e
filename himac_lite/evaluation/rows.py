"""Rows: one per finished run, as JSON lines (everything) and CSV (flat, for a spreadsheet), with its curve.

FOLDER/rows.jsonl · FOLDER/rows.csv · FOLDER/curves/VARIANT-SEED.jsonl
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from himac_lite import config as configs
from himac_lite import storage
from himac_lite.errors import RunError
from himac_lite.rollout.evaluate import wilson
from himac_lite.runs.folder import Run, load_run

T = TypeVar("T")
WHO = ("trained", "base", "random")
"""The scores of a row: the trained (or prompted) policy, the untrained model under the same rules, random actions."""
CURVE = (
    "iteration", "env_steps", "tokens", "seconds", "validation/success", "macro/success", "micro/success",
    "macro/zero_variance", "micro/zero_variance",
)  # fmt: skip
"""The metrics of a run that its curve keeps."""
_BOOKKEEPING = (
    "variant", "seed", "checkpoint_every", "keep_checkpoints", "keep_rollouts", "record_levels", "probe_levels",
    "probe_every", "warn_after",
)  # fmt: skip
"""Settings that differ between cells, or that change nothing that is learnt or measured."""
OWN_FILE = "sha256 of the file of "
"""Prefix of the settings with the hash of a user's own variant or task. A variant may be added to a table later."""


@dataclass(frozen=True)
class Kept:
    """What a row keeps of a `Score`. The last three are unknown in some rows of version 0.1."""

    mode: str
    success: float
    ci95: tuple[float, float]
    n: int
    by_length: Mapping[str, Mapping[str, float]]
    mean_steps: float | None = None
    """Environment steps per level; of a prompted policy, those of all its attempts."""
    mean_progress: float | None = None
    solved: str = ""


@dataclass(frozen=True)
class Spent:
    """What training cost; nothing but minutes (those of the test) for a policy that was only prompted."""

    env_steps: float
    tokens: float
    """Tokens that the model chose."""
    minutes: float
    iterations: float


@dataclass(frozen=True)
class Row:
    """What one variant reached with one seed on the test levels, greedily."""

    variant: str
    seed: int
    trained: Kept
    base: Kept
    random: Kept
    spent: Spent
    commit: str = ""
    machine: str = ""
    rules: Mapping[str, str] = field(default_factory=lambda: {"training": "end", "test": "end"})
    """Names of the rules in training and at test (`Hierarchy.rule_names`). Rows before version 0.3 have none: "end"."""

    @property
    def name(self) -> str:
        return f"{self.variant}-{self.seed}"


def kept(score: Mapping[str, Any]) -> Kept:
    """A `Score` as a dict → what a row keeps of it."""
    return _known(Kept, {**score, "ci95": tuple(score["ci95"])})


def _known(kind: type[T], data: Mapping[str, Any]) -> T:
    """Fields that this version does not know are dropped."""
    return kind(**{f.name: data[f.name] for f in fields(kind) if f.name in data})  # type: ignore[arg-type]


def settings_of(config: configs.Train, levels: Mapping[str, str], model: str) -> dict[str, Any]:
    """What all rows of a folder share, flat: the settings except `_BOOKKEEPING`; hashes of levels and model."""
    hashes = {f"sha256 of {part} levels": digest for part, digest in levels.items()}
    shared = {name: value for name, value in configs.flat(config).items() if name not in _BOOKKEEPING}
    return {**hashes, **shared, "sha256 of the model": model}


def keep_settings(folder: Path, settings: Mapping[str, Any], begun: bool) -> None:
    """Write FOLDER/settings.json, or compare with it if there are rows already (`begun`).

    Raises `RunError` that names the first setting that differs. A setting that only one of the two versions knows does
    not count as a difference.
    """
    file = folder / "settings.json"
    if begun and file.exists():
        old = storage.read_json(file)
        for name in settings.keys() & old.keys():
            if settings[name] != old[name]:
                raise RunError(
                    f"{folder} holds rows with {name}={old[name]!r}, not {settings[name]!r}; "
                    "choose another --out, or move them away"
                )
        if new := {name: settings[name] for name in settings.keys() - old.keys() if name.startswith(OWN_FILE)}:
            _write(file, json.dumps(old | new, indent=1) + "\n")
        return
    _write(file, json.dumps(settings, indent=1) + "\n")


def row_of_run(run: Run) -> Row:
    """The row of a finished run. Raises `RunError` if it is not finished."""
    results, config, manifest = run.results, run.config, run.manifest
    if not results:
        raise RunError(f"{run.folder} has no final scores yet; resume it with --resume {run.folder}")
    trained, base, random = (kept(results[who]) for who in WHO)
    spent = Spent(results["env_steps"], results["tokens"], round(results["seconds"] / 60, 2), results["iterations"])
    machine = manifest.get("machine", {})
    where = f"{machine.get('platform', '')}, {machine.get('cpus', '?')} CPUs"
    rules = {"rules": results["rules"]} if "rules" in results else {}
    return Row(
        config.variant, config.seed, trained, base, random, spent, manifest.get("git_commit") or "", where, **rules
    )


def rows_of_runs(folder: Path) -> list[Row]:
    """Rows of all finished runs in a folder, such as data/runs/core. Their settings are not compared."""
    found = [load_run(f.parent) for f in sorted(folder.glob("*/manifest.json"))]
    return [row_of_run(run) for run in found if run.results]


def curve_of_run(run: Run) -> list[dict[str, Any]]:
    """The metrics that a curve keeps, one dict per iteration."""
    return [{k: line[k] for k in CURVE if k in line} for line in run.metrics()]


def read_rows(folder: Path) -> list[Row]:
    """The rows of FOLDER/rows.jsonl, none without that file. Raises `RunError` that names a broken line."""
    file, out = folder / "rows.jsonl", []
    if not file.exists():
        return []
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"cannot read {file}: {error}") from None
    for number, line in enumerate(lines, 1):
        try:
            data = json.loads(line)
            data = data if "spent" in data else _nested(data)
            scores = {who: kept(data[who]) for who in WHO}
            out.append(_known(Row, {**data, **scores, "spent": _known(Spent, data["spent"])}))
        except KeyError as error:
            raise RunError(f"{file}, line {number}: {error} is missing") from None
        except (ValueError, TypeError, AttributeError) as error:
            raise RunError(f"{file}, line {number}: {error}") from None
    return out


def _nested(old: Mapping[str, Any]) -> dict[str, Any]:
    """A row of version 0.1, whose fields were flat, in the form of today."""

    def score(who: str, mode: str, **more: Any) -> dict[str, Any]:
        success, n = old[f"{who}success"], old["n"]
        known = {"by_length": old.get(f"{who}by_length", {}), "mean_progress": old.get(f"{who}score"), **more}
        return {"mode": mode, "success": success, "ci95": wilson(round(success * n), n), "n": n, **known}

    mode = "flat" if old["variant"] == "prompt_flat" else "himac" if old["mode"] == "prompted" else old["mode"]
    trained = score("", old["mode"], mean_steps=old["test_steps"], solved=old.get("solved", ""))
    return {**old, "trained": trained, "base": score("base_", mode), "random": score("random_", "random"), "spent": old}


def read_curve(folder: Path, row: Row) -> list[dict[str, Any]]:
    """The curve of a row: FOLDER/curves/VARIANT-SEED.jsonl, or that of the run FOLDER/VARIANT-SEED; else []."""
    file = folder / "curves" / f"{row.name}.jsonl"
    if file.exists():
        return list(storage.read_lines(file))
    return curve_of_run(load_run(folder / row.name)) if (folder / row.name / "manifest.json").is_file() else []


def write_rows(folder: Path, rows: Iterable[Row], curves: Mapping[str, Sequence[Mapping[str, Any]]] = {}) -> None:
    """Write all rows anew, and the given curves: VARIANT-SEED → lines."""
    listed = sorted(rows, key=lambda r: (r.variant, r.seed))
    _write(folder / "rows.jsonl", "".join(json.dumps(asdict(row)) + "\n" for row in listed))
    _write(folder / "rows.csv", _as_csv(listed))
    for name, lines in curves.items():
        _write(folder / "curves" / f"{name}.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


def add_row(folder: Path, row: Row, curve: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Add a row and its curve, or replace the row of the same variant and seed. Returns all rows.

    Several processes may do this at a time: each reads what the others have written.
    """
    with storage.locked(folder, wait=True):
        rows = [r for r in read_rows(folder) if r.name != row.name] + [row]
        write_rows(folder, rows, {row.name: curve})
    return rows


def _as_csv(rows: Sequence[Row]) -> str:
    """The columns of version 0.1, which a spreadsheet shows as they are."""
    bins = list(dict.fromkeys(name for row in rows for name in row.trained.by_length))
    table = []
    for row in rows:
        own, base, random = row.trained, row.base, row.random
        low, high = own.ci95
        cells = {
            "variant": row.variant, "seed": row.seed, "success": own.success, "low": low, "high": high, "n": own.n,
            **asdict(row.spent), "mode": own.mode, "base_success": base.success, "random_success": random.success,
            "test_steps": own.mean_steps, "commit": row.commit, "machine": row.machine, "score": own.mean_progress,
            "base_score": base.mean_progress, "random_score": random.mean_progress,
            "training_rule": row.rules["training"], "test_rule": row.rules["test"],
        }  # fmt: skip
        by_length = {f"success_{name}": own.by_length.get(name, {}).get("success", "") for name in bins}
        table.append(cells | by_length)
    out = io.StringIO()
    writer = csv.DictWriter(out, table[0] if table else (), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return out.getvalue()


def _write(file: Path, text: str) -> None:
    with storage.explained(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    storage.write(file, text)
