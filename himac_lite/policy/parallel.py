"""One worker thread per core, each with its own micro-batch or batch of rows.

Matrix products of a small model are too short for several OpenMP threads. On a CPU torch therefore computes on one
thread per worker. Results are combined in the order of the parts, so their bits do not depend on the number of cores.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

from himac_lite.processors import cores

Item = TypeVar("Item")
Result = TypeVar("Result")


def one_thread_a_worker() -> None:
    """Make torch compute on the calling thread only, and reuse freed memory."""
    torch.set_num_threads(1)
    keep_freed_memory()


_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # malloc.h


@cache
def keep_freed_memory() -> bool:
    """Make glibc reuse freed memory instead of returning it to the system. Returns whether it was set.

    A growing cache allocates a large block at every step. The kernel would fill each one with zeros, which costs a
    third of the CPU time or more with long texts (docs/experiments.md). glibc's own variables (``MALLOC_…``) win.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    wanted = {_TRIM_THRESHOLD: 1 << 30, _TOP_PAD: 1 << 26, _MMAP_THRESHOLD: 1 << 30}
    done = [bool(mallopt(name, value)) for name, value in wanted.items()]
    return all(done)


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="himac")


def map_in_order(work: Callable[[Item], Result], items: Iterable[Item], workers: int | None = None) -> Iterator[Result]:
    """Results of `work` in the order of the items. workers: items in parallel, by default one per core."""
    listed, workers = list(items), workers or cores()
    if workers == 1 or len(listed) == 1:
        return map(work, listed)
    return _pool(workers).map(work, listed)


def gradient_of(
    loss_of: Callable[[Item], torch.Tensor], part: Item, parameters: Sequence[torch.Tensor]
) -> tuple[float, tuple[torch.Tensor, ...]]:
    """The loss of one part, and its gradient with respect to each parameter."""
    with torch.enable_grad():
        loss = loss_of(part)
        return loss.item(), torch.autograd.grad(loss, parameters)


def summed_gradients(
    loss_of: Callable[[Item], torch.Tensor],
    parts: Iterable[Item],
    parameters: Sequence[torch.Tensor],
    workers: int | None = None,
) -> tuple[float, list[torch.Tensor]]:
    """Σ loss and Σ gradient over the parts, added in their order.

    loss_of: part → scalar loss; threads call it. parameters: leaves with gradient.
    """
    total, summed = 0.0, [torch.zeros_like(p) for p in parameters]
    for loss, gradients in map_in_order(lambda part: gradient_of(loss_of, part, parameters), parts, workers):
        total += loss
        for s, g in zip(summed, gradients, strict=True):
            s += g
    return total, summed
