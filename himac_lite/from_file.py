"""A value in the user's own file, named ``FILE.py:NAME``: a variant, or the world of a task.

A file is imported only where the user names it. A run's manifest names its file too, and that is never a reason to
import it: `runs.folder.Run` asks for the option again and compares the hash.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from himac_lite.errors import ConfigError, HimacError, checked

T = TypeVar("T")


@dataclass(frozen=True)
class Chosen(Generic[T]):
    """A value with its name. origin: what a manifest stores of it; None for what the library itself knows by name."""

    name: str
    value: T
    origin: dict[str, str] | None = None


@checked
def load(spec: str, kind: type[T]) -> tuple[T, dict[str, str]]:
    """Import FILE.py; returns the value NAME, and file, sha256 and name for a manifest.

    spec: ``FILE.py:NAME``. A function without arguments is called for the value. The same bytes are imported once per
    process. The file's folder is not added to `sys.path`.
    Raises `ConfigError` with one line for whatever prevents that.
    """
    path, _, name = spec.rpartition(":")  # the last colon, because of C:\my.py:NAME
    if not path or not name.isidentifier():
        raise ConfigError(f"{spec!r} should be FILE.py:NAME, where NAME is a plain Python name")
    file = Path(path)
    try:
        source = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror or error}") from None
    digest = hashlib.sha256(source).hexdigest()
    with _in_one_line(file):
        module = vars(_imported(file.resolve(), source, digest))
        value = module.get(name)
        if not isinstance(value, kind) and callable(value):
            value = value()
    if not isinstance(value, kind):
        there = ", ".join(n for n, v in module.items() if isinstance(v, kind)) or "none"
        what = f"is a {type(value).__name__}" if name in module else "does not exist"
        raise ConfigError(f"{spec} {what}; wanted is a {kind.__name__}, of which {file.name} has: {there}")
    return value, {"file": file.name, "sha256": digest, "name": name}


def _imported(file: Path, source: bytes, digest: str) -> ModuleType:
    title = f"{file}@{digest}"
    if title not in sys.modules:
        module = sys.modules[title] = ModuleType(title)  # registered first: dataclasses look their module up
        module.__file__ = str(file)
        try:
            exec(compile(source, str(file), "exec", dont_inherit=True), vars(module))
        except BaseException:
            del sys.modules[title]
            raise
    return sys.modules[title]


@contextlib.contextmanager
def _in_one_line(file: Path) -> Iterator[None]:
    try:
        yield
    except (Exception, SystemExit) as error:
        frames: list[Any] = list(traceback.walk_tb(error.__traceback__))
        lines = [number for frame, number in frames if frame.f_code.co_filename == str(file.resolve())]
        where = f"{file}, line {lines[-1]}" if lines else str(file)
        kind = "" if isinstance(error, HimacError) else f"{type(error).__name__}: "
        raise ConfigError(f"{where}: {kind}{' '.join(str(error).split())}") from error
