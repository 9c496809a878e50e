"""The command line: ``himac-lite train · evaluate · reproduce · sft · export …``.

One module a command.

A command's module has `HELP`, `arguments(parser)`, which says what it takes and which function runs it, and that
function, which returns what ``--json`` prints. All of them print with `console`. Exit code 0; 2 with one clear line
for anything the user can put right; 130 for Ctrl-C, with the run resumable.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import traceback
import warnings
from collections.abc import Sequence

from himac_lite import __version__
from himac_lite.cli import bench, doctor, evaluate, export, levels, memory, play, pretrain, reproduce, sft, train
from himac_lite.cli.console import finish, note, prepare, say
from himac_lite.errors import ConfigError, HimacError, first_line

COMMANDS = {
    "train": train, "evaluate": evaluate, "reproduce": reproduce, "pretrain": pretrain, "sft": sft, "export": export,
    "memory": memory, "levels": levels, "play": play, "bench": bench, "doctor": doctor,
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, and turn errors into a line and an exit code."""
    prepare()
    try:
        code = _run(argv)
    finally:  # also after ``--help``, which leaves by an exception
        failed = finish()
    if failed is None or isinstance(failed, BrokenPipeError) or code:
        return code
    return _fail(f"the output cannot be written: {failed.strerror}", 2)


def _run(argv: Sequence[str] | None) -> int:
    given = argparse.Namespace()
    try:
        given = _parser().parse_args(argv)
        _check_environment()
        result = given.run(given)
        if getattr(given, "json", False) and not getattr(given, "prints", False):
            say(json.dumps(result))
    except HimacError as error:
        return _fail(str(error), 2)
    except ModuleNotFoundError as error:
        return _fail(f"{error.name} is not installed: pip install 'himac-lite[train,qlora]'", 2)
    except BrokenPipeError:
        return 0
    except KeyboardInterrupt:
        return _fail(f"interrupted{_resume_hint(given)}", 130)
    except Exception as error:
        if line := _import_failed(error):
            return _fail(line, 2)
        if isinstance(error, OSError):
            return _fail(f"{error.filename or 'file'}: {error.strerror or error}", 2)
        raise
    return 0


def _fail(message: str, code: int) -> int:
    note(" ".join(message.splitlines()))
    return code


def _check_environment() -> None:
    """Settle what libraries read from the environment when they are first imported, which no command has done yet."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        value = os.environ.get(name, "").strip()
        if not value:
            os.environ.pop(name, None)
        elif not re.fullmatch(r"[1-9]\d{0,5}(,[1-9]\d{0,5})*", value):
            raise ConfigError(f"{name} in the environment must be a whole number from 1, not {value!r:.80}: unset it")
    warnings.filterwarnings("error", "Environment variable 'NUMBA_")  # numba would print its traceback, and go on


def _import_failed(error: Exception) -> str | None:
    """A line about a dependency that raised this error while it was imported; None for any other error."""
    packages, importing = [], False
    for frame, _ in traceback.walk_tb(error.__traceback__):
        packages.append(frame.f_globals.get("__name__", "").partition(".")[0])
        importing |= frame.f_code.co_name == "<module>"
        if packages[-1] in ("himac_lite", "__main__"):
            packages, importing = [], False
    if not importing:
        return None
    said, prefixes = first_line(error), tuple(f"{name.upper()}_" for name in packages)
    suspects = [n for n, value in os.environ.items() if n.startswith(prefixes) or (value and repr(value) in said)]
    advice = f"unset {' and '.join(suspects)}, or install it again" if suspects else "install it again"
    return f"{packages[0]} cannot be imported ({type(error).__name__}: {said}): {advice}"


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
