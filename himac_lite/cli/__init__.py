"""The command line: ``himac-lite train · evaluate · reproduce · sft · export …``.

One module a command.

A command's module has `HELP`, `arguments(parser)`, which says what it takes and which function runs it, and that
function, which returns what ``--json`` prints. Exit code 0; 2 with one clear line for anything the user can put right;
130 for Ctrl-C, with the run resumable.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence

from himac_lite import __version__
from himac_lite.cli import bench, doctor, evaluate, export, levels, memory, play, pretrain, reproduce, sft, train
from himac_lite.errors import HimacError

COMMANDS = {
    "train": train, "evaluate": evaluate, "reproduce": reproduce, "pretrain": pretrain, "sft": sft, "export": export,
    "memory": memory, "levels": levels, "play": play, "bench": bench, "doctor": doctor,
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, and turn errors into a line and an exit code."""
    # Read by OpenMP when torch is first imported, which no command has done yet.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    given = _parser().parse_args(argv)
    try:
        result = given.run(given)
    except HimacError as error:
        return _fail(str(error), 2)
    except ModuleNotFoundError as error:
        return _fail(f"{error.name} is not installed: pip install 'himac-lite[train,qlora]'", 2)
    except BrokenPipeError:
        return 0
    except OSError as error:
        return _fail(f"{error.filename or 'file'}: {error.strerror or error}", 2)
    except KeyboardInterrupt:
        return _fail(f"interrupted{_resume_hint(given)}", 130)
    if getattr(given, "json", False) and not getattr(given, "prints", False):
        print(json.dumps(result))
    return 0


def _fail(message: str, code: int) -> int:
    print(f"himac-lite: {' '.join(message.splitlines())}", file=sys.stderr)
    return code


def _resume_hint(given: argparse.Namespace) -> str:
    run = getattr(given, "active_run", None)
    begun = run and (run / "manifest.json").is_file()
    return f"; go on with: himac-lite train --resume {run}" if begun else ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "himac-lite", description="Hierarchical RL for LLM agents (HiMAC) on Sokoban, on a laptop."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="command")
    for name, command in COMMANDS.items():
        command.arguments(commands.add_parser(name, help=command.HELP))
    return parser
