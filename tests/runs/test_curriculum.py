"""The curriculum over bins of optimal length: worked numbers, and a default that changes nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from himac_lite.config import Rollout, Train, validate
from himac_lite.errors import ConfigError
from himac_lite.runs.curriculum import curriculum
from himac_lite.tasks.sokoban.task import SokobanTask
from himac_lite.types import Level

LEVELS = [Level(("@",), optimal_moves=n) for n in (20, 3, 11, 8, 25)]


def lengths(share: float, progress: float) -> list[int | None]:
    return [level.optimal_moves for level in curriculum(LEVELS, SokobanTask(), share, progress)]


def test_bins_are_let_in_one_after_another():
    # Bins that are not empty: 0-8, 9-12, 17-25. Over the first half of the budget: one more at 1/6 and at 2/6.
    assert lengths(0.5, 0.0) == [3, 8]
    assert lengths(0.5, 0.16) == [3, 8]
    assert lengths(0.5, 0.17) == [3, 11, 8]
    assert lengths(0.5, 0.33) == [3, 11, 8]
    assert lengths(0.5, 0.34) == [20, 3, 11, 8, 25]
    assert lengths(0.5, 1.0) == [20, 3, 11, 8, 25]


def test_no_curriculum_is_the_default_and_leaves_the_list_alone():
    assert Train().rollout.curriculum == 0
    assert curriculum(LEVELS, SokobanTask(), 0.0, 0.0) is LEVELS


def test_its_range_is_checked():
    with pytest.raises(ConfigError, match=r"rollout\.curriculum must lie between 0 and 1"):
        validate(replace(Train(), rollout=Rollout(curriculum=2.0)))
