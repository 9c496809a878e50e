"""`himac-lite doctor`: what is installed, what will be used, and whether the default run will work on this machine.

It runs a small version of the default run: it reads the frozen levels, loads the shipped model in 4 bit, plays one
level and computes a gradient. Exit code 0: `himac-lite train` will work. Exit code 2: it will not, and one line says
why.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from himac_lite import __version__
from himac_lite.cli.console import say
from himac_lite.config import TRAIN_PRESETS
from himac_lite.errors import HimacError, RunError
from himac_lite.processors import cores

HELP = "report what is installed, what will be used, and whether the default run will work"
PYTHON = ((3, 10), (3, 13))
MEMORY_GB, DISK_GB = 1.5, 0.3
"""Requirements of the default run; measured: 1.43 GB resident, 60 MB in the run folder."""
SMALL_GB, LARGE_GB = 6.0, 12.0
"""GPU memory for presets with a hub model of about half a billion parameters, and for larger ones; not tested."""
NEEDED = ("numpy", "gymnasium", "torch", "transformers", "peft", "bitsandbytes", "accelerate", "safetensors")
OPTIONAL = ("numba", "ipywidgets", "anywidget", "plotly", "playwright")


@dataclass(frozen=True)
class Check:
    """One check. ok: None if the value is only reported and not required."""

    name: str
    value: Any
    ok: bool | None = None
    advice: str = ""


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("--json", action="store_true", help="print one JSON object")
    p.set_defaults(run=run, prints=True)


def run(given: argparse.Namespace) -> dict[str, Any]:
    checks = inspect()
    problems = [f"{c.name}: {c.advice}" for c in checks if c.ok is False]
    found = {c.name: c.value for c in checks} | {"ok": not problems, "problems": problems}
    if given.json:
        say(json.dumps(found))
    else:
        for c in checks:
            mark = {True: "ok", False: "NO", None: "  "}[c.ok]
            say(f"{mark} {c.name:15} {_shown(c.value)}" + (f"  ({c.advice})" if c.ok is False else ""))
    if problems:
        raise RunError(f"the default run will not work here: {'; '.join(problems)}")
    if not given.json:
        say("himac-lite train will work here.")
    return found


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(v)}" for name, v in value.items())
    return {None: "not installed", True: "yes", False: "no"}.get(value, str(value)) if not value else str(value)


def inspect() -> list[Check]:
    """All checks, the expensive ones last."""
    checks = [*_versions(), _levels()]
    installed = not any(c.ok is False for c in checks)
    if installed:
        checks.append(_device())
    checks += [_memory(), _disk()]
    if installed:
        checks += [_four_bit(), _one_step()]
    return [*checks, _presets(checks)]


# Installed


def _versions() -> list[Check]:
    from importlib.metadata import PackageNotFoundError, version

    bounds, python, (low, high) = _bounds(), sys.version_info[:2], PYTHON

    def package(name: str) -> Check:
        required = name in NEEDED
        try:
            found = version(name)
        except PackageNotFoundError:
            advice = "not installed: pip install 'himac-lite[train,qlora]'"
            return Check(name, None, False if required else None, advice)
        fits = name not in bounds or bounds[name].contains(found, prereleases=True)
        advice = f"{found} is installed, {bounds.get(name)} is needed: pip install -U {name}"
        return Check(name, found, fits if required else None, advice)

    return [
        Check("himac-lite", __version__),
        Check("python", sys.version.split()[0], low <= python <= high, "use Python 3.10 to 3.13"),
        Check("cpus", cores()),
        *map(package, (*NEEDED, *OPTIONAL)),
    ]


def _bounds() -> dict[str, Any]:
    """Package → required versions, from this package's metadata; empty if the metadata cannot be read."""
    from importlib.metadata import PackageNotFoundError, requires

    try:
        from packaging.requirements import Requirement

        listed = [Requirement(text) for text in requires("himac-lite") or ()]
    except (ModuleNotFoundError, PackageNotFoundError):
        return {}
    return {r.name: r.specifier for r in listed if r.specifier}


