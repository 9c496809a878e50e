"""The key of a position: the same for the same game, another for another, at any size."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sokoban_boards import boards

from himac_lite.tasks.sokoban.keys import position_key
from himac_lite.tasks.sokoban.levels import symmetries
from himac_lite.tasks.sokoban.rules import Board, board_from_level, rows_of
from himac_lite.tasks.sokoban.solver import reachable
from himac_lite.types import Level


def board(*rows: str) -> Board:
    return board_from_level(Level(rows))


def key(*rows: str) -> tuple[int, ...]:
    return position_key(board(*rows))


def test_a_key_by_hand():
    # Of the images, those on their side have the fewest rows: 3 rows of 5 cells and a gap; (r, c) has the bit 6r + c.
    # Walls: the first row 0 to 4, the ends 6 and 10, the last row 12 to 16. The least has its target at the lowest bit:
    # target 7, player 8, box 9. The player can walk to the target, so its region begins at 7.
    walls = sum(1 << i for i in (0, 1, 2, 3, 4, 6, 10, 12, 13, 14, 15, 16))
    assert key("###", "#$#", "#@#", "#.#", "###") == (3, 5, walls, 1 << 7, 1 << 9, 1 << 7)


ROOM = ("######", "#.   #", "# $# #", "#  @ #", "######")


def test_the_player_may_stand_anywhere_in_its_region():
    assert key(*ROOM) == key("######", "#. @ #", "# $# #", "#    #", "######")
    # Here the box parts the floor: the player is on one side or on the other.
    assert key("#####", "#@$.#", "#####") != key("#####", "# $+#", "#####")


@pytest.mark.parametrize(
    "other",
    [
        ("######", "#.   #", "#$ # #", "#  @ #", "######"),  # the box moved
        ("######", "# .  #", "# $# #", "#  @ #", "######"),  # the target moved
        ("######", "#.   #", "# $  #", "#  @ #", "######"),  # a wall less
        ("#######", "#.   ##", "# $# ##", "#  @ ##", "#######"),  # a larger board
        ("######", "#.  $#", "# $# #", "#. @ #", "######"),  # another box and target
    ],
)
def test_another_position_has_another_key(other):
    assert key(*ROOM) != key(*other)


def test_a_translated_board_is_another_one():
    assert key("#####", "#@$.#", "#####", "#####") == key("#####", "#####", "#@$.#", "#####")  # mirrored
    assert key("#####", "#@$.#", "#####", "#####", "#####") != key("#####", "#####", "#@$.#", "#####", "#####")


@settings(deadline=None, max_examples=50)
@given(boards(high=6), st.data())
def test_symmetric_images_and_walks_keep_the_key(one, data):
    known = position_key(one)
    assert {position_key(board_from_level(image)) for image in symmetries(Level(rows_of(one)))} == {known}
    elsewhere = data.draw(st.sampled_from(sorted(reachable(one))))
    assert position_key(replace(one, player=elsewhere)) == known


@settings(deadline=None, max_examples=50)
@given(boards(high=6), st.data())
def test_a_box_that_moves_changes_the_key(one, data):
    """Unless the new position is an image of the old one, which the texts of all images say."""
    assume(one.boxes)
    box = data.draw(st.sampled_from(sorted(one.boxes)))
    free = {(r, c) for r in range(one.height) for c in range(one.width)} - one.walls - one.boxes - {one.player}
    assume(free)
    moved = replace(one, boxes=one.boxes - {box} | {data.draw(st.sampled_from(sorted(free)))})
    assert (position_key(moved) == position_key(one)) == bool(everywhere(moved) & everywhere(one))


def everywhere(one: Board) -> set[tuple[str, ...]]:
    """The rows of every symmetric image with the player at every cell of its region."""
    places = [Level(rows_of(replace(one, player=cell))) for cell in reachable(one)]
    return {image.rows for place in places for image in symmetries(place)}
