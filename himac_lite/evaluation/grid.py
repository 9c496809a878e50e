"""Train the missing cells of a grid of variants × seeds, with any number of processes, over any number of sessions.

A finished run is a row in the output folder, which is committed; it is never trained again. An unfinished run is a run
folder with checkpoints, which the next call resumes. All variants get the same environment steps.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from himac_lite import storage
from himac_lite.config import Train, validate
from himac_lite.errors import ConfigError, HimacError, RunError
from himac_lite.evaluation.prompting import PROMPTED
from himac_lite.evaluation.rows import (
    OWN_FILE,
    Row,
    Spent,
    add_row,
    curve_of_run,
    keep_settings,
    kept,
    read_rows,
    row_of_run,
    settings_of,
)
from himac_lite.hierarchy import PRESETS, choose
from himac_lite.policy.loading import weights_sha256
from himac_lite.policy.parallel import one_thread_a_worker
from himac_lite.rollout.evaluate import evaluate, score
from himac_lite.runs import folder as runs
from himac_lite.runs.training import load_for, make_task, train
from himac_lite.tasks import registry
from himac_lite.tasks.registry import for_task, load_items

GRIDS: dict[str, dict[str, int]] = {
    "ablations": {
        "himac": 5, "random_blueprint": 3, "no_sub_done": 3, "joint_update": 3, "flat_grpo": 5,
        "prompt_flat": 1, "prompt_blueprint": 1, "prompt_best_of_8": 1, "prompt_retry_8": 1,
    },
    "efficiency": {"himac": 5, "flat_grpo": 5, "flat_dr_grpo": 3, "flat_rloo": 3, "flat_gigpo": 3},
    "webshop": {"himac": 3, "flat_grpo": 3},
    "alfworld": {"himac": 3, "flat_grpo": 3},
}  # fmt: skip
"""Grid → variant → number of seeds. The last two grids are named after their tasks; the others play Sokoban."""

DEFAULT = Train(
    iterations=10**6, env_steps=410_000, validate_every=2, validate_on=256, checkpoint_every=2, keep_checkpoints=1,
    record_levels=0, probe_levels=0,
)  # fmt: skip
"""The settings of Sokoban's grids: those of the default run, with a budget in environment steps and a finer curve."""
IN_WORDS = {"webshop": 7_000, "alfworld": 12_000}
"""Text-action task → environment steps of a run: about what HiMAC's default iterations take."""


def _known(grid: str) -> str:
    if grid not in GRIDS:
        raise ConfigError(f"unknown grid {grid!r}; choose one of {', '.join(GRIDS)}")
    return grid


def settings_for(grid: str, task: str | None = None) -> Train:
    """The settings that all cells of a grid share. task: another task than the grid's, a name or ``FILE.py:NAME``.

    Raises `ConfigError` for an unknown name, or a task beside a grid that has its own.
    """
    if _known(grid) not in IN_WORDS:
        return for_task(DEFAULT, registry.choose(task, DEFAULT.task).value) if task else DEFAULT
    if task not in (None, grid):
        raise ConfigError(f"the grid {grid} has its own task; --task goes with ablations or efficiency")
    return replace(
        for_task(Train(), grid), iterations=DEFAULT.iterations, env_steps=IN_WORDS[grid], validate_every=2,
        checkpoint_every=2, keep_checkpoints=1, record_levels=0, probe_levels=0,
    )  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One run of a grid. variant_file, task_file: ``FILE.py:NAME`` of the user's own; a worker imports them again."""

    variant: str
    seed: int
    variant_file: str | None = None
    task_file: str | None = None

    @property
    def name(self) -> str:
        return f"{self.variant}-{self.seed}"


def cells(
    grid: str, variants: Sequence[str] | None = None, seeds: int | None = None, task: str | None = None
) -> list[Cell]:
    """The cells of a grid, seed by seed, so that a partial run compares as many variants as possible.

    variants: only these, each a name or ``FILE.py:NAME``. seeds: for each variant, instead of the grid's. task: as for
    `settings_for`. Raises `ConfigError` for an unknown name, and for two variants of one name.
    """
    known, whole = (*PRESETS, *PROMPTED), GRIDS[_known(grid)]
    files: dict[str, str | None] = {}
    for variant in whole if variants is None else variants:
        if ":" not in variant and variant not in known:
            raise ConfigError(
                f"unknown variant {variant!r}; choose from {', '.join(known)}, or FILE.py:NAME of your own"
            )
        name = choose(variant, "").name if ":" in variant else variant
        own = variant if variant != name else None
        if (own and name in PROMPTED) or files.get(name, own) != own:
            raise ConfigError(f"two variants are called {name}; give {own or files[name]} another name")
        files[name] = own
    counts = {v: whole.get(v, 3) if seeds is None else 1 if v in PROMPTED else seeds for v in files}
    task_file = task if task and ":" in task else None
    return [
        Cell(v, s, files[v], task_file)
        for s in range(max(counts.values(), default=0))
        for v, n in counts.items()
        if s < n
    ]


