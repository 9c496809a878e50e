"""Errors that a user can fix."""

from __future__ import annotations


class HimacError(Exception):
    """An error that the user can fix. The message names the file or value and what is allowed.

    The command line prints the message on one line and exits with code 2.
    """


class LevelError(HimacError, ValueError):
    """A level or a file of levels that cannot be read.

    source: the file, or None. level: the level's number in the file, from 1. line: the level's first line, from 1.
    """

    def __init__(
        self, message: str, source: str | None = None, level: int | None = None, line: int | None = None
    ) -> None:
        super().__init__(message)
        self.source, self.level, self.line = source, level, line


class TaskError(HimacError, ValueError):
    """A catalogue, goal or game that cannot be read, or an environment that does not answer."""


class ModelError(HimacError, ValueError):
    """A path without a usable model, or a model that cannot play a role."""


class RunError(HimacError):
    """A run folder that cannot be written, read or resumed."""


class ConfigError(HimacError, ValueError):
    """A setting that is not allowed, or two settings that exclude each other."""


def first_line(error: Exception) -> str:
    """The first line of an exception's message, or its type if the message is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
