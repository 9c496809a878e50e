"""A record's trajectories, move by move: what the browser plays, and what the explorer compares. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from himac_lite.errors import RunError
from himac_lite.tasks.sokoban.rules import MOVES, Board, Outcome, board_from_level, step
from himac_lite.types import Level
from himac_lite.widgets.plots import Record


@dataclass(frozen=True)
class Replay:
    """All positions of one trajectory; a cell is row × width + column."""

    frames: tuple[tuple[int, ...], ...]
    """One more than moves: the player's cell, then each box's, a box always in the same place."""
    happened: str
    """One letter a move: m moved, p pushed, b blocked."""
    home: int
    """Boxes on targets at the end."""
    sub_goal: tuple[int, ...]
    """The active sub-goal of each move, counted from 0."""


def board_of(record: Record) -> Board:
    return board_from_level(Level(tuple(record["level"].split("\n"))))


def replay(board: Board, member: Mapping[str, Any]) -> Replay:
    """Play a recorded member (of either group) again by the rules."""
    width, boxes = board.width, sorted(board.boxes)

    def frame() -> tuple[int, ...]:
        return tuple(r * width + c for r, c in (board.player, *boxes))

    frames, happened = [frame()], []
    if not set(member["moves"]) <= set(MOVES) | set(MOVES.upper()):
        raise RunError(f"a recorded episode has moves other than {MOVES}: {member['moves'][:80]!r}")
    for move in member["moves"]:
        (r, c), (board, outcome) = board.player, step(board, move)
        if outcome is Outcome.PUSHED:  # the box went on by the player's own step
            boxes[boxes.index(board.player)] = (2 * board.player[0] - r, 2 * board.player[1] - c)
        frames.append(frame())
        happened.append(outcome.name[0].lower())
    active = tuple(k for k, segment in enumerate(member["segments"]) for _ in range(segment["steps"]))
    return Replay(tuple(frames), "".join(happened), board.boxes_on_target, active)


def states(played: Replay) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """The state in which each move was chosen, as the executor sees it: active sub-goal, player, boxes (a set)."""
    return tuple(
        (goal, (player, *sorted(boxes)))
        for goal, (player, *boxes) in zip(played.sub_goal, played.frames[:-1], strict=True)
    )
