"""Errors that a user can fix, and the check of what users pass to public functions."""

from __future__ import annotations

import builtins
import inspect
import math
import numbers
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache, wraps
from types import NoneType, SimpleNamespace, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


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
    """A setting or an argument that is not allowed, or two that exclude each other."""


def first_line(error: Exception) -> str:
    """The first line of an exception's message, or its type if the message is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def checked(public: T) -> T:
    """A public function, or a class, that refuses arguments of another type than its annotations say.

    Raises `ConfigError` with the name, the annotation and the value. NumPy's numbers are numbers; a bool is no number,
    and nan is none. The function itself judges arrays, and what an annotation does not say.
    """
    if isinstance(public, type):
        public.__init__ = checked(public.__init__)  # type: ignore[misc]
        return public
    function: Any = public
    signature = inspect.signature(function)

    @wraps(function)
    def checking(*args: Any, **kwargs: Any) -> Any:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:  # Python's own message names the function, too
            return function(*args, **kwargs)
        for name, value in given.items():
            kind = _annotated(function, name)
            if not _fits(value, kind):
                one_of = f"one of {', '.join(get_args(kind))}" if get_origin(kind) is Literal else ""
                said = " ".join(repr(value).split())
                raise ConfigError(f"{name} must be {one_of or signature.parameters[name].annotation}, not {said:.80}")
        return function(*args, **kwargs)

    return checking  # type: ignore[return-value]


@cache
def _annotated(function: Any, name: str) -> Any:
    """The annotation of a parameter; Any if it has none."""
    parameter = inspect.signature(function).parameters[name]
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or parameter.annotation is parameter.empty:
        return Any
    alone = SimpleNamespace(__annotations__={name: parameter.annotation})
    return get_type_hints(alone, {}, _Names(function.__globals__))[name]


class _Names(dict[str, Any]):
    """The names of a module; Any for those that only type checkers import."""

    def __missing__(self, name: str) -> Any:
        return getattr(builtins, name, Any)


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of the type of an annotation."""
    if kind is Any:
        return True
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is Literal:
        return isinstance(value, str) and value in parts
    if kind in (int, float) and type(value) is bool:
        return False
    if kind is float:  # an integer of more than 64 bits cannot be multiplied with a tensor
        size: Any = abs(value) if isinstance(value, numbers.Real) else math.nan
        return bool(size < 2**63 or size == math.inf)
    if kind is int:
        return isinstance(value, numbers.Integral)
    if kind in (None, NoneType):
        return value is None
    if origin is Callable:
        return callable(value)
    if origin in (Sequence, Iterable) and isinstance(value, str | bytes | Mapping):
        return False
    if origin in (Sequence, Iterable) and isinstance(value, Collection):
        return isinstance(value, origin) and all(_fits(one, parts[0]) for one in value)
    if origin is Mapping and isinstance(value, Mapping):
        return all(_fits(key, parts[0]) and _fits(one, parts[1]) for key, one in value.items())
    if origin is tuple:
        return isinstance(value, tuple | list) and len(value) == len(parts) and all(map(_fits, value, parts))
    kind = origin or kind
    return not isinstance(kind, type) or getattr(kind, "_is_protocol", False) or isinstance(value, kind)
