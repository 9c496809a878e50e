"""How many cores this process may use: those it may run on, and no more than its container's share of time.

A container with one CPU on a node of sixty-four (Binder, Kubernetes, `docker run --cpus`) sees sixty-four. One worker a
core would then take the memory of sixty-four workers for the speed of one.
"""

from __future__ import annotations

import math
import os
from functools import cache
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
"""Where Linux shows a container the limits of its own group."""


def cores() -> int:
    """Cores that this process may use: at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = _share()
    return max(1, allowed if share is None else min(allowed, math.ceil(share)))


@cache
def _share() -> float | None:
    return share_of_time(CGROUPS)  # once: steps of small batches ask for it thousands of times a second


def share_of_time(cgroups: Path) -> float | None:
    """Cores' worth of time that control groups grant, by version 2 (cpu.max) or 1 (cpu.cfs_*_us); None: no limit.

    What cannot be read or is no pair of numbers counts as no limit.
    """
    try:
        quota, period = (cgroups / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota, period = ((cgroups / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        except OSError:
            return None
    try:
        return int(quota) / int(period) if int(quota) > 0 else None
    except (ValueError, ZeroDivisionError):  # "max", "-1"
        return None
