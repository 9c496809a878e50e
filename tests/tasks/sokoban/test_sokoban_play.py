"""`himac-lite play` through a pipe, in a pseudo-terminal, and key by key."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from himac_lite import cli
from himac_lite.tasks.sokoban.levels import parse_levels
from himac_lite.tasks.sokoban.playing import Session, keys_of
from himac_lite.tasks.sokoban.rules import board_from_level

TEXT = "; one\n######\n#@ $.#\n######\n\n; two\n#####\n#.$@#\n#####\n"
ROOT = Path(__file__).resolve().parents[3]


def test_undo_restart_next_and_quit():
    session = Session(parse_levels(TEXT))
    for key in ("d", "d", "d"):  # right, push, and nothing more: it is solved
        session.press(key)
    assert (session.played, session.board.solved) == ("rR", True)
    session.press("u")
    assert (session.played, session.board.solved) == ("r", False)
    session.press("w")  # into a wall: no move
    assert session.played == "r"
    session.press("r")
    assert session.played == ""
    session.press("u")
    assert session.played == ""
    session.press("n")
    assert (session.number, session.board) == (1, board_from_level(parse_levels(TEXT)[1]))
    session.press("\033[D")
    assert session.played == "L"
    session.press("n")
    assert session.number == 0, "after the last comes the first"
    session.press("p")
    assert session.number == 1
    session.press("?")
    assert not session.over
    session.press("q")
    assert session.over


def test_keys_of_a_text():
    assert keys_of("d\033[A x\n\033[D") == ["d", "\033[A", "x", "\033[D"]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "two.xsb"
    path.write_text(TEXT)
    return str(path)


def test_through_a_pipe(file, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("d d\nq\n"))
    assert cli.main(["play", file]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("level 1 of 2 one\n######\n#@ $.#\n######\nmoves 0, pushes 0\n")
    assert "solved: rR" in shown
    monkeypatch.setattr(sys, "stdin", io.StringIO("ndl"))  # the pipe ends without q
    assert cli.main(["play", file, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"level": 2, "played": "", "solved": False}


def test_no_such_level(file, capsys):
    assert cli.main(["play", file, "--level", "3"]) == 2
    assert "--level must be from 1 to 2, not 3" in capsys.readouterr().err


def test_in_a_terminal(file):
    """Keys count as they are pressed, and the terminal is as it was afterwards."""
    pty, termios = pytest.importorskip("pty"), pytest.importorskip("termios")
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    command = [sys.executable, "-m", "himac_lite.cli", "play", file]
    playing = subprocess.Popen(command, cwd=ROOT, stdin=theirs, stdout=subprocess.PIPE, text=True)
    os.write(ours, b"\033[Cdq")
    shown, _ = playing.communicate(timeout=60)
    assert playing.returncode == 0
    assert "solved: rR" in shown
    assert termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)
