"""Hypothesis strategies for Sokoban boards, shared by the tests."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from himac_lite.tasks.sokoban.rules import STEP, Board, board_from_level
from himac_lite.types import Level


@st.composite
def boards(draw, low: int = 3, high: int = 8, tiles: str = "   #.$*") -> Board:
    """Any board with a wall around it: sides from `low` to `high`, as many boxes and targets as it happens to have."""
    height, width = draw(st.integers(low, high)), draw(st.integers(low, high))
    inside = draw(
        st.lists(st.sampled_from(tiles), min_size=(height - 2) * (width - 2), max_size=(height - 2) * (width - 2))
    )
    inside[draw(st.integers(0, len(inside) - 1))] = draw(st.sampled_from("@+"))
    rows = [inside[i : i + width - 2] for i in range(0, len(inside), width - 2)]
    return board_from_level(Level(("#" * width, *("#" + "".join(row) + "#" for row in rows), "#" * width)))


@st.composite
def puzzles(draw, high: int = 6, max_boxes: int = 2) -> Board:
    """A board with as many boxes as targets, at least one: solvable, made by pulling, or placed anyhow."""
    height, width = draw(st.integers(4, high)), draw(st.integers(4, high))
    cells = [(r, c) for r in range(1, height - 1) for c in range(1, width - 1)]
    n = draw(st.integers(1, min(max_boxes, (len(cells) - 1) // 2)))
    order = draw(st.permutations(cells))
    player, targets, boxes = order[0], frozenset(order[1 : n + 1]), frozenset(order[n + 1 : 2 * n + 1])
    inner = (
        draw(st.sets(st.sampled_from(order[2 * n + 1 :]), max_size=len(cells) // 4)) if order[2 * n + 1 :] else set()
    )
    walls = frozenset({(r, c) for r in range(height) for c in range(width)} - set(cells) | inner)
    if draw(st.booleans()):
        boxes, rng = targets, np.random.default_rng(draw(st.integers(0, 2**32)))
        for move in rng.choice(list(STEP.values()), 150).tolist():
            ahead = (player[0] + move[0], player[1] + move[1])
            behind = (player[0] - move[0], player[1] - move[1])
            if ahead not in walls | boxes:
                boxes = boxes - {behind} | {player} if behind in boxes else boxes
                player = ahead
    return Board(height, width, walls, targets, boxes, player)
