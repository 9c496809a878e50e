"""Level files: XSB text, SOK collections, run-length encoding, Boxoban.

The reader makes one pass and keeps only the current level, so memory is bounded for a file of any length. A level that
cannot be played becomes an error in the output, and reading continues after it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from himac_lite.errors import LevelError
from himac_lite.types import Level

MAX_SIDE = 1_000
"""Maximum number of rows and columns of a level."""

_PLAIN = re.compile(r"(?=[^#]*#)[ #.$*@+_-]+")
_ENCODED = re.compile(r"(?=[^#]*#)[ #.$*@+_pPbB0-9|()-]+")
_GROUP = re.compile(r"([0-9]*)\(([^()]*)\)")
_RUN = re.compile(r"([0-9]*)([^0-9])")
_KEY = re.compile(r"([A-Za-z][A-Za-z -]*):(.*)")
_OPTIMAL = re.compile(r";\s*moves ([0-9]{1,9}), pushes ([0-9]{1,9})\s*$")
_ONE_LETTER = str.maketrans("-_pPbB", "  @+$*")
_CONTROL = re.compile("[\x00-\x08\x0e-\x19\x1b-\x1f]")


# Reading


@dataclass
class _Head:
    """The text before a board or below it."""

    title: str = ""
    author: str = ""
    comments: list[str] = field(default_factory=list)
    optimal: tuple[int | None, int | None] = (None, None)

    def take_key(self, key: str, value: str) -> None:
        if key == "title":
            self.title = value
        elif key == "author":
            self.author = value
        elif key == "comment" and value:
            self.comments.append(value)

    def take_comment(self, line: str) -> None:
        """Read a ``;`` comment or a text line: the optimal lengths, or the title if there is none yet, or a comment."""
        if found := _OPTIMAL.match(line):
            self.optimal = (int(found[1]), int(found[2]))
        elif not self.title:
            self.title = line.lstrip("; ").removeprefix("Title:").strip()
        else:
            self.comments.append(line.lstrip("; "))


def read_levels(lines: Iterable[str], source: str = "text") -> Iterator[Level | LevelError]:
    """The levels of a file in order; the place of an unreadable level has its error.

    Comments and ``Key: value`` lines before a board belong to it, and so do keys directly below it, with a comment
    block up to ``Comment-End:``. An ``Author:`` before the first board applies to every level without an author.
    """
    head, rows, whole = _Head(), list[str](), False  # rows of the current board; whether they come from one line
    ready: tuple[int, int, list[str]] | None = None  # (number, line, rows) of a board whose keys may follow
    collection_author, n, first, blank, binary, in_comment = "", 0, 0, False, False, False

    def finish() -> Level | LevelError:
        assert ready is not None
        try:
            return _checked(ready[2], head, collection_author)
        except LevelError as error:
            where = f"{source}, level {ready[0]} (line {ready[1]})"
            return LevelError(f"{where}: {error}", source, ready[0], ready[1])

    for number, line in enumerate(lines, 1):
        if in_comment:
            in_comment = not line.strip().lower().startswith("comment-end:")
            if in_comment:
                head.comments.append(line.rstrip())
            continue
        if _CONTROL.search(line):
            if not binary:
                message = f"{source}: not a text file; levels are XSB text in UTF-8 (line {number})"
                yield LevelError(message, source, None, number)
            binary, line = True, ""
        found = _rows_of_line(line)
        if rows and (not found or whole or len(found) > 1):
            n += 1
            ready, rows, blank = (n, first, rows), [], False
        if found:
            if ready:
                yield finish()
                head, ready = _Head(), None
            first = first if rows else number
            whole = len(found) > 1
            rows += found if len(rows) <= MAX_SIDE else []
            continue
        text, key = line.strip(), _KEY.match(line)
        if ready and not (key and not blank):  # only keys directly below still belong to the board
            yield finish()
            head, ready = _Head(), None
        if key:
            name, value = key[1].strip().lower(), key[2].strip()
            in_comment = name == "comment" and not value
            head.take_key(name, value)
            if name == "author" and n == 0:
                collection_author = value
        elif text:
            if blank and not text.startswith(";") and n == 0:
                head = _Head()  # the text above described the collection
            head.take_comment(text)
        blank = not text
    if rows:
        n += 1
        ready = (n, first, rows)
    if ready:
        yield finish()
    if n == 0 and not binary:
        yield LevelError(f"{source}: no level found. A level is lines of # . $ * @ + and spaces.", source)


def _rows_of_line(line: str) -> list[str]:
    """The rows of a line: one, several separated by ``|``, or none if the line is not part of a board.

    Run lengths (``3#``, ``2(-#)``) and letters (``p`` player, ``b`` box, capitals on a target) are accepted only if
    every row begins and ends with a wall, so that a comment is not read as a board.
    """
    line = line.rstrip()
    if _PLAIN.fullmatch(line):
        return [line.translate(_ONE_LETTER).rstrip()]
    if not _ENCODED.fullmatch(line):
        return []
    for _ in range(4):  # groups may be nested, up to four deep
        line = _GROUP.sub(lambda g: g[2] * min(int(g[1][:5] or 1), MAX_SIDE) if len(g[2]) <= MAX_SIDE else "?", line)
        if len(line) > MAX_SIDE * MAX_SIDE:
            return []
    rows = []
    for part in line.strip("|").split("|"):
        if _RUN.sub("", part):
            return []  # a number at the end
        row = "".join(run[2] * min(int(run[1][:5] or 1), MAX_SIDE + 1) for run in _RUN.finditer(part))
        row = row.translate(_ONE_LETTER).rstrip()
        if not row.lstrip().startswith("#") or not row.endswith("#") or not _PLAIN.fullmatch(row):
            return []
        rows.append(row[: MAX_SIDE + 1])
    return rows


def _checked(rows: Sequence[str], head: _Head, author: str) -> Level:
    """The level. Raises `LevelError` with the reason only."""
    width = max(map(len, rows))
    if max(len(rows), width) > MAX_SIDE:
        raise LevelError(f"over {MAX_SIDE:,} rows or columns")
    grid = tuple(row.ljust(width) for row in rows)
    text = "".join(grid)
    players, boxes = text.count("@") + text.count("+"), text.count("$") + text.count("*")
    targets = text.count(".") + text.count("*") + text.count("+")
    if players != 1:
        raise LevelError(f"{players} players (@ or +); a level has exactly one")
    if boxes != targets or boxes == 0:
        raise LevelError(f"{boxes} boxes but {targets} targets; a level has as many of each, at least one")
    return Level(enclosed(grid), head.title, *head.optimal, head.author or author, tuple(head.comments))


def enclosed(grid: tuple[str, ...]) -> tuple[str, ...]:
    """Fill unreachable cells with walls. Raises `LevelError` for an opening to the outside."""
    height, width = len(grid), len(grid[0])
    start = next((r, c) for r in range(height) for c in range(width) if grid[r][c] in "@+")
    seen, stack = {start}, [start]
    while stack:
        r, c = stack.pop()
        if r in (0, height - 1) or c in (0, width - 1):
            raise LevelError(f"open to the outside at row {r}, column {c}; walls must enclose the player")
        for cell in ((r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1)):
            if cell not in seen and grid[cell[0]][cell[1]] != "#":
                seen.add(cell)
                stack.append(cell)
    filled = tuple(
        "".join(ch if (r, c) in seen or ch != " " else "#" for c, ch in enumerate(row)) for r, row in enumerate(grid)
    )
    border = filled[0] + filled[-1] + "".join(row[0] + row[-1] for row in filled)
    if border.strip("#"):
        raise LevelError("a box or target lies outside the walls; the border of a level is all wall")
    return filled


# Writing


def format_levels(levels: Iterable[Level]) -> str:
    """Levels as XSB text: title and optimal lengths in comment lines before each board, author and comments below.

    The text reads back to equal levels if title and author are single lines, no comment is ``Comment-End:``, and either
    both optimal lengths are known or neither is.
    """
    blocks = []
    for level in levels:
        title, author = " ".join(level.title.split()), " ".join(level.author.split())
        plain = not title or (
            title == title.lstrip("; ") and not _KEY.match(title) and not _OPTIMAL.match(f"; {title}")
        )
        lines = [f"; {title}"] if title and plain else []
        if level.optimal_moves is not None and level.optimal_pushes is not None:
            lines.append(f"; moves {level.optimal_moves}, pushes {level.optimal_pushes}")
        lines += level.rows
        lines += [] if plain else [f"Title: {title}"]
        lines += [f"Author: {author}"] if author else []
        lines += ["Comment:", *level.comments, "Comment-End:"] if level.comments else []
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)
