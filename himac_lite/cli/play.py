"""`himac-lite play`: Sokoban in the terminal, with keys from the keyboard or a pipe."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from typing import Any

from himac_lite.cli.console import say
from himac_lite.errors import ConfigError

HELP = "play levels in the terminal"


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("levels", nargs="?", default="core/train", help="level file or split; default: core/train")
    p.add_argument("--level", type=int, default=1, help="number of the first level to play; default: 1")
    p.add_argument("--json", action="store_true", help="print only one JSON object at the end")
    p.set_defaults(run=run)


def run(given: argparse.Namespace) -> dict[str, Any]:
    from himac_lite.tasks.sokoban.levels import load_levels
    from himac_lite.tasks.sokoban.playing import Session

    levels = load_levels(given.levels)
    if not 1 <= given.level <= len(levels):
        raise ConfigError(f"--level must be from 1 to {len(levels)}, not {given.level}")
    session = Session(levels, given.level - 1)
    terminal = sys.stdin.isatty()
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")  # empty means unset: https://no-color.org

    def show() -> None:
        if not given.json:
            clear = "\033[H\033[2J" if colour else ""
            say(f"{clear}{session.screen(colour)}")

    show()
    for key in _keys(terminal):
        session.press(key)
        show()
        if session.over:
            break
    return {"level": session.number + 1, "played": session.played, "solved": session.board.solved}


def _keys(terminal: bool) -> Iterator[str]:
    """Keys one by one: as they are pressed in a terminal, otherwise line by line."""
    from himac_lite.tasks.sokoban.playing import keys_of

    try:
        import termios
        import tty
    except ModuleNotFoundError:  # Windows
        terminal = False
    if not terminal:
        for line in sys.stdin:
            yield from keys_of(line)
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin, termios.TCSADRAIN)  # keeps the keys typed before
        while pressed := os.read(sys.stdin.fileno(), 64).decode("utf-8", "ignore"):
            yield from keys_of(pressed)
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
