"""Benchmarks: each is a module with ``bench(*, runs, quick) -> Report``; a figure is the median of several runs.

A speed alone says more about the machine than about the code, so every report measures named others beside ours in the
same run and says the ratio.
"""

from __future__ import annotations

import contextlib
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from himac_lite.errors import ConfigError
from himac_lite.processors import cores

BENCHMARKS = ("env", "levels", "rollout", "train", "worlds")
"""Names of `himac-lite bench`, each a module of this package."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure: `value` is the median of `values`, one a run; `note` says what else a reader must know."""

    name: str
    unit: str
    value: float
    values: tuple[float, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of a benchmark, and the machine they were measured on."""

    name: str
    figures: tuple[Figure, ...]
    machine: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        """A table for people: name, median, smallest and largest, unit, note."""
        width = max(len(f.name) for f in self.figures)
        lines = [f"{self.name}, medians; {self.machine}"]
        for f in self.figures:
            spread = f"({_round(min(f.values))} – {_round(max(f.values))})" if len(f.values) > 1 else ""
            lines.append(f"  {f.name:{width}}  {_round(f.value):>12} {f.unit:16} {spread:24} {f.note}".rstrip())
        return "\n".join(lines)


def measure(name: str, unit: str, run: Callable[[], float], runs: int, note: str = "") -> Figure:
    """Call `run` once to warm up and `runs` times more; it returns how much work it did, the figure is work a second.

    Raises `ConfigError` if `runs` is not positive.
    """
    if runs < 1:
        raise ConfigError(f"--runs must be at least 1, not {runs}")
    run()
    rates = []
    for _ in range(runs):
        begun = time.perf_counter()
        work = run()
        rates.append(work / (time.perf_counter() - begun))
    return Figure(name, unit, statistics.median(rates), tuple(rates), note)


def ratio(name: str, ours: Figure, other: Figure) -> Figure:
    """How many times faster ours is; its spread pairs the runs in order."""
    pairs = tuple(a / b for a, b in zip(ours.values, other.values, strict=False))
    return Figure(name, "×", ours.value / other.value, pairs)


def peak_memory() -> Figure:
    """The most memory that this process has held, in MB."""
    try:
        import resource
    except ImportError:  # Windows
        return Figure("peak memory", "MB", float("nan"), note="not known on this system")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return Figure("peak memory", "MB", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)


def start_memory() -> None:
    """Forget the most memory that was held so far, where the system can (Linux); see `memory_since`."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", "ascii")


def memory_since(name: str) -> Figure:
    """The most memory held since `start_memory`, in MB; NaN where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text("ascii").splitlines()
        held = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return Figure(name, "MB", float("nan"), note="not known on this system")
    return Figure(name, "MB", held / 2**10)


def machine() -> str:
    """System, architecture and usable cores: enough to read a figure by."""
    return f"{platform.system()} {platform.machine()}, {cores()} cores, Python {platform.python_version()}"


def _round(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
