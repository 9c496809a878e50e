"""Record the runs that the notebooks open with: `python notebooks/record.py [quickstart] [flat]` (minutes, on a CPU).

They lie in data/runs/ with manifest, metrics, a few rollouts and scores, without checkpoints. Budgets are iterations,
so the same base model on the same machine gives the same records again; a new base model needs new ones.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import himac_lite
from himac_lite.config import PRESETS, Train

HERE = Path(__file__).resolve().parents[1] / "data" / "runs"
RUNS: dict[str, tuple[Train, tuple[int, ...]]] = {
    "quickstart": (replace(PRESETS["quick"], iterations=40), (0, 1, 2, 5, 10, 20, 30, 40)),
    "flat": (replace(PRESETS["quick"], variant="flat_grpo", iterations=1, record_levels=6), (1,)),
}
"""Name → what is trained, and the iterations whose rollouts are kept."""


def record(name: str) -> Path:
    """Train, take out what no notebook reads, and put it in the place of the old record."""
    config, kept = RUNS[name]
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / name
        himac_lite.train(config, folder, progress=lambda i, n, _: print(f"{name}: iteration {i} of {n}", flush=True))
        shutil.rmtree(folder / "checkpoints")
        for file in (folder / "rollouts").glob("*.jsonl"):
            if int(file.stem) not in kept:
                file.unlink()
        shutil.rmtree(HERE / name, ignore_errors=True)
        shutil.copytree(folder, HERE / name)
    return HERE / name


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in RUNS]
    if unknown:
        print(f"unknown run {unknown[0]!r}; choose from {', '.join(RUNS)}")
        return 2
    for name in names or RUNS:
        print(record(name))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
