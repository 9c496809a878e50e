"""The solver against searches written plainly over `rules.step`, and its two halves against each other."""

from __future__ import annotations

from collections import deque
from itertools import combinations, pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sokoban_boards import puzzles

from himac_lite.errors import LevelError
from himac_lite.tasks.sokoban.bounds import FAR, is_deadlock, is_frozen, least_cost, push_distances
from himac_lite.tasks.sokoban.generator import random_layout
from himac_lite.tasks.sokoban.geometry import Geometry
from himac_lite.tasks.sokoban.levels import load_levels
from himac_lite.tasks.sokoban.rules import MOVES, Board, Outcome, board_from_level, play, rows_of, step
from himac_lite.tasks.sokoban.solver import Solution, distances, pushes_of, search, solve, walk
from himac_lite.types import Level


def fewest(board: Board, count_pushes: bool) -> int | None:
    """Moves or pushes to the nearest solution, by breadth-first search over the rules; None where there is none.

    Counting pushes, a walk costs nothing and is taken up at once (0-1 search).
    """
    best = {board: 0}
    queue = deque([board])
    while queue:
        here = queue.popleft()
        if here.solved:
            return best[here]
        for move in MOVES:
            after, outcome = step(here, move)
            free = count_pushes and outcome is Outcome.MOVED
            cost = best[here] + (not free)
            if outcome is not Outcome.BLOCKED and cost < best.get(after, 1_000_000):
                best[after] = cost
                (queue.appendleft if free else queue.append)(after)
    return None


def level(*rows: str) -> Level:
    return Level(rows)


SOLVED_BY_HAND = [  # (rows, fewest moves, pushes of that solution, fewest pushes)
    (("#####", "#@$.#", "#####"), 1, 1, 1),
    (("#####", "#@* #", "#####"), 0, 0, 0),
    (("######", "#@ $.#", "######"), 2, 1, 1),
    # Down to the box's left is two moves, then two pushes to the right: ddRR.
    (("######", "#@   #", "#    #", "# $ .#", "######"), 4, 2, 2),
    # Up and around the box: the player stands right of a box that must go right.
    (("#######", "#     #", "# $@. #", "#######"), 6, 2, 2),
]


@pytest.mark.parametrize(("rows", "moves", "pushes", "fewest_pushes"), SOLVED_BY_HAND)
def test_solved_by_hand(rows, moves, pushes, fewest_pushes):
    found = solve(level(*rows))
    assert (found.moves, found.pushes) == (moves, pushes)
    assert solve(level(*rows), "pushes").pushes == fewest_pushes


def test_fewest_moves_and_fewest_pushes_can_differ():
    """One push of the far box and a long walk, or two pushes of the near ones: `optimal` decides."""
    for one in load_levels("core/validation"):
        by_moves, by_pushes = solve(one), solve(one, "pushes")
        assert by_moves.moves <= by_pushes.moves
        assert by_pushes.pushes <= by_moves.pushes
        if by_pushes.pushes < by_moves.pushes:
            assert by_moves.moves < by_pushes.moves
            return
    pytest.fail("in 512 levels the fewest moves always had the fewest pushes")


@given(puzzles())
@settings(max_examples=60, deadline=None)
def test_solutions_are_optimal_and_solve(board):
    one = Level(rows_of(board))
    for optimal in ("moves", "pushes"):
        found = solve(one, optimal)
        expected = fewest(board, optimal == "pushes")
        if found is None:
            assert expected is None
            continue
        assert (found.moves if optimal == "moves" else found.pushes) == expected
        assert play(board, found.lurd).solved
        pushed = [step(play(board, found.lurd[:i]), m)[1] is Outcome.PUSHED for i, m in enumerate(found.lurd)]
        assert pushed == [m.isupper() for m in found.lurd]


@pytest.mark.parametrize("split", ["warmup", "core"])
def test_frozen_lengths_are_what_a_plain_search_finds(split):
    for one in load_levels(split, "test")[:6]:
        board = board_from_level(one)
        assert (one.optimal_moves, one.optimal_pushes) == (fewest(board, False), fewest(board, True))


@pytest.mark.parametrize(
    "rows",
    [
        ("#####", "#@ .#", "#$  #", "#####"),  # a box in a corner
        (
            "######",
            "#.  @#",
            "#  $ #",
            "#   $#",
            "#.   #",
            "######",
        ),  # a box against the right wall, targets on the left
        ("#######", "#@#$ .#", "#######"),  # the player is walled in
    ],
)
def test_unsolvable_is_none(rows):
    assert solve(level(*rows)) is None
    assert solve(level(*rows), "pushes") is None


def test_lurd_counts():
    assert (Solution("lURd").moves, Solution("lURd").pushes) == (4, 2)


