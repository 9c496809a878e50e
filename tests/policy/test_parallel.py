"""Threads of a process, and memory that is freed and asked for again: the kernel's count of page faults."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

GROWING = """
import resource, torch
from himac_lite.policy.parallel import keep_freed_memory
print(keep_freed_memory() if {ask} else False)
cache = torch.zeros(1, 16, 8, 1024)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(60):
    cache = torch.cat([cache, cache[:, :, -1:]], 2)  # as a KV cache grows, a token a step
    large = torch.empty(9 << 20)  # 36 MB: above any threshold of glibc's own, which is 32 MB at most
    large[::1024] = 1
    del large
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(ask: bool, **variables: str) -> tuple[str, int]:
    own = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")} | variables
    done = subprocess.run(
        [sys.executable, "-c", GROWING.format(ask=ask)], env=own, capture_output=True, text=True, check=True
    )
    told, count = done.stdout.split()
    return told, int(count)


def test_tests_and_the_processes_they_start_compute_on_one_thread():
    """tests/conftest.py: sums over several threads differ in their last bits."""
    assert torch.get_num_threads() == 1
    assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == "1"


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_memory_is_used_again():
    told, kept = faults(ask=True)
    if told == "False":
        pytest.skip("another C library")
    _, mapped = faults(ask=False)
    assert kept < mapped / 10, (kept, mapped)  # 60 × 9,216 pages are zeroed without it


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_the_variables_of_glibc_come_first():
    assert faults(ask=True, MALLOC_TOP_PAD_="131072")[0] == "False"