def reproduce(
    wanted: Sequence[Cell], out: Path, scratch: Path, *, settings: Train = DEFAULT, workers: int = 1,
    minutes: float | None = None, say: Callable[[str], None] = print,
) -> tuple[list[Row], list[Cell]]:  # fmt: skip
    """Train and score the cells without a row. Several processes may fill one `out`, each with its own `scratch`.

    Args:
        out: the folder of rows and curves.
        scratch: the folder of unfinished runs.
        minutes: after that time no run starts, and each running one stops after its iteration; the next call resumes.
    Returns: (all rows of the cells, the cells without a row).
    Raises: `RunError` if `out` holds rows of other settings, another process uses `scratch`, or a worker was killed;
        the `HimacError` of the first cell that failed, after all others are done.
    """
    validate(settings)
    rows = read_rows(out)
    keep_settings(out, _shared(settings, wanted), begun=bool(rows))
    deadline = None if minutes is None else time.time() + 60 * minutes
    failed: list[HimacError] = []
    scratch.mkdir(parents=True, exist_ok=True)
    with storage.locked(scratch):
        for cell, found in _worked(missing(wanted, rows), settings, scratch, workers, deadline):
            if isinstance(found, HimacError):
                failed.append(found)
                say(f"{cell.name}: {found}")
            elif found is not None:
                row, curve = found
                rows = add_row(out, row, curve)
                say(f"{_line(row)}; {len(missing(wanted, rows))} of {len(wanted)} left")
    if failed:
        raise failed[0]
    return chosen(wanted, rows), missing(wanted, rows)


def chosen(wanted: Sequence[Cell], rows: Sequence[Row]) -> list[Row]:
    """The rows of these cells, by variant and seed."""
    names = {cell.name for cell in wanted}
    return sorted((row for row in rows if row.name in names), key=lambda r: (r.variant, r.seed))


def missing(wanted: Sequence[Cell], rows: Sequence[Row]) -> list[Cell]:
    """The cells that have no row yet."""
    have = {row.name for row in rows}
    return [cell for cell in wanted if cell.name not in have]


def _line(row: Row) -> str:
    (low, high), spent = row.trained.ci95, row.spent
    return (
        f"{row.name}: {100 * row.trained.success:.1f} % ({100 * low:.1f}–{100 * high:.1f}) of {row.trained.n}, "
        f"{spent.env_steps:,} steps, {spent.tokens:,} tokens, {spent.minutes:.1f} min"
    )


def _shared(settings: Train, wanted: Sequence[Cell]) -> dict[str, Any]:
    world = registry.choose(wanted[0].task_file if wanted else None, settings.task)
    splits = {"train": settings.train_levels, "validation": settings.validation_levels, "test": settings.test_levels}
    hashes = {part: runs.levels_hash(load_items(world.value, name, part)) for part, name in splits.items()}
    own = {cell.variant: choose(cell.variant_file, cell.variant).origin for cell in wanted if cell.variant_file}
    files = {
        f"{OWN_FILE}{name}": origin["sha256"] for name, origin in (own | {"the task": world.origin}).items() if origin
    }
    return settings_of(settings, hashes, weights_sha256(settings.model.path)) | files


Found = tuple[Row, list[dict[str, Any]]]


def _worked(
    todo: Sequence[Cell], settings: Train, scratch: Path, workers: int, deadline: float | None
) -> Iterator[tuple[Cell, Found | HimacError | None]]:
    """Each cell with its row and curve, as they finish; None for a cell that the deadline stopped."""
    if workers == 1 or len(todo) < 2:
        for cell in todo:
            yield cell, _guarded(cell, settings, scratch, deadline)
        return
    context = multiprocessing.get_context("spawn")
    share = context.Queue()
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    for part in np.array_split(cores, workers):
        share.put([int(core) for core in part])
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_settle, initargs=(share,)) as pool:
        try:
            jobs = {pool.submit(_guarded, cell, settings, scratch, deadline): cell for cell in todo}
            for job in as_completed(jobs):
                yield jobs[job], job.result()
        except BrokenProcessPool:
            raise RunError(
                "a worker was killed, perhaps for its memory: the same command resumes every run from its last "
                "checkpoint; fewer --workers need less memory"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _settle(share: Any) -> None:
    """Pin a worker to its own cores, so that workers do not wait for each other."""
    own = share.get()
    if own and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, own)


class _Stop(Exception):
    """The deadline passed."""


def _guarded(cell: Cell, settings: Train, scratch: Path, deadline: float | None) -> Found | HimacError | None:
    def check(*_: Any) -> None:
        if deadline is not None and time.time() >= deadline:
            raise _Stop

    config = replace(settings, variant=cell.variant, seed=cell.seed)
    try:
        check()
        if cell.variant in PROMPTED:
            return _prompted(config, cell.task_file)
        return _trained(config, cell, scratch / cell.name, check)
    except _Stop:
        return None
    except HimacError as error:
        return error


def _trained(config: Train, cell: Cell, folder: Path, check: Callable[..., None]) -> Found:
    begun = (folder / "manifest.json").is_file()
    if begun and runs.load_run(folder).config != config:
        raise RunError(f"{folder} was started with other settings; remove it, or choose another --runs")
    run = runs.load_run(folder) if begun else None
    if run is None or not run.results:
        own, world = cell.variant_file, cell.task_file
        run = train(config, folder, resume=begun, progress=check, hierarchy=own, world=world)
    return row_of_run(run), curve_of_run(run)


def _prompted(config: Train, task_file: str | None) -> Found:
    begun, world = time.monotonic(), registry.choose(task_file, config.task).value
    one_thread_a_worker()
    policy = load_for(config)
    levels, task = load_items(world, config.test_levels, "test")[: config.test_limit], make_task(config, world)
    attempts = PROMPTED[config.variant](policy, task, levels, np.random.default_rng(config.seed))
    scored = score("prompted", task, levels, [a.final for a in attempts])
    scored = replace(scored, mean_steps=float(np.mean([a.env_steps for a in attempts])))
    mode = "flat" if config.variant == "prompt_flat" else "himac"
    found = scored, evaluate(policy, task, levels, mode), evaluate(None, task, levels, "random", seed=config.seed)
    trained, base, random = (kept(s.as_dict()) for s in found)
    spent = Spent(0, 0, round((time.monotonic() - begun) / 60, 2), 0)
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"
    commit = runs.git_commit() or ""
    return Row(config.variant, config.seed, trained, base, random, spent, commit, machine), []
