"""When numba is worth its wait: plain Python begins, and compiled code takes over after some work of this process.

Importing numba takes half a second, and compiling a search takes seconds once in an installation. Both ways give the
same results, so only the time depends on this choice.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from himac_lite.errors import TaskError

STATES = 60_000
"""States that a process may search in plain Python before numba is tried: about two seconds."""
MOST = 1_000_000
"""States that one search may keep in plain Python if there is no numba: about a minute and half a gigabyte."""
_spent = 0


def spend(states: float) -> None:
    """Count work that was done in plain Python."""
    global _spent
    _spent += int(states)


def allowances() -> Iterator[int]:
    """Numbers of states to try in plain Python one after another; after the last one numba is needed."""
    if _spent < STATES:
        yield STATES - _spent
    if not _numba_works():
        yield MOST


@cache
def _numba_works() -> bool:
    try:
        from himac_lite.tasks.sokoban import jit  # noqa: F401
    except TaskError:
        return False
    return True