def _levels() -> Check:
    """Whether the frozen levels agree with their manifest."""
    from himac_lite import storage

    folder = storage.data_dir() / "levels"
    try:
        manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
        hashes = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in manifest}
        changed = [name for name, entry in manifest.items() if hashes[name] != entry["sha256"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return Check("levels", None, False, f"{folder} cannot be read ({error}): install himac-lite again")
    if changed:
        return Check("levels", "changed", False, f"{folder / changed[0]} is not the frozen file: install again")
    return Check("levels", f"{len(manifest)} frozen files", True)


# The machine


def _device() -> Check:
    import torch

    from himac_lite.policy.loading import compute_dtype

    cuda = torch.cuda.is_available()
    dtype = str(compute_dtype(torch.cuda.get_device_capability() if cuda else None)).removeprefix("torch.")
    if not cuda:
        return Check("device", {"cuda": False, "name": "cpu", "dtype": dtype})
    card = torch.cuda.get_device_properties(0)
    capability, memory = f"{card.major}.{card.minor}", round(card.total_memory / 1e9, 1)
    return Check("device", {"cuda": True, "name": card.name, "sm": capability, "GB": memory, "dtype": dtype})


def _memory() -> Check:
    free = available_gb()
    if free is None:
        return Check("memory", "unknown")
    advice = f"{free:.1f} GB are free, {MEMORY_GB} GB are needed: close other programs"
    return Check("memory", f"{free:.1f} GB free", free >= MEMORY_GB, advice)


def available_gb(proc: Path = Path("/proc/meminfo"), group: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Free memory for this process in GB: the minimum of the machine's and its container's; None if unknown."""
    try:
        rows = dict(line.split(":", 1) for line in proc.read_text().splitlines())
        free = 1024 * int(rows["MemAvailable"].split()[0])
    except (OSError, ValueError, KeyError):
        return None
    try:
        limit = (group / "memory.max").read_text().strip()
        if limit != "max":
            used = int((group / "memory.current").read_text())
            stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            free = min(free, int(limit) - used + int(stat.get("inactive_file", 0)))  # the cache is freed on demand
    except (OSError, ValueError):
        pass
    return free / 1e9


def _disk() -> Check:
    """Free disk space in the default place of runs: the folder `runs`, or the current folder without it."""
    place = Path("runs") if Path("runs").is_dir() else Path()
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"x" * 4096)
            file.flush()
        free = shutil.disk_usage(place).free / 1e9
    except OSError as error:
        return Check("disk", "not writable", False, f"cannot write to {place.resolve()}: {error.strerror or error}")
    advice = f"{free:.1f} GB are free in {place.resolve()}, {DISK_GB} GB are needed"
    return Check("disk", f"{free:.1f} GB free", free >= DISK_GB, advice)


# A small version of the default run


def _four_bit() -> Check:
    """Quantise known values to NF4 and back: no error may exceed half the widest gap of NF4."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        from bitsandbytes.functional import dequantize_4bit, quantize_4bit

        weight = torch.linspace(-1, 1, 4096, device=device).reshape(64, 64)
        packed, state = quantize_4bit(weight, blocksize=64, quant_type="nf4")
        moved = float((dequantize_4bit(packed, state) - weight).abs().max())
    except Exception as error:  # a broken build fails in many ways
        return Check("4 bit", None, False, f"bitsandbytes cannot quantise on {device}: {_line(error)}")
    advice = f"NF4 moved a weight by {moved:.3f} on {device}: bitsandbytes is broken, install it again"
    return Check("4 bit", f"NF4 on {device}, largest error {moved:.3f}", moved < 0.16, advice)


def _one_step() -> Check:
    """Whether the shipped model, in 4 bit with LoRA, plans on one level and has a finite gradient."""
    import torch

    from himac_lite.config import Train
    from himac_lite.policy.loading import load_policy
    from himac_lite.policy.parallel import one_thread_a_worker
    from himac_lite.rollout.play import Arena
    from himac_lite.runs import training
    from himac_lite.tasks.sokoban.levels import load_levels
    from himac_lite.tasks.sokoban.task import SokobanTask

    begun = time.monotonic()
    try:
        one_thread_a_worker()
        policy = load_policy(training.resolve_model(Train().model.path))
        [[(plan, blueprint)]] = Arena(policy, SokobanTask()).blueprints(load_levels("core/test")[:1], 1)
        scores = policy.log_probs([plan])
        policy.pull_back(torch.autograd.grad(scores.logp[scores.mask].sum(), policy.leaves()))
        size = max(float(p.grad.abs().max()) for p in policy.trainable() if p.grad is not None)
    except HimacError as error:
        return Check("model", None, False, str(error))
    except Exception as error:  # a broken installation can raise anything
        return Check("model", None, False, f"a training step fails: {_line(error)}")
    good = blueprint.text != "" and 0 < size < float("inf")
    value = f"plans, and learns in 4 bit; loaded and tried in {time.monotonic() - begun:.1f} s"
    return Check("model", value, good, "its gradient is not finite: install torch again")


def _line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def _presets(checks: list[Check]) -> Check:
    """Which presets can run here: those with a shipped model, and those with a hub model, which need a GPU."""
    failed = any(c.ok is False for c in checks)
    device: dict[str, Any] = next((c.value for c in checks if c.name == "device"), {})
    found = {}
    for name, preset in TRAIN_PRESETS.items():
        answer = "yes"
        if "/" in preset.model.path:
            needed = SMALL_GB if any(size in preset.model.path for size in ("0.5B", "0.6B")) else LARGE_GB
            answer = f"yes, with access to a hub, in {device.get('dtype')}"
            if not device.get("cuda"):
                answer = "no: needs a CUDA device"
            elif device["GB"] < needed:
                answer = f"no: needs {needed:.0f} GB; himac-lite memory has the estimate"
        found[name] = "no" if failed else answer
    return Check("presets", found)
