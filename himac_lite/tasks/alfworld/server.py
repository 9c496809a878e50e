"""The server of the engine: a process that imports the engine once and forks one process per episode.

``python -m himac_lite.tasks.alfworld.server SOCKET`` listens on a Unix socket and prints ``ready``. The first line of a
connection names a game. A *template* process loads that game once and forks a child for each episode, so the members of
a group share the loading time, which is most of an episode. A crash or an endless search in a child ends only that
child. The server ends when its standard input closes, which happens when the client's process ends.

Messages are lines of JSON. The client sends ``{"problem", "task", "thing", "receptacle", "title"}`` or ``{"file"}``,
then ``{"act": command}`` or ``{"plan": true}``. The answers are ``{"seen", "commands", "won", "pid"}``, ``{"plan"}`` or
``{"error"}``.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
from collections import OrderedDict
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from himac_lite.tasks.alfworld.quick import quicken

MAX_TEMPLATES = 16
"""Maximum number of loaded games, each in its own process."""
LIMIT = 120
"""Seconds for one answer of the engine; after that the child is killed."""


def game_of(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The engine's game, from a file or from our problem with the domain, grammar and goal of `alfworld`."""
    if "file" in asked:
        game = json.loads(Path(asked["file"]).read_text("utf-8"))
        if not isinstance(game, dict) or not {"pddl_domain", "pddl_problem", "grammar"} <= set(game):
            raise ValueError("it has no pddl_domain, pddl_problem and grammar")
        return game
    from alfworld.gen.goal_library import gdict
    from alfworld.info import ALFRED_PDDL_PATH, ALFRED_TWL2_PATH

    goal = gdict[asked["task"]]["pddl"].format(obj=asked["thing"], recep=asked["receptacle"], toggle="DeskLamp")
    return {
        "pddl_domain": Path(ALFRED_PDDL_PATH).read_text("utf-8"),
        "grammar": Path(ALFRED_TWL2_PATH).read_text("utf-8").replace("UNKNOWN GOAL", asked["title"]),
        "pddl_problem": asked["problem"].replace("GOAL", goal.replace("#", "-")),
    }


class Game:
    """One game in the engine."""

    def __init__(self, asked: Mapping[str, Any]) -> None:
        import textworld
        from alfworld.agents.environment.alfred_tw_env import AlfredDemangler
        from textworld.envs.pddl import PddlEnv

        infos = textworld.EnvInfos(won=True, admissible_commands=True)
        self.env = AlfredDemangler(PddlEnv(infos), shuffle=False)
        self.engine = self.env.unwrapped
        self.env.load(game_of(asked))
        self.state = self.env.reset()

    def answer(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        if "plan" in asked:
            return {"plan": self.engine._pddl_state.replan(self.engine._entity_infos)}
        if "act" in asked:
            self.state, _, _ = self.env.step(str(asked["act"]))
        return {
            "seen": self.state["feedback"], "commands": list(self.state["admissible_commands"]),
            "won": bool(self.state["won"]), "pid": os.getpid(),
        }  # fmt: skip


def serve(connection: socket.socket, game: Game) -> None:
    """Serve one episode until the connection closes."""
    with connection.makefile("rw", encoding="utf-8", newline="\n") as lines:
        asked: Mapping[str, Any] = {}
        while True:
            signal.alarm(LIMIT)
            _write(lines, game.answer(asked))
            signal.alarm(0)
            line = lines.readline()
            if not line:
                return
            asked = json.loads(line)


def _write(lines: Any, answer: Mapping[str, Any]) -> None:
    lines.write(json.dumps(answer) + "\n")
    lines.flush()


def _template(control: socket.socket, asked: Mapping[str, Any]) -> None:
    """Load a game, then fork a child for every connection that arrives, until the control socket closes."""
    signal.alarm(LIMIT)
    try:
        game, error = Game(asked), ""
    except Exception as problem:  # a broken file can raise anything in the engine
        game, error = None, f"{type(problem).__name__}: {problem}"
    signal.alarm(0)
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not data:
            return
        connection = socket.socket(fileno=descriptors[0])
        if game is None:
            with connection.makefile("w", encoding="utf-8", newline="\n") as lines:
                _write(lines, {"error": error.splitlines()[0][:500]})
        elif os.fork() == 0:
            control.close()
            serve(connection, game)
            return
        connection.close()


def main(path: str) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombie processes
    for module in ("alfworld.agents.environment.alfred_tw_env", "alfworld.gen.goal_library", "textworld.envs.pddl"):
        import_module(module)  # once, shared by all forked processes
    quicken()

    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen(1024)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    os.dup2(2, 1)  # the engine's output goes to the log, because the client stops reading the pipe
    templates: OrderedDict[str, socket.socket] = OrderedDict()
    while True:
        ready, _, _ = select.select([listening, sys.stdin], [], [])
        if sys.stdin in ready:  # nothing is ever written to it, so it has closed
            return
        connection, _ = listening.accept()
        named = _first_line(connection)
        control = templates.pop(named, None)
        if control is None:
            control, theirs = socket.socketpair()
            if os.fork() == 0:
                for other in (listening, connection, control, *templates.values()):
                    other.close()
                _template(theirs, json.loads(named))
                os._exit(0)
            theirs.close()
        try:
            socket.send_fds(control, [b"c"], [connection.fileno()])
            templates[named] = control
        except OSError:  # the template died; the client sees the end of the connection
            control.close()
        connection.close()
        while len(templates) > MAX_TEMPLATES:
            templates.popitem(last=False)[1].close()


def _first_line(connection: socket.socket) -> str:
    """The line that names the game, read byte by byte: the rest of the connection belongs to the child."""
    out = bytearray()
    while (byte := connection.recv(1)) and byte != b"\n":
        out += byte
    return out.decode()


if __name__ == "__main__":
    main(sys.argv[1])
