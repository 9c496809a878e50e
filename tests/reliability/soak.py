"""A long run of a tiny model: is memory flat, does it slow down, are files rotated?

``python tests/reliability/soak.py --iterations 2000``. The slopes of resident memory and of the seconds of an iteration
are least squares over all iterations but the first tenth. It fails if memory grows by more than 5 MB in a
thousand iterations, if the median iteration of the last quarter takes over 1.25 times that of the second, or if more
files are kept than the settings say.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import toy
from strings import rss


def main() -> int:
    parser = argparse.ArgumentParser(description="a long run, watched")
    parser.add_argument("--iterations", type=int, default=2000)
    parser.add_argument("--out", type=Path, help="where to keep the run; default: nowhere")
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        config = toy.config(*toy.make(place))
        config = replace(
            config, iterations=given.iterations, checkpoint_every=10, keep_checkpoints=2, keep_rollouts=20,
            validate_every=50, probe_levels=0, rollout=replace(config.rollout, levels=2),
        )  # fmt: skip
        from himac_lite.runs.training import train

        memory, seconds, last = [], [], time.monotonic()

        def progress(done: int, total: int, line: Mapping[str, Any]) -> None:
            nonlocal last
            now = time.monotonic()
            memory.append(rss() / 1e6)
            seconds.append(now - last)
            last = now
            if done % 100 == 0:
                print(f"{done}/{total}: {memory[-1]:.1f} MB, {1000 * seconds[-1]:.0f} ms", flush=True)

        run = train(config, given.out or place / "run", progress=progress)
        begin, quarter = len(memory) // 10, len(seconds) // 4
        slope = 1000 * float(np.polyfit(np.arange(begin, len(memory)), memory[begin:], 1)[0])
        early, late = statistics.median(seconds[quarter : 2 * quarter]), statistics.median(seconds[-quarter:])
        kept = len(list((run.folder / "rollouts").iterdir())), len(list((run.folder / "checkpoints").iterdir()))
        size = sum(f.stat().st_size for f in run.folder.rglob("*") if f.is_file())
        found = {
            "iterations": given.iterations, "memory_mb": [round(memory[begin], 1), round(memory[-1], 1)],
            "memory_slope_mb_per_1000": round(slope, 3), "median_ms": [round(1000 * early, 1), round(1000 * late, 1)],
            "rollout_files": kept[0], "checkpoints": kept[1], "metrics_lines": len(run.metrics()),
            "folder_mb": round(size / 1e6, 2),
        }  # fmt: skip
        print(json.dumps(found))
    return int(slope > 5 or late > 1.25 * early or kept[0] > 20 or kept[1] > 3)


if __name__ == "__main__":
    sys.exit(main())
