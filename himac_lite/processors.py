"""The number of cores that this process may use.

A container limited to one CPU on a node of 64 (Binder, Kubernetes, `docker run --cpus`) sees all 64. One worker per
visible core would cost the memory of 64 workers at the speed of one.
"""

from __future__ import annotations

import math
import os
from functools import cache
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
"""The limits of this container on Linux."""


def cores() -> int:
    """Usable cores, at least 1: CPU affinity, capped by the CPU quota of the control group."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = _share()
    return max(1, allowed if share is None else min(allowed, math.ceil(share)))


@cache
def _share() -> float | None:
    return share_of_time(CGROUPS)  # cached: decoding small batches asks thousands of times per second


def share_of_time(cgroups: Path) -> float | None:
    """The CPU quota in cores, from control groups version 2 (cpu.max) or 1 (cpu.cfs_*_us).

    None if there is no limit or no readable one.
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
