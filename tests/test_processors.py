"""Cores that a process may use: affinity, and a container's share of time."""

from __future__ import annotations

import os

import pytest

from himac_lite import processors
from himac_lite.cli import doctor
from himac_lite.policy import parallel
from himac_lite.processors import share_of_time
from himac_lite.tasks.sokoban import batch


@pytest.mark.parametrize(
    ("text", "share"),
    [("100000 100000\n", 1.0), ("150000 100000\n", 1.5), ("max 100000\n", None), ("rubbish\n", None), ("", None)],
)
def test_the_share_of_version_2(tmp_path, text, share):
    (tmp_path / "cpu.max").write_text(text)
    assert share_of_time(tmp_path) == share


@pytest.mark.parametrize(
    ("quota", "period", "share"), [("50000\n", "100000\n", 0.5), ("-1\n", "100000\n", None), ("1\n", "0\n", None)]
)
def test_the_share_of_version_1(tmp_path, quota, period, share):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text(period)
    assert share_of_time(tmp_path) == share


def test_without_control_groups_there_is_no_limit(tmp_path):
    assert share_of_time(tmp_path / "nothing") is None


@pytest.mark.parametrize(("share", "cores"), [(None, 8), (0.5, 1), (1.0, 1), (1.5, 2), (64.0, 8)])
def test_a_container_with_a_share_of_eight_cores(monkeypatch, share, cores):
    """Half a core is one worker, one and a half are two; a share beyond the cores that are there adds none."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(processors, "_share", lambda: share)
    assert processors.cores() == cores


def test_all_that_divide_work_ask_here():
    assert parallel.cores is batch._cores is doctor.cores is processors.cores
