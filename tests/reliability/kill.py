"""Kill a training wherever it hurts, resume it, and compare it with one that nothing disturbed.

``python tests/reliability/kill.py --points 50``. A point is drawn at random from a seed:

- *moment*: SIGKILL from outside at any moment of the run.
- *file*: SIGKILL just before the n-th time that the run opens, renames or removes one of its files.
- *write*: in the middle of a write. From the n-th of these on, no file may grow beyond a random size; the process that
  tries has a part of its bytes on the disk and is ended by the system (SIGXFSZ, whose default is death).

Half of the points are killed once more while they are resumed. Then the run is resumed to its end, and every file of
its folder is compared: adapter, optimizer and rollouts byte for byte, metrics, scores and states but for the seconds;
and no file may be left over. One process imports everything and forks the trainings, so that a point takes seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import toy

from himac_lite.config import Train

KINDS = ("moment", "file", "write")
WRITES = os.O_WRONLY | os.O_RDWR


class Fate:
    """When a process dies. kind: one of KINDS, or "" to live. at: seconds, or the number of a file operation."""

    def __init__(self, kind: str = "", at: float = 0, size: int = 0) -> None:
        self.kind, self.at, self.size, self.seen = kind, at, size, 0

    def hook(self, folder: str) -> Any:
        """A hook for `sys.addaudithook` that counts what is done to the files of a folder, and ends the process."""

        def heard(event: str, args: tuple[Any, ...]) -> None:
            if event not in ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir"):
                return
            inside = str(args[0]).startswith(folder) or event in ("os.remove", "os.rmdir")
            if not inside or (event == "open" and not (isinstance(args[2], int) and args[2] & WRITES)):
                return
            self.seen += 1
            if self.seen == self.at and self.kind == "file":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.seen == self.at and self.kind == "write":
                resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.size))

        return heard


def run(config: Train, folder: Path, fate: Fate, log: Path) -> tuple[bool, int]:
    """Train, or go on, in a process of its own: (whether it was killed, file operations counted if it was not)."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            sys.addaudithook(fate.hook(str(folder)))
            from himac_lite.runs.training import train

            train(config, folder, resume=(folder / "manifest.json").exists())
            os.write(writer, str(fate.seen).encode())
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writer)
    if fate.kind == "moment":
        time.sleep(fate.at)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    with os.fdopen(reader) as counted:
        seen = counted.read()
    if os.WIFSIGNALED(status):
        return True, 0
    if os.WEXITSTATUS(status):
        raise SystemExit(f"the training failed instead of ending or being killed:\n{log.read_text()}")
    return False, int(seen or 0)


def snapshot(folder: Path) -> dict[str, Any]:
    """Every file of a run, without what the clock or the order of a set decides."""
    out: dict[str, Any] = {}
    for file in sorted(f for f in folder.rglob("*") if f.is_file() and f.name != ".lock"):
        name, data = str(file.relative_to(folder)), file.read_bytes()
        if file.name == "metrics.jsonl":
            out[name] = [_timeless(json.loads(line)) for line in data.splitlines()]
        elif file.name == "manifest.json":
            manifest = json.loads(data)
            # The commit is that of the checkout, which may go on while this runs.
            out[name] = manifest | {"checkpoints": sorted(manifest["checkpoints"]), "git_commit": None}
        elif file.name in ("state.json", "results.json"):
            found = _timeless(json.loads(data))
            found.get("sha256", {}).pop("adapter_config.json", None)
            out[name] = found
        elif file.name == "adapter_config.json":
            found = json.loads(data)
            out[name] = found | {"target_modules": sorted(found["target_modules"])}
        else:
            out[name] = hashlib.sha256(data).hexdigest()
    return out


def _timeless(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name != "seconds"}


def draw(rng: random.Random, seconds: float, operations: int, kind: str | None = None) -> Fate:
    kind = kind or rng.choice(KINDS)
    if kind == "moment":
        return Fate(kind, rng.uniform(0, seconds))
    return Fate(kind, rng.randint(1, operations), int(2 ** rng.uniform(0, 18)))


def left_behind(folder: Path) -> bool:
    """Whether the killed process left something half done: a file beside its place, or a torn line."""
    metrics = folder / "metrics.jsonl"
    torn = metrics.exists() and not metrics.read_bytes().endswith(b"\n") and metrics.stat().st_size > 0
    half = [f for f in folder.rglob("*") if f.name.endswith((".tmp", ".old"))]
    return torn or bool(half) or (folder.exists() and not (folder / "manifest.json").exists())


def main() -> int:
    parser = argparse.ArgumentParser(description="kill, resume, compare")
    parser.add_argument("--points", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no further point after so long")
    given = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # a pool of threads does not outlive a fork
    import bitsandbytes  # noqa: F401
    import peft  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig  # noqa: F401

    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        config = toy.config(*toy.make(place))
        begun = time.monotonic()
        _, operations = run(config, place / "whole", Fate(), place / "log")
        seconds, wanted = time.monotonic() - begun, snapshot(place / "whole")
        print(f"undisturbed: {seconds:.1f} s, {operations} file operations, {len(wanted)} files", flush=True)
        rng, folder = random.Random(given.seed), place / "run"
        kinds: Counter[str] = Counter()
        twice = half = failed = done = 0
        for point in range(given.points):
            if time.monotonic() - begun > 60 * given.minutes:
                break
            done += 1
            shutil.rmtree(folder, ignore_errors=True)
            kind = KINDS[point % len(KINDS)]
            fates = [draw(rng, seconds, operations, kind)]
            if rng.random() < 0.5:
                fates.append(draw(rng, seconds / 2, operations // 2))
            kills = 0
            for fate in fates:
                killed, _ = run(config, folder, fate, place / "log")
                kills += killed
                half += killed and left_behind(folder)
            run(config, folder, Fate(), place / "log")
            found = snapshot(folder)
            kinds[kind] += kills > 0
            twice += kills == 2
            if found != wanted:
                failed += 1
                other = sorted(n for n in wanted.keys() | found.keys() if wanted.get(n) != found.get(n))
                print(f"point {point} ({[vars(f) for f in fates]}): other files: {', '.join(other)}", flush=True)
    print(
        f"{done - failed} of {done} points ended as the undisturbed run; killed: "
        + ", ".join(f"{kinds[kind]} by {kind}" for kind in KINDS)
        + f", {twice} of them twice; {half} deaths left something half done"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
