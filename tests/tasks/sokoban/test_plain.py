"""The searches in plain Python against those of numba, and the package without numba or without its cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import needs_training
from hypothesis import given, settings
from hypothesis import strategies as st
from sokoban_boards import boards, puzzles

from himac_lite.tasks.sokoban import astar, patience, plain, solver
from himac_lite.tasks.sokoban.backward import backward
from himac_lite.tasks.sokoban.binned import random_layout
from himac_lite.tasks.sokoban.bounds import push_distances
from himac_lite.tasks.sokoban.distances import _backward
from himac_lite.tasks.sokoban.geometry import Geometry
from himac_lite.tasks.sokoban.levels import load_levels
from himac_lite.tasks.sokoban.rules import Board, board_from_level
from himac_lite.tasks.sokoban.searches import Limits, Outcome, Start
from himac_lite.types import Level

ROOT = Path(__file__).resolve().parents[3]
WIDE = Limits(20_000_000, 800_000_000)


def both(board: Board, limits: Limits = WIDE) -> list[Outcome]:
    """How the searches for fewest moves and for fewest pushes end; asserts that both ways find exactly the same."""
    ends = []
    for by_moves in (True, False):
        start = Start.of(board, by_moves)
        found = plain.search(start, limits)
        assert found == astar.search(start, limits)  # pushes in order, cost, number of states, reason
        ends.append(found.outcome)
    return ends


def random_position(rng: np.random.Generator, size: tuple[int, int], boxes: int) -> Board:
    """Boxes and player anywhere on a random layout: about half of these are unsolvable."""
    layout = random_layout(rng, size, boxes, 0.3)
    floor = Geometry.of(layout).cells
    cells = [floor[i] for i in rng.permutation(len(floor))[: boxes + 1]]
    return replace(layout, boxes=frozenset(cells[1:]), player=cells[0])


@pytest.mark.parametrize(
    ("split", "n"), [("core/train", 200), ("core/validation", 200), ("warmup/train", 100), ("hard/validation", 40)]
)
def test_frozen_levels_have_the_same_solutions(split, n):
    for level in load_levels(split)[:n]:
        assert both(board_from_level(level)) == [Outcome.SOLVED] * 2


@given(puzzles(high=8))
@settings(max_examples=150, deadline=None)
def test_puzzles_have_the_same_solutions(board):
    both(board)


@given(boards(tiles="     ##.$*"))
@settings(max_examples=150, deadline=None)
def test_any_board_with_enough_targets_has_the_same_solutions(board):
    if 0 < len(board.boxes) <= min(6, len(board.targets)):
        both(board, Limits(3_000, 800_000_000))


@pytest.mark.parametrize("boxes", [1, 2, 3])
def test_random_positions_have_the_same_solutions(boxes):
    rng = np.random.default_rng(boxes)
    ends = [both(random_position(rng, (int(h), int(w)), boxes))[0] for h, w in rng.integers(6, 11, (60, 2))]
    assert 5 <= ends.count(Outcome.SOLVED) <= 50
    assert set(ends) == {Outcome.SOLVED, Outcome.UNSOLVABLE}


def hall() -> Board:
    """Two rows of six boxes in the middle of a hall of 324 cells: no search ends soon."""
    rows = ["#" * 20, *["#" + " " * 18 + "#"] * 18, "#" * 20]
    rows[1], rows[3], rows[5] = "#@" + " " * 17 + "#", "#   $ $ $ $ $ $    #", "#  ......          #"
    rows[9], rows[16] = rows[3], "#      ......      #"
    return board_from_level(Level(tuple(rows)))


@pytest.mark.parametrize("limits", [Limits(1, 10**9), Limits(8_000, 10**9), Limits(10**6, 600_000)])
def test_a_limit_ends_both_searches_at_the_same_state(limits):
    assert both(hall(), limits)[0] is Outcome.STATES


def test_the_plain_search_keeps_to_its_time_and_its_patience():
    start = Start.of(hall(), True)
    assert plain.search(start, Limits(10**6, 10**9, 0.05)).outcome is Outcome.SECONDS
    assert plain.search(start, WIDE, 500) is None


@given(st.integers(0, 10**6), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_tables_and_push_distances_are_the_same(seed, boxes):
    rng = np.random.default_rng(seed)
    geometry = Geometry.of(random_layout(rng, (int(rng.integers(5, 8)), int(rng.integers(6, 8))), boxes, 0.3))
    nb, targets = geometry.neighbours, np.array(geometry.targets, np.int64)
    for ours, theirs in zip(_backward(geometry), backward(nb, targets, geometry.bits(boxes)), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(plain.push_distances(geometry), push_distances(nb.astype(np.int64), targets))


# When numba begins


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the searches that run, in a process that has searched nothing yet."""
    names: list[str] = []

    def noted(name: str, search: Callable[..., object]) -> Callable[..., object]:
        return lambda *given: (names.append(name), search(*given))[1]

    monkeypatch.setattr(patience, "_spent", 0)
    monkeypatch.setattr(plain, "search", noted("plain", plain.search))
    monkeypatch.setattr(astar, "search", noted("numba", astar.search))
    return names


