"""Every core on work of its own, instead of all of them on one small product.

The products of a small model are over before a second OpenMP thread has woken up, and on shared cores the threads wait
for each other. So on a CPU torch computes on one thread, and independent parts of the work (micro-batches, batches of
rows) go to one worker thread a core. Each part is computed by one thread and results are put together in the order of
the parts: the same bits for any number of cores.
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
    """Make torch compute on the calling thread alone, and freed memory stay where it is for the next tensor."""
    torch.set_num_threads(1)
    keep_freed_memory()


_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # malloc.h


@cache
def keep_freed_memory() -> bool:
    """Ask glibc to reuse freed memory instead of handing it back; whether it was asked. Elsewhere nothing happens.

    A cache that grows is a new, large piece of memory at every step. glibc maps and unmaps each, the kernel fills every
    page with zeros, and the other core's worker waits meanwhile: with long texts a third of all CPU time and more
    (docs/experiments.md). A choice made by glibc's own variables (``MALLOC_TRIM_THRESHOLD_`` and so on) stands.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    wanted = {_TRIM_THRESHOLD: 1 << 30, _TOP_PAD: 1 << 26, _MMAP_THRESHOLD: 1 << 30}
    told = [bool(mallopt(name, value)) for name, value in wanted.items()]
    return all(told)


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="himac")


def map_in_order(work: Callable[[Item], Result], items: Iterable[Item], workers: int | None = None) -> Iterator[Result]:
    """`work` of every item, in their order, so many at a time (default: one a core)."""
    listed, workers = list(items), workers or cores()
    if workers == 1 or len(listed) == 1:
        return map(work, listed)
    return _pool(workers).map(work, listed)


def gradient_of(
    loss_of: Callable[[Item], torch.Tensor], part: Item, parameters: Sequence[torch.Tensor]
) -> tuple[float, tuple[torch.Tensor, ...]]:
    """Loss and ∂loss/∂parameter of one part."""
    with torch.enable_grad():
        loss = loss_of(part)
        return loss.item(), torch.autograd.grad(loss, parameters)


def summed_gradients(
    loss_of: Callable[[Item], torch.Tensor],
    parts: Iterable[Item],
    parameters: Sequence[torch.Tensor],
    workers: int | None = None,
) -> tuple[float, list[torch.Tensor]]:
    """Σ loss and Σ ∂loss/∂parameter over the parts, added in their order.

    loss_of: one part → scalar loss; it must not write what another part reads. parameters: leaves with gradient.
    """

    total, summed = 0.0, [torch.zeros_like(p) for p in parameters]
    for loss, gradients in map_in_order(lambda part: gradient_of(loss_of, part, parameters), parts, workers):
        total += loss
        for s, g in zip(summed, gradients, strict=True):
            s += g
    return total, summed
