"""The one exception a person is meant to read."""

from __future__ import annotations


class HimacError(Exception):
    """Something the user can put right: the message names the file or value and what is allowed.

    The command line prints it as one line and exits with code 2.
    """


class LevelError(HimacError, ValueError):
    """A level, or a file of levels, that cannot be read.

    source: the file, where it comes from one; level: its number in the file, from 1; line: where in the file the level
    begins, from 1. The message says them too.
    """

    def __init__(
        self, message: str, source: str | None = None, level: int | None = None, line: int | None = None
    ) -> None:
        super().__init__(message)
        self.source, self.level, self.line = source, level, line


class TaskError(HimacError, ValueError):
    """A catalogue, a goal or a game that cannot be read, or an environment that does not answer."""


class ModelError(HimacError, ValueError):
    """A path that is no model, or a model that cannot play this role."""


class RunError(HimacError):
    """A run folder that cannot be written, read or resumed."""


class ConfigError(HimacError, ValueError):
    """A setting outside what is allowed, or two settings that exclude each other."""