def test_optimal_must_be_moves_or_pushes():
    with pytest.raises(ValueError, match="'moves' or 'pushes', not 'steps'"):
        solve(level("#####", "#@$.#", "#####"), "steps")


def large_hall(row: str) -> Level:
    """A hall of 324 floor cells, 9 bits each; with 12 boxes and a player a position takes 117 bits."""
    rows = ["#" * 20, *["#" + " " * 18 + "#"] * 18, "#" * 20]
    rows[1], rows[3], rows[5] = "#@" + " " * 17 + "#", row, "#  " + "." * 12 + "    #"
    return level(*rows)


def test_a_position_need_not_fit_64_bits():
    hall = large_hall("#  " + "$" * 12 + "    #")
    found = solve(hall, "pushes")
    assert found.pushes == 24, "every box two cells down"
    assert play(board_from_level(hall), found.lurd).solved
    with pytest.raises(LevelError, match="12 boxes on 324 floor cells"):
        distances(board_from_level(hall))


@pytest.mark.parametrize(
    ("limits", "outcome"),
    [({"max_states": 1000}, "STATES"), ({"max_bytes": 1_000_000}, "STATES"), ({"seconds": 0.2}, "SECONDS")],
)
def test_a_search_says_that_it_was_stopped(limits, outcome):
    """Two rows of six boxes in the middle of a hall: too much for a second, in moves."""
    hall = large_hall("#   $ $ $ $ $ $    #")
    rows = list(hall.rows)
    rows[9], rows[5] = "#   $ $ $ $ $ $    #", "#  ......          #"
    rows[16] = "#      ......      #"
    found = search(level(*rows), "moves", **limits)
    assert found.solution is None
    assert found.outcome.name == outcome


# Deadlocks and bounds


def numbered(*rows: str):
    """A board, its geometry, and the push distances to its targets."""
    board = board_from_level(level(*rows))
    geometry = Geometry.of(board)
    return board, geometry, push_distances(geometry.neighbours.astype(np.int64), np.array(geometry.targets))


@given(puzzles(max_boxes=1))
@settings(max_examples=80, deadline=None)
def test_push_distance_is_the_fewest_pushes_of_a_lone_box(board):
    """The least over all cells of the player, by the plain search."""
    geometry = Geometry.of(board)
    (found,) = push_distances(geometry.neighbours.astype(np.int64), np.array(geometry.targets))
    for i, box in enumerate(geometry.cells[:6]):
        pushes = [
            fewest(Board(board.height, board.width, board.walls, board.targets, frozenset({box}), player), True)
            for player in geometry.cells
            if player != box
        ]
        solvable = [n for n in pushes if n is not None]
        # On its target, a box that no player stands beside is at distance 0 too.
        assert min(solvable, default=FAR) == found[i] or box in board.targets


@given(st.integers(1, 5), st.integers(0, 3), st.integers(0, 10**6))
@settings(max_examples=150, deadline=None)
def test_least_cost_is_the_best_of_all_assignments(boxes, spare, seed):
    cost = np.random.default_rng(seed).integers(0, 12, (boxes + spare, boxes)).astype(np.int32)
    cost[cost > 9] = FAR
    best = min(sum(cost[t, b] for b, t in enumerate(order)) for order in permutations(range(boxes + spare), boxes))
    found = least_cost(cost, np.arange(boxes), boxes, np.empty((6, boxes + spare + 1), np.int32))
    assert found == best or min(found, best) >= FAR


FROZEN = [  # rows, and whether the box marked * or $ in the middle row, third column, is frozen
    (("#####", "#. .#", "# $ #", "#  @#", "#####"), False),
    (("#####", "#.  #", "##$ #", "#. @#", "#####"), False),  # a wall on one side only
    (("######", "#.  .#", "# $$ #", "# @$.#", "######"), False),
    (("######", "#.## #", "# $$.#", "# @  #", "######"), True),  # two side by side along a wall above
    (("######", "#. . #", "# $$ #", "# $$.#", "#@  .#", "######"), True),  # a block of four
]


@pytest.mark.parametrize(("rows", "frozen"), FROZEN)
def test_frozen(rows, frozen):
    board, geometry, distance = numbered(*rows)
    occupied = np.zeros(len(geometry.cells), np.bool_)
    occupied[[geometry.index[box] for box in board.boxes]] = True
    walls = np.zeros(len(occupied), np.bool_)
    alive = (distance < FAR).any(axis=0)
    nb = geometry.neighbours.astype(np.int64)
    assert is_frozen(geometry.index[2, 2], occupied, walls, nb, np.ones_like(alive)) == frozen
    assert not walls.any()


