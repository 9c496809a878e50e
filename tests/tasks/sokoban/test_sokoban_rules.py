"""The rules: positions worked out by hand, the laws of the game, and the two forms of the rules against each other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sokoban_boards import boards

from himac_lite.errors import LevelError
from himac_lite.tasks.sokoban.batch import step_batch
from himac_lite.tasks.sokoban.cells import pack, unpack
from himac_lite.tasks.sokoban.rules import (
    BOX,
    MOVES,
    NAMES,
    PLAYER,
    STEP,
    TARGET,
    WALL,
    Outcome,
    board_from_level,
    play,
    rows_of,
    step,
)
from himac_lite.types import Level

OPPOSITE = {"u": "d", "d": "u", "l": "r", "r": "l"}


def board(*rows: str):
    return board_from_level(Level(rows))


# One row of a corridor before and after a move to the right; the rest of the board is wall.
WORKED = [
    ("#@  #", "r", "# @ #", Outcome.MOVED),
    ("#@. #", "r", "# + #", Outcome.MOVED),
    ("#+  #", "r", "#.@ #", Outcome.MOVED),
    ("#@$ #", "r", "# @$#", Outcome.PUSHED),
    ("#@$.#", "r", "# @*#", Outcome.PUSHED),  # onto a target
    ("#@* #", "r", "# +$#", Outcome.PUSHED),  # off a target, which the player now stands on
    ("#@*.#", "r", "# +*#", Outcome.PUSHED),  # from target to target
    ("#+$ #", "r", "#.@$#", Outcome.PUSHED),
    ("# @#", "r", "# @#", Outcome.BLOCKED),  # wall
    ("# @$#", "r", "# @$#", Outcome.BLOCKED),  # box against a wall
    ("#@$$ #", "r", "#@$$ #", Outcome.BLOCKED),  # two boxes
    ("#@$* #", "r", "#@$* #", Outcome.BLOCKED),
    ("# $@#", "l", "#$@ #", Outcome.PUSHED),
    ("#@ $#", "l", "#@ $#", Outcome.BLOCKED),
    ("#$ @#", "l", "#$@ #", Outcome.MOVED),  # walking away from a box does not pull it, nor does walking up to it
    ("#$@ #", "r", "#$ @#", Outcome.MOVED),
]


@pytest.mark.parametrize(("before", "move", "after", "outcome"), WORKED)
@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_worked_positions(before, move, after, outcome, batched, turned):
    """Each as a row (left, right) and, turned, as a column (up, down)."""

    def corridor(row):
        rows = ("#" * len(row), row, "#" * len(row))
        return board(*("".join(column) for column in zip(*rows, strict=True))) if turned else board(*rows)

    move = {"r": "d", "l": "u"}[move] if turned else move
    if batched:
        cells, player = pack([corridor(before)])
        happened = step_batch(cells, player, np.array([MOVES.index(move)]))
        expected_cells, expected_player = pack([corridor(after)])
        assert happened.tolist() == [outcome.value]
        assert cells.tolist() == expected_cells.tolist()
        assert player.tolist() == expected_player.tolist()
    else:
        now, happened = step(corridor(before), move)
        assert rows_of(now) == rows_of(corridor(after))
        assert happened is outcome


def test_moves_names_and_steps_are_in_one_order():
    """Actions 0–3 are up, down, left, right everywhere: tokens, environment and solver count on it."""
    assert [(m, n, STEP[m]) for m, n in zip(MOVES, NAMES, strict=True)] == [
        ("u", "up", (-1, 0)),
        ("d", "down", (1, 0)),
        ("l", "left", (0, -1)),
        ("r", "right", (0, 1)),
    ]


def test_a_solution_by_hand():
    start = board("######", "#    #", "#@$ .#", "# $ .#", "######")
    # Push the upper box two to the right; then around to the left of the lower one, and push it two to the right.
    after = play(start, "rrlldrr")
    assert rows_of(play(start, "rr")) == ("######", "#    #", "#  @*#", "# $ .#", "######")
    assert rows_of(after) == ("######", "#    #", "#   *#", "#  @*#", "######")
    assert after.solved
    assert not start.solved
    assert (start.boxes_on_target, after.boxes_on_target) == (0, 2)


def test_one_box_short_is_not_solved():
    assert not board("#####", "#@* #", "# $.#", "#####").solved


def test_capitals_move_as_small_letters_do():
    start = board("#####", "#@$.#", "#####")
    assert step(start, "R") == step(start, "r")
    assert step(start, "r")[0] != start


def test_pack_pads_with_walls_to_the_largest():
    cells, player = pack([board("#####", "#+*$#", "#####"), board("####", "#@.#", "#  #", "####")])
    w, t, b, p = WALL, TARGET, BOX, PLAYER
    assert cells.dtype == np.uint8
    assert cells.tolist() == [
        [[w, w, w, w, w], [w, t | p, t | b, b, w], [w, w, w, w, w], [w, w, w, w, w]],
        [[w, w, w, w, w], [w, p, t, w, w], [w, 0, 0, w, w], [w, w, w, w, w]],
    ]
    assert player.tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize("row", ["#   #", "#@ @#", "#@ +#"])
def test_a_board_needs_one_player(row):
    with pytest.raises(LevelError, match="exactly one player"):
        board("#####", row, "#####")


@given(st.lists(boards(), min_size=1, max_size=5), st.data())
@settings(max_examples=100, deadline=None)
def test_both_forms_of_the_rules_agree(start, data):
    """A batch of boards of mixed sizes goes where each of them goes by itself."""
    cells, player = pack(start)
    shape = cells.shape[1:]
    now = list(start)
    for actions in data.draw(st.lists(st.lists(st.integers(0, 3), min_size=len(now), max_size=len(now)), max_size=25)):
        outcomes = step_batch(cells, player, np.array(actions))
        singles = [step(b, MOVES[a]) for b, a in zip(now, actions, strict=True)]
        now = [b for b, _ in singles]
        assert outcomes.tolist() == [outcome.value for _, outcome in singles]
        assert player.tolist() == [list(b.player) for b in now]
        for i, b in enumerate(now):
            expected = np.full(shape, WALL, np.uint8)
            expected[: b.height, : b.width] = pack([b])[0][0]
            assert cells[i].tolist() == expected.tolist()


@given(boards(), st.text("udlr", max_size=60))
@settings(max_examples=100, deadline=None)
def test_what_a_move_may_change(start, moves):
    now = start
    for move in moves:
        before, (now, outcome) = now, step(now, move)
        assert (now.walls, now.targets, now.height, now.width) == (
            start.walls,
            start.targets,
            start.height,
            start.width,
        )
        assert len(now.boxes) == len(start.boxes)
        assert now.player not in now.walls | now.boxes
        assert not now.boxes & now.walls
        walked = abs(now.player[0] - before.player[0]) + abs(now.player[1] - before.player[1])
        assert (walked, len(now.boxes - before.boxes)) == {
            Outcome.MOVED: (1, 0),
            Outcome.PUSHED: (1, 1),
            Outcome.BLOCKED: (0, 0),
        }[outcome]


@given(boards(), st.text("udlr", max_size=30), st.sampled_from("udlr"))
@settings(max_examples=200, deadline=None)
def test_a_step_without_a_push_can_be_taken_back_and_a_push_cannot(start, moves, move):
    here = play(start, moves)
    after, outcome = step(here, move)
    back, _ = step(after, OPPOSITE[move])
    if outcome is Outcome.MOVED:
        assert back == here
    elif outcome is Outcome.PUSHED:
        assert (back.player, back.boxes) == (here.player, after.boxes)
        assert back.boxes != here.boxes


@given(boards())
@settings(max_examples=100, deadline=None)
def test_rows_say_everything(start):
    assert board_from_level(Level(rows_of(start))) == start


@given(boards(), st.text("udlr", max_size=40))
@settings(max_examples=50, deadline=None)
def test_cells_say_everything(start, moves):
    now = play(start, moves)
    assert unpack(pack([now])[0][0], start) == now


@pytest.mark.parametrize("bad", [[4], [-1], [0, 0]])
def test_the_batched_form_refuses_what_it_does_not_know(bad):
    cells, player = pack([board("#####", "#@$.#", "#####")])
    with pytest.raises(ValueError, match=r"an action is|expected"):
        step_batch(cells, player, np.array(bad))


def test_one_board_is_played_shown_and_read_without_numpy():
    """The page without installation has a Python, and nothing else: rules, level files, text and SVG do with that."""
    code = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("numpy", "numba", "gymnasium"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
from himac_lite.tasks.sokoban.levels import load_levels, parse_levels
from himac_lite.tasks.sokoban.render import to_ansi, to_svg
from himac_lite.tasks.sokoban.rules import board_from_level, play
board = board_from_level(parse_levels("#####\\n#@$.#\\n#####")[0])
print(play(board, "R").solved, to_svg(board)[:4], len(to_ansi(board)) > 15, len(load_levels("core/test")))
"""
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=False)
    assert done.stdout == "True <svg True 512\n", done.stderr
