"""Record the runs that the notebooks show: `python notebooks/record.py [quickstart] [flat]` (minutes, on a CPU).

Records in data/runs/ have a manifest, metrics, a few rollouts and scores, but no checkpoints. Budgets are iterations,
so the same base model on the same machine gives the same records; a new base model needs new records. To use a finished
run with the same settings instead of training: `python notebooks/record.py quickstart --from runs/himac-0`.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import himac_lite
from himac_lite.config import TRAIN_PRESETS, Train
from himac_lite.errors import HimacError, RunError

HERE = Path(__file__).resolve().parents[1] / "data" / "runs"
RUNS: dict[str, tuple[Train, tuple[int, ...]]] = {
    "quickstart": (replace(TRAIN_PRESETS["quick"], iterations=40), (0, 1, 2, 5, 10, 20, 30, 40)),
    "flat": (replace(TRAIN_PRESETS["quick"], variant="flat_grpo", iterations=1, record_levels=6), (1,)),
}
"""Name → the settings, and the iterations whose rollouts are kept."""


def record(name: str, finished: Path | None = None) -> Path:
    """Train or copy a finished run, delete what no notebook reads, and replace the old record.

    Returns: the folder of the record.
    Raises: `RunError` if the run is not finished or has other settings.
    """
    config, kept = RUNS[name]
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / name
        if finished is None:
            himac_lite.train(
                config, folder, progress=lambda i, n, _: print(f"{name}: iteration {i} of {n}", flush=True)
            )
        else:
            run = himac_lite.load_run(finished)
            if not run.results or run.config != config:
                raise RunError(f"{finished} is not a finished run with the settings of {name!r}")
            shutil.copytree(finished, folder)
        shutil.rmtree(folder / "checkpoints")
        (folder / ".lock").unlink(missing_ok=True)
        for file in (folder / "rollouts").glob("*.jsonl"):
            if int(file.stem) not in kept:
                file.unlink()
        shutil.rmtree(HERE / name, ignore_errors=True)
        shutil.copytree(folder, HERE / name)
    return HERE / name


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(RUNS)}; default: all")
    parser.add_argument("--from", dest="finished", type=Path, help="a finished run to copy instead of training")
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.names if name not in RUNS]:
        parser.error(f"unknown run {unknown[0]!r}; choose from {', '.join(RUNS)}")
    if given.finished and len(given.names) != 1:
        parser.error("--from needs exactly one NAME")
    try:
        for name in given.names or RUNS:
            print(record(name, given.finished))
    except HimacError as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
