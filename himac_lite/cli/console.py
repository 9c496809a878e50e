"""The streams of a command: the one place that prints."""

from __future__ import annotations

import contextlib
import io
import os
import sys


def prepare() -> None:
    """Make the streams safe for any text: print and read what an encoding lacks as a replacement character.

    A stream that the caller has closed (``>&-``) becomes the null device.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):  # Jupyter's streams are not, and take any text
            stream.reconfigure(errors="replace")


def say(text: str) -> None:
    """Print to standard output, at once."""
    print(text, flush=True)


def note(text: str) -> None:
    """Print a message about the work to standard error. If it cannot be written, the work continues without it."""
    with contextlib.suppress(OSError):
        print(f"himac-lite: {text}", file=sys.stderr, flush=True)


def finish() -> OSError | None:
    """Flush standard output; returns the error if that fails. Python itself would only report it after its exit code.

    What is left is discarded.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return error
    return None