def test_small_searches_are_plain_until_numba_pays(searched, monkeypatch):
    level = load_levels("core/validation")[0]
    states = solver.search(level).states
    monkeypatch.setattr(patience, "STATES", 3 * states)
    while searched[-1] == "plain":
        solver.solve(level)
    assert searched == ["plain"] * 3 + ["numba"]


def test_numba_takes_over_a_large_search(searched, monkeypatch):
    monkeypatch.setattr(patience, "STATES", 500)
    board = hall()
    found = solver._found(board, "moves", Limits(5_000, 10**9))
    assert searched == ["plain", "numba"]
    assert found == astar.search(Start.of(board, True), Limits(5_000, 10**9))


# Without numba, and without a place for its cache


def fresh(code: str, **environment: str) -> tuple[int, str, str]:
    """Exit code and output of a new process."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


BLOCKED = "import sys; sys.modules['numba'] = None\nfrom himac_lite.cli import main\n"


def command(*words: str) -> tuple[int, str, str]:
    """`himac-lite` where numba cannot be imported."""
    return fresh(f"{BLOCKED}sys.exit(main({list(words)!r}))")


def test_without_numba_the_solver_gives_the_same_lurd():
    code, out, error = command("levels", "solve", "core/test", "--json")
    assert code == 0, error
    entries = json.loads(out)["levels"]
    for level, entry in list(zip(load_levels("core/test"), entries, strict=True))[:100]:
        board = board_from_level(level)
        found = astar.search(Start.of(board, True), WIDE)
        assert entry["solution"] == solver._walked(board, found.pushes)


def test_without_numba_levels_are_generated_alike(tmp_path):
    with_numba, without = tmp_path / "with.xsb", tmp_path / "without.xsb"
    code, _, error = command("levels", "generate", str(without), "--n", "3")
    assert code == 0, error
    run = "from himac_lite.tasks.sokoban import patience; from himac_lite.cli import main; patience._spent = 10**9; "
    assert fresh(f"{run}main(['levels', 'generate', {str(with_numba)!r}, '--n', '3'])")[0] == 0
    assert without.read_bytes() == with_numba.read_bytes()


def test_without_numba_the_environment_steps():
    play = "import gymnasium, himac_lite; env = gymnasium.make('himac_lite/Sokoban-v0', levels='core/test')\n"
    code, out, error = fresh(f"{BLOCKED}{play}env.reset(seed=0); print(env.step(1)[1])")
    assert (code, out.strip()) == (0, "0.0"), error


@needs_training
def test_without_numba_the_shipped_model_trains(tmp_path):
    settings = ("rollout.levels=2", "rollout.group=2", "test_limit=4", "validate_every=0")
    code, out, error = command(
        "train", "--levels", "core", "--iterations", "2", "--out", str(tmp_path / "run"), "--json",
        *(word for setting in settings for word in ("--set", setting)),
    )  # fmt: skip
    assert code == 0, error
    assert json.loads(out)["trained"]["n"] == 4
    assert len((tmp_path / "run/metrics.jsonl").read_text("utf-8").splitlines()) == 2


@needs_training
def test_without_numba_pretraining_is_refused_before_its_work(tmp_path):
    code, out, error = command("pretrain", "--out", str(tmp_path / "base"))
    assert (code, out, error) == (2, "", f"himac-lite: {HOW} 'himac-lite[fast]'\n")


HOW = "numba is not installed; the batched environment, large searches and pretraining need it: pip install"


@pytest.mark.parametrize(
    "call",
    [
        "gymnasium.make_vec('himac_lite/Sokoban-v0', num_envs=2, levels='core/test')",
        "from himac_lite.tasks.sokoban.distances import distances; distances(hall())",
        "from himac_lite.tasks.sokoban import patience, solver; patience.MOST = 70_000; solver.solve(hall_level)",
    ],
)
def test_without_numba_what_needs_it_says_how_to_get_it(call):
    rows = ["#" * 20, "#@" + " " * 17 + "#", "#  $ $ $ $ $       #", *["#" + " " * 18 + "#"] * 5]
    rows += ["#    .....         #", "#" * 20]
    code, _, error = fresh(
        f"{BLOCKED}import gymnasium, himac_lite\nfrom himac_lite.tasks.sokoban.rules import board_from_level\n"
        f"hall_level = himac_lite.types.Level({tuple(rows)!r})\nhall = lambda: board_from_level(hall_level)\n"
        f"try:\n    {call}\nexcept himac_lite.HimacError as error:\n    print(error, file=sys.stderr); sys.exit(2)\n"
    )
    assert code == 2, error
    assert error == f"{HOW} 'himac-lite[fast]'\n"


CALL = "import numpy as np; from himac_lite.tasks.sokoban.packed import find; print(find(np.array([3, 5]), 5))"
BREAK = {
    "full": "import himac_lite.tasks.sokoban.packed as _, pathlib; "
    "[f.rmdir() or f.touch() for f in pathlib.Path({0!r}).iterdir()]",
    "damaged": "import pathlib; [f.write_bytes(b'x') for f in pathlib.Path({0!r}).glob('*/*.nbi')]",
}


def test_without_a_place_for_the_cache_kernels_are_compiled():
    """The only locator that is named finds no folder, like all of them in a read-only installation without a home."""
    place = {"NUMBA_CACHE_DIR": "/dev/null/x", "NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator"}
    assert fresh(CALL, **place)[:2] == (0, "1\n")


def test_a_cache_that_breaks_only_costs_a_compilation(tmp_path):
    """First its folder becomes a file before anything is stored, as bad as a full disk; then its index is damaged."""
    cache = {"NUMBA_CACHE_DIR": str(tmp_path)}
    assert fresh(f"{BREAK['full'].format(str(tmp_path))}; {CALL}", **cache)[:2] == (0, "1\n")
    for file in tmp_path.iterdir():
        file.unlink()
    assert fresh(CALL, **cache)[0] == 0
    assert list(tmp_path.glob("*/packed.find*.nbi"))
    assert fresh(f"{BREAK['damaged'].format(str(tmp_path))}; {CALL}", **cache)[:2] == (0, "1\n")


@pytest.mark.parametrize(
    "module",
    ["himac_lite", "himac_lite.cli", "himac_lite.tasks.sokoban.task", "himac_lite.tasks.sokoban.generator",
     "himac_lite.widgets", "himac_lite.pretraining.sokoban"],
)  # fmt: skip
def test_no_module_waits_for_numba(module):
    assert fresh(f"import sys, {module}; print('numba' in sys.modules)")[1] == "False\n"
