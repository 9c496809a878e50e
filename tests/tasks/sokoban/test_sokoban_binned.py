"""Generation by bins of optimal length: exact counts, exact lengths, any size, the same in every process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from himac_lite.errors import LevelError
from himac_lite.tasks.sokoban.binned import generate_bins
from himac_lite.tasks.sokoban.levels import canonical_hash, format_levels, parse_levels
from himac_lite.tasks.sokoban.solver import solve


def in_bins(levels, bins, name):
    """How many of the levels, which come in the order of the bins, lie in each."""
    counted, rest = {}, list(levels)
    for (low, high), n in bins.items():
        here, rest = rest[:n], rest[n:]
        counted[low, high] = sum(low <= getattr(level, name) <= high for level in here)
    assert not rest
    return counted


@pytest.mark.parametrize(
    ("size", "boxes", "bins"),
    [(6, 1, {(4, 6): 5, (7, 9): 5}), (7, 2, {(6, 8): 10, (20, 25): 4}), ((5, 9), 2, {(10, 12): 3, (3, 3): 2})],
)
def test_small_layouts_fill_the_bins_exactly(size, boxes, bins):
    made = generate_bins(3, bins, size, boxes)
    assert in_bins(made, bins, "optimal_moves") == bins
    assert len({canonical_hash(level) for level in made}) == len(made)
    assert parse_levels(format_levels(made)) == made
    for level in made:
        assert (len(level.rows), len(level.rows[0])) == ((size, size) if isinstance(size, int) else size)
        assert level.n_boxes == boxes
        assert (solve(level).moves, solve(level, "pushes").pushes) == (level.optimal_moves, level.optimal_pushes)


@pytest.mark.parametrize(
    ("size", "boxes", "optimal", "bins"),
    [
        (8, 3, "moves", {(20, 29): 3, (5, 10): 2}),
        (10, 4, "pushes", {(6, 10): 3, (11, 15): 2}),
        ((9, 13), 5, "pushes", {(10, 14): 3}),
    ],
)
def test_large_layouts_fill_the_bins_exactly(size, boxes, optimal, bins):
    made = generate_bins(np.random.SeedSequence(5), bins, size, boxes, optimal)
    assert in_bins(made, bins, f"optimal_{optimal}") == bins
    for level in made:
        assert level.n_boxes == boxes
        assert getattr(solve(level, optimal), optimal) == getattr(level, f"optimal_{optimal}")


def test_the_same_seed_in_every_process_and_in_every_form():
    bins = {(6, 8): 3, (15, 20): 2}
    here = format_levels(generate_bins(9, bins, 8, 3, max_density=0.4))
    assert format_levels(generate_bins(np.random.default_rng(9), bins, 8, 3, max_density=0.4)) == here
    assert format_levels(generate_bins(np.random.SeedSequence(9), bins, 8, 3, max_density=0.4)) == here
    assert format_levels(generate_bins(10, bins, 8, 3, max_density=0.4)) != here
    code = (
        "from himac_lite.tasks.sokoban.binned import *; from himac_lite.tasks.sokoban.levels import *;"
        "print(format_levels(generate_bins(9, {(6, 8): 3, (15, 20): 2}, 8, 3, max_density=0.4)), end='')"
    )
    environment = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == here


def test_no_global_random_state_is_touched():
    np.random.seed(4)  # noqa: NPY002
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    generate_bins(1, {(4, 9): 2}, 8, 3)
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


def test_excluded_levels_do_not_come_back():
    first = generate_bins(4, {(3, 6): 6}, 5, 1)
    excluded = {canonical_hash(level) for level in first}
    assert not excluded & {canonical_hash(level) for level in generate_bins(4, {(3, 6): 6}, 5, 1, exclude=excluded)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bins": {(1, 4): 1}, "size": 4, "boxes": 2}, "no room for 2 boxes"),
        ({"bins": {(1, 4): 1}, "size": (2, 9), "boxes": 1}, "no room for 1 boxes"),
        ({"bins": {}}, "bins are"),
        ({"bins": {(5, 4): 1}}, "bins are"),
        ({"bins": {(0, 4): 1}}, "bins are"),
        ({"bins": {(90, 99): 1}, "size": 5, "boxes": 1, "tries": 5}, "after 5 layouts .*0 of 1"),
    ],
)
def test_impossible_requests(arguments, message):
    with pytest.raises(LevelError, match=message):
        generate_bins(0, **arguments)
