"""`himac-lite play` without input and output: what each key does, and what the screen shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from himac_lite.tasks.sokoban.render import to_ansi, to_text
from himac_lite.tasks.sokoban.rules import Board, Outcome, board_from_level, step
from himac_lite.types import Level

HELP = "arrows, wasd or hjkl move · u undo · r restart · n next · p previous · q quit"
_ARROWS = {"\033[A": "u", "\033[B": "d", "\033[C": "r", "\033[D": "l"}
_MOVES = {**dict(zip("wasd", "uldr", strict=True)), **dict(zip("kjhl", "udlr", strict=True)), **_ARROWS}


@dataclass
class Session:
    """A player among levels. `played` is the LURD of the moves so far: pushes in capitals, no blocked moves."""

    levels: Sequence[Level]
    number: int = 0
    played: str = ""
    over: bool = False
    _boards: list[Board] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._go(self.number)

    @property
    def board(self) -> Board:
        return self._boards[-1]

    def press(self, key: str) -> None:
        """Handle one key; unknown keys do nothing."""
        if key in _MOVES:
            move = _MOVES[key]
            after, outcome = step(self.board, move)
            if outcome is not Outcome.BLOCKED and not self.board.solved:
                self._boards.append(after)
                self.played += move.upper() if outcome is Outcome.PUSHED else move
        elif key == "u" and self.played:
            self._boards.pop()
            self.played = self.played[:-1]
        elif key == "r":
            self._go(self.number)
        elif key in ("n", "p"):
            self._go((self.number + (1 if key == "n" else -1)) % len(self.levels))
        elif key == "q":
            self.over = True

    def screen(self, colour: bool) -> str:
        """Title, board, counts and keys."""
        level = self.levels[self.number]
        pushes = sum(move.isupper() for move in self.played)
        lines = [f"level {self.number + 1} of {len(self.levels)} {level.title}".rstrip()]
        lines.append(to_ansi(self.board) if colour else to_text(self.board))
        best = f" (fewest {level.optimal_moves})" if level.optimal_moves is not None else ""
        lines.append(f"moves {len(self.played)}{best}, pushes {pushes}")
        lines.append(f"solved: {self.played}" if self.board.solved else HELP)
        return "\n".join(lines)

    def _go(self, number: int) -> None:
        self.number, self.played = number, ""
        self._boards = [board_from_level(self.levels[number])]


def keys_of(text: str) -> list[str]:
    """The key presses in a text: an arrow is one key; white space is ignored."""
    keys, at = [], 0
    while at < len(text):
        size = 3 if text[at : at + 3] in _ARROWS else 1
        if not text[at].isspace():
            keys.append(text[at : at + size])
        at += size
    return keys
