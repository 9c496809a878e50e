"""Benchmarks: a benchmark is a module with ``bench(*, runs, quick) -> Report``; a figure is the median of several runs.

An absolute speed depends on the machine, so every report also measures a named alternative in the same run and reports
the ratio.
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
"""The benchmarks of `himac-lite bench`, each a module of this package."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure: `value` is the median of `values`, one per run; `note` explains the conditions."""

    name: str
    unit: str
    value: float
    values: tuple[float, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of a benchmark, and the machine that measured them."""

    name: str
    figures: tuple[Figure, ...]
    machine: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        """A table as text: name, median, unit, minimum and maximum, note."""
        width = max(len(f.name) for f in self.figures)
        lines = [f"{self.name}, medians; {self.machine}"]
        for f in self.figures:
            spread = f"({_round(min(f.values))} – {_round(max(f.values))})" if len(f.values) > 1 else ""
            lines.append(f"  {f.name:{width}}  {_round(f.value):>12} {f.unit:16} {spread:24} {f.note}".rstrip())
        return "\n".join(lines)


def measure(name: str, unit: str, run: Callable[[], float], runs: int, note: str = "") -> Figure:
    """The rate of `run`, which returns its amount of work: one warm-up, then `runs` measured calls.

    Returns a figure of work per second. Raises `ConfigError` if `runs` is not positive.
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
    """How many times faster `ours` is than `other`; the runs are paired in order."""
    pairs = tuple(a / b for a, b in zip(ours.values, other.values, strict=False))
    return Figure(name, "×", ours.value / other.value, pairs)


def peak_memory() -> Figure:
    """The peak memory of this process, in MB."""
    try:
        import resource
    except ImportError:  # Windows
        return Figure("peak memory", "MB", float("nan"), note="not known on this system")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return Figure("peak memory", "MB", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)


def start_memory() -> None:
    """Reset the peak memory of this process, on Linux; see `memory_since`."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", "ascii")


def memory_since(name: str) -> Figure:
    """The peak memory since `start_memory`, in MB; NaN if the system does not report it."""
    try:
        lines = Path("/proc/self/status").read_text("ascii").splitlines()
        held = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return Figure(name, "MB", float("nan"), note="not known on this system")
    return Figure(name, "MB", held / 2**10)


def machine() -> str:
    """System, architecture, usable cores and Python version."""
    return f"{platform.system()} {platform.machine()}, {cores()} cores, Python {platform.python_version()}"


def _round(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
