"""The client of the engine: the server process, started on first use, and one connection per episode."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from himac_lite import storage
from himac_lite.errors import TaskError

ANSWER = 180.0
"""Seconds to wait for an answer; the server ends an episode after 120 seconds without an answer."""
START = 120.0
"""Seconds to wait for the server to start."""


@dataclass(frozen=True)
class State:
    """The engine's state after a command."""

    seen: str
    commands: tuple[str, ...]
    """Admissible commands, sorted."""
    won: bool
    pid: int
    """The episode's process."""


class Lost(Exception):
    """The episode's process ended, or the game could not be loaded. The message says why."""


class Engine:
    """The server process. Use `engine()`, which shares one."""

    def __init__(self) -> None:
        if os.name != "posix" or find_spec("alfworld") is None or find_spec("textworld") is None:
            raise TaskError("ALFWorld is not installed: pip install 'himac-lite[alfworld]' (Linux or macOS)")
        self._folder = Path(tempfile.mkdtemp(prefix="himac-alfworld-"))
        self._said = (self._folder / "log").open("w+b")
        # Importing the engine creates its data folder, so without $ALFWORLD_DATA it gets a temporary one. The engine
        # lists objects in the order of a set, so a fixed hash seed makes its texts repeatable.
        data = os.environ.get("ALFWORLD_DATA") or str(self._folder)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "himac_lite.tasks.alfworld.server", str(self.address)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said,
            env={**os.environ, "ALFWORLD_DATA": data, "PYTHONPATH": _search_path(), "PYTHONHASHSEED": "0"},
        )  # fmt: skip
        atexit.register(self.close)
        waker = threading.Timer(START, self.process.kill)
        waker.start()
        try:
            ready = self.process.stdout.readline() if self.process.stdout else b""
        finally:
            waker.cancel()
        if ready != b"ready\n":
            said = (self._folder / "log").read_text("utf-8", "replace").strip().splitlines()
            self.close()
            raise TaskError(f"ALFWorld's engine did not start: {said[-1] if said else 'no message'}")

    @property
    def address(self) -> Path:
        return self._folder / "socket"

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def close(self) -> None:
        """Stop the server and all its episodes."""
        with contextlib.suppress(OSError):
            if self.process.stdin:
                self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(2)
        self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()
        self._said.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        atexit.unregister(self.close)


def _search_path() -> str:
    """PYTHONPATH of the server: the folder of this package comes first, so that server and client are one version."""
    mine = str(Path(storage.__file__).resolve().parents[1])
    return os.pathsep.join([mine, *filter(None, [os.environ.get("PYTHONPATH")])])


_lock = threading.Lock()
_engine: Engine | None = None


def engine() -> Engine:
    """The running server; starts one if none is running. Raises `TaskError` if it cannot start."""
    global _engine
    with _lock:
        if _engine is None or not _engine.alive:
            if _engine is not None:
                _engine.close()
            _engine = Engine()
        return _engine


class Connection:
    """One episode of one game, in its own process, which ends with this object."""

    def __init__(self, game: Mapping[str, Any]) -> None:
        """game: the first message to `server`. Raises `TaskError` without an engine, `Lost` without the game."""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(ANSWER)
        self._lines = self._socket.makefile("rw", encoding="utf-8", newline="\n")
        try:
            self._socket.connect(str(engine().address))
        except OSError as error:
            raise Lost(f"the engine does not answer: {error}") from None
        self.state = self._next(game)

    def act(self, command: str) -> State:
        """Execute a command. Raises `Lost`."""
        self.state = self._next({"act": command})
        return self.state

    def plan(self) -> list[str]:
        """Commands of the engine's own planner from the current state; slow in a large house. Raises `Lost`."""
        return list(self._ask({"plan": True})["plan"])

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._lines.close()
            self._socket.close()

    def __del__(self) -> None:
        self.close()

    def _ask(self, what: Mapping[str, Any]) -> dict[str, Any]:
        try:
            self._lines.write(json.dumps(what) + "\n")
            self._lines.flush()
            line = self._lines.readline()
        except (OSError, ValueError) as error:
            raise Lost(f"the game's process does not answer: {error}") from None
        if not line:
            raise Lost("the game's process has ended")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Lost(f"the engine cannot load the game: {answer['error']}")
        return answer

    def _next(self, what: Mapping[str, Any]) -> State:
        answer = self._ask(what)
        return State(answer["seen"], tuple(answer["commands"]), answer["won"], answer["pid"])