@given(puzzles(high=5, max_boxes=2))
@settings(max_examples=40, deadline=None)
def test_no_solvable_position_is_called_a_deadlock(board):
    """Of all placements of the boxes that the plain search solves from somewhere."""
    geometry = Geometry.of(board)
    nb = geometry.neighbours.astype(np.int64)
    distance = push_distances(nb, np.array(geometry.targets))
    alive, target = (distance < FAR).any(axis=0), np.zeros(len(nb), np.bool_)
    target[list(geometry.targets)] = True
    table = distances(board)
    for key in table.keys[:: max(1, len(table.keys) // 60)]:
        solvable = table.board(board, int(key))
        boxes = [geometry.index[box] for box in solvable.boxes]
        occupied = np.zeros(len(nb), np.bool_)
        occupied[boxes] = True
        for box in boxes:
            assert not is_deadlock(box, occupied, np.zeros_like(occupied), nb, alive, target)


# Written out


def test_a_solution_as_lurd_pushes_and_runs():
    # Push the upper box right twice; then around to the left of the lower one, and push it right twice.
    start = board_from_level(level("######", "#    #", "#@$ .#", "# $ .#", "######"))
    lurd = solve(Level(rows_of(start))).lurd
    assert lurd == "RRlldRR"
    assert pushes_of(start, lurd) == [((2, 2), "right", (2, 4)), ((3, 2), "right", (3, 4))]


def test_no_walk_through_a_box():
    with pytest.raises(ValueError, match=r"cannot walk from \(1, 1\) to \(1, 4\)"):
        walk(board_from_level(level("######", "#@$. #", "######")), (1, 4))


# The distance table


def every_position(layout: Board):
    """All placements of boxes and player on the floor."""
    floor = {(r, c) for r in range(layout.height) for c in range(layout.width)} - layout.walls
    for boxes in combinations(sorted(floor), len(layout.targets)):
        for player in sorted(floor - set(boxes)):
            yield Board(layout.height, layout.width, layout.walls, layout.targets, frozenset(boxes), player)


@pytest.mark.parametrize("seed", range(3))
def test_the_table_knows_every_position_of_a_layout(seed):
    layout = random_layout(np.random.default_rng(seed), 5, 1, 0.3)
    table = distances(layout)
    lengths = {board: fewest(board, False) for board in every_position(layout)}
    assert {board: table.distance(board) for board in lengths} == lengths
    for low, high in ((0, 0), (1, 3), (4, 99)):
        listed = [table.board(layout, int(key)) for key in table.positions(low, high)]
        assert len(set(listed)) == len(listed)
        assert set(listed) == {b for b, n in lengths.items() if n is not None and low <= n <= high}


@pytest.mark.parametrize(("size", "boxes"), [(6, 1), (7, 2), (8, 3)])
def test_distance_is_what_solve_finds(size, boxes):
    rng = np.random.default_rng(size)
    solvable = 0
    for _ in range(12):
        layout = random_layout(rng, size, boxes, 0.25)
        table = distances(layout)
        floor = sorted({(r, c) for r in range(size) for c in range(size)} - layout.walls)
        for _ in range(4):
            cells = [floor[i] for i in rng.permutation(len(floor))[: boxes + 1]]
            board = Board(size, size, layout.walls, layout.targets, frozenset(cells[1:]), cells[0])
            found = solve(Level(rows_of(board)))
            assert table.distance(board) == (found.moves if found else None)
            solvable += found is not None
    assert 5 <= solvable <= 43, "both kinds must be among the 48"


@given(st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_a_move_changes_the_distance_by_at_most_one_and_some_move_lowers_it(seed):
    rng = np.random.default_rng(seed)
    layout = random_layout(rng, 6, 2, 0.25)
    table = distances(layout)
    keys = table.positions(1, 99)
    if not len(keys):
        return
    board = table.board(layout, int(rng.choice(keys)))
    while (here := table.distance(board)) > 0:
        after = {m: table.distance(step(board, m)[0]) for m in MOVES}
        assert all(n is None or n >= here - 1 for n in after.values())
        board = step(board, rng.choice([m for m in MOVES if after[m] == here - 1]))[0]
    assert board.solved


def test_a_lost_position_has_no_distance():
    board = board_from_level(level("######", "#.   #", "#  @ #", "#   $#", "######"))
    assert distances(board).distance(board) is None


@pytest.mark.parametrize("noise", [0.0, 0.4])
def test_play_says_which_of_its_moves_were_optimal(noise):
    rng = np.random.default_rng(5)
    detours = 0
    for one in load_levels("core/validation")[:20]:
        start = board_from_level(one)
        table = distances(start)
        moves, optimal = table.play(start, rng, noise, limit=500)
        walked = [table.distance(play(start, moves[:i])) for i in range(len(moves) + 1)]
        assert [b - a == -1 for a, b in pairwise(walked)] == optimal
        assert walked[-1] == 0
        detours += len(moves) - one.optimal_moves
    assert (detours == 0) if noise == 0 else (detours > 20)
    moves, optimal = table.play(start, rng, noise, limit=3)
    assert len(moves) == len(optimal) == 3
