"""A record's trajectories, move by move, for the player and the explorer. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from himac_lite.errors import RunError
from himac_lite.tasks.sokoban.rules import MOVES, Board, Outcome, board_from_level, step
from himac_lite.types import Level
from himac_lite.widgets.plots import SYMBOLS, Record, members_of


@dataclass(frozen=True)
class Replay:
    """All positions of one trajectory. A cell is row × width + column."""

    frames: tuple[tuple[int, ...], ...]
    """[moves + 1]: the player's cell, then the cell of each box, in a fixed order of boxes."""
    happened: str
    """One letter per move: m moved, p pushed, b blocked."""
    home: int
    """Boxes on targets at the end."""
    sub_goal: tuple[int, ...]
    """The active sub-goal of each move, from 0."""


def is_text(record: Record) -> bool:
    """Whether a record is of a text-action task: some member has a transcript."""
    return any("transcript" in member for group in SYMBOLS for member in members_of(record, group))


def board_of(record: Record) -> Board:
    return board_from_level(Level(tuple(record["level"].split("\n"))))


def replay(board: Board, member: Mapping[str, Any]) -> Replay:
    """Replay a recorded member of either group by the rules. Raises `RunError` for unknown moves."""
    width, boxes = board.width, sorted(board.boxes)

    def frame() -> tuple[int, ...]:
        return tuple(r * width + c for r, c in (board.player, *boxes))

    frames, happened = [frame()], []
    if not set(member["moves"]) <= set(MOVES) | set(MOVES.upper()):
        raise RunError(f"a recorded episode has moves other than {MOVES}: {member['moves'][:80]!r}")
    for move in member["moves"]:
        (r, c), (board, outcome) = board.player, step(board, move)
        if outcome is Outcome.PUSHED:  # the box moved by the same step as the player
            boxes[boxes.index(board.player)] = (2 * board.player[0] - r, 2 * board.player[1] - c)
        frames.append(frame())
        happened.append(outcome.name[0].lower())
    active = tuple(k for k, segment in enumerate(member["segments"]) for _ in range(segment["steps"]))
    return Replay(tuple(frames), "".join(happened), board.boxes_on_target, active)


def states(played: Replay) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """The executor's state at each move: active sub-goal, player, sorted boxes."""
    return tuple(
        (goal, (player, *sorted(boxes)))
        for goal, (player, *boxes) in zip(played.sub_goal, played.frames[:-1], strict=True)
    )
