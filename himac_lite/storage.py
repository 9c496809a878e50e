"""Files that survive: written beside, flushed to the disk, renamed; read with limits; every failure one clear line.

A file may be damaged, or come from a stranger: names that lead elsewhere, links, endless files and JSON of another
shape raise `RunError`, never another exception.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from himac_lite.errors import RunError

MAX_BYTES = 64_000_000
"""The largest JSON file, and the longest line of a file of JSON lines, that is read."""


def data_dir() -> Path:
    """Folder of the shipped levels, models and runs: beside the package in a checkout, inside it in a wheel."""
    inside = Path(__file__).resolve().parent / "_data"
    return inside if inside.is_dir() else Path(__file__).resolve().parents[1] / "data"


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an OSError into one clear line; what was written before stays."""
    try:
        yield
    except OSError as error:
        raise RunError(f"cannot write to {path}: {error.strerror or error}; what was written before is kept") from None


@contextlib.contextmanager
def beside(target: Path) -> Iterator[Path]:
    """A path next to `target` to write a file or a folder to; at the end it is flushed and renamed onto `target`.

    After an error, or a kill while it is written, `target` is as it was. ``.NAME.tmp`` and ``.NAME.old`` belong to this
    function: what a kill has left there is removed. Raises `RunError` where the disk does not allow it.
    """
    made, old = (target.with_name(f".{target.name}.{end}") for end in ("tmp", "old"))
    with explained(target):
        try:
            discard(made)  # a link that lies there would be written through
            yield made
            _flush(made, inside=True)
            is_folder = made.is_dir()
            if is_folder and target.is_dir():  # a folder cannot be renamed onto another one: the old one steps aside
                discard(old)
                target.rename(old)
            made.replace(target)
            _flush(target.parent)
            if is_folder:
                discard(old)
        finally:
            with contextlib.suppress(OSError):
                discard(made)


def write(file: Path, text: str) -> None:
    """The file has the whole text or stays as it was, whenever the process or the machine stops."""
    with beside(file) as made:
        made.write_text(text, "utf-8", newline="\n")


def refuse_unwritable(folder: Path) -> None:
    """Raise `RunError` if nothing can be written in a folder that exists, or that is yet to be made.

    Long work calls it first: its result must not meet a closed door.
    """
    path = folder.absolute()
    there = next(place for place in (path, *path.parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        what = "is read-only" if there.is_dir() else "is not a folder"
        raise RunError(f"cannot write to {folder}: {there} {what}; choose another one")


def discard(path: Path) -> None:
    """Remove a file or a folder; a folder is renamed first: a kill in between leaves no half folder under its name."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        old = path.with_name(f".{path.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        path.rename(old)
        shutil.rmtree(old, ignore_errors=True)


def append(file: Path, line: str) -> None:
    """Add a line. A process that is killed meanwhile leaves a torn last line, which `read_lines` skips."""
    with explained(file), file.open("a", encoding="utf-8", newline="\n") as out:
        out.write(line + "\n")
        out.flush()
        os.fsync(out.fileno())


def _flush(path: Path, inside: bool = False) -> None:
    """Put a file, or a folder's entries, on the disk; `inside`: and all that the folder holds."""
    for found in (*(path.rglob("*") if inside else ()), path):
        if (folder := found.is_dir()) and os.name == "nt":  # Windows flushes files alone, and only those open to write
            continue
        handle = os.open(found, os.O_RDONLY if folder else os.O_RDWR)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object. Raises `RunError` with the file and what is wrong."""
    try:
        data = json.loads(_text(file))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"cannot read {file}: {error}") from None
    if not isinstance(data, dict):
        raise RunError(f"{file} should hold a JSON object")
    return data


def read_lines(file: Path) -> Iterator[dict[str, Any]]:
    """JSON objects, one a line; a torn last line (the process was killed while writing) is skipped.

    Raises `RunError` with the number of any other line that is not a JSON object.
    """
    number, bad = 0, ""
    try:
        with _opened(file) as lines:
            while line := lines.readline(MAX_BYTES + 1):
                if bad:
                    raise RunError(bad)
                number += 1
                try:
                    data = json.loads(line)
                except (ValueError, RecursionError) as error:
                    bad = f"{file}, line {number}: {error}; take the line out, or copy the file again"
                    continue
                if not isinstance(data, dict):
                    raise RunError(f"{file}, line {number} should hold a JSON object")
                yield data
    except FileNotFoundError:
        return
    except OSError as error:
        raise RunError(f"cannot read {file}: {error.strerror or error}") from None


def sha256(*files: Path, links: bool = False) -> str:
    """The hash of the files' bytes, one file after the other. links: whether to follow them.

    Raises `RunError` for anything but an ordinary file.
    """
    digest = hashlib.sha256()
    for file in files:
        try:
            with _opened(file, links) as data:
                while part := data.read(1 << 20):
                    digest.update(part)
        except OSError as error:
            raise RunError(f"{file.name}: {error.strerror or error}") from None
    return digest.hexdigest()


def lies_inside(name: Any) -> bool:
    """Whether a relative path such as ``a/b`` stays inside the folder that it is joined to, on every system."""
    if not isinstance(name, str) or len(name) > 1000:
        return False
    return all(0 < len(p) < 256 and not set(p) & set("\\:\0") and p not in (".", "..") for p in name.split("/"))


def _text(file: Path) -> str:
    with _opened(file) as data:
        found = data.read(MAX_BYTES + 1)
    if len(found) > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES // 1_000_000} MB")
    return str(found.decode("utf-8"))


def _opened(file: Path, links: bool = True) -> Any:
    """Open an ordinary file to read its bytes: a device has no end, and a pipe may never begin."""
    kind = (file.stat() if links else file.lstat()).st_mode
    if not stat.S_ISREG(kind):
        what = "a symbolic link" if stat.S_ISLNK(kind) else "a folder" if stat.S_ISDIR(kind) else "not an ordinary file"
        raise OSError(f"{file.name} is {what}")
    return file.open("rb")


@contextlib.contextmanager
def locked(folder: Path, wait: bool = False) -> Iterator[None]:
    """One process at a time: a second one waits, or gets a `RunError`. The lock ends with the process.

    Windows, and file systems without locks, run unlocked.
    """
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        yield
        return
    with explained(folder):
        handle = os.open(folder / ".lock", os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise RunError(f"another process is training {folder}; wait for it, or stop it first") from None
        except OSError:  # such as a network folder without locks
            pass
        yield
    finally:
        os.close(handle)
