"""Level files as text: XSB, SOK collections, run-length encoding, Boxoban. docs/levels.md lists the dialects.

The reader makes one pass and keeps only the current level with the text after it, so memory is bounded for a file of
any length. A level that cannot be played becomes an error in the output, and reading continues after it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from himac_lite.errors import LevelError
from himac_lite.types import Level

MAX_SIDE = 1_000
"""Maximum number of rows and columns of a level, and of lines of text with it."""
ALLOWED = "# . $ * @ + and spaces"

_PLAIN = re.compile(r"(?=[^#]*#)[ #.$*@+_-]+")
_ENCODED = re.compile(r"(?=[^#]*#)[ #.$*@+_pPbB0-9|()-]+")
_GROUP = re.compile(r"([0-9]*)\(([^()]*)\)")
_RUN = re.compile(r"([0-9]*)([^0-9])")
_KEY = re.compile(r"([A-Za-z][A-Za-z -]*):(.*)")
_OPTIMAL = re.compile(r";\s*moves ([0-9]{1,9}), pushes ([0-9]{1,9})\s*$")
_ONE_LETTER = str.maketrans("-_pPbB", "  @+$*")
_CONTROL = re.compile("[\x00-\x08\x0e-\x19\x1b-\x1f]")
_BLANK = re.compile("[\\s\u200b\ufeff]")
_UNKNOWN = re.compile(r"[^ #.$*@+_-]")
_WORD = re.compile(r"([^\W\d_])(?!\1)[^\W\d_]")
"""Two different letters in a row: a line that has them is text, even between walls."""
_MOVES = re.compile(r"[lurdLURD*\[\]{} ]+")
_SOLUTION = re.compile(r"(reverse mode )?(solution|snapshot|saved game)\b", re.IGNORECASE)


# Reading


@dataclass
class Head:
    """What the text around a board says about it. tight: the title stands directly above the board."""

    title: str = ""
    author: str = ""
    comments: list[str] = field(default_factory=list)
    optimal: tuple[int | None, int | None] = (None, None)
    tight: bool = False

    def read(self, lines: Sequence[str], is_title: bool = False) -> None:
        """Take keys, optimal lengths and comments from the lines, without solutions. is_title: and the title."""
        in_comment = after_solution = False
        for line in lines:
            text, key = line.strip(), _KEY.match(line)
            after_solution = bool(_SOLUTION.match(text) or (after_solution and _MOVES.fullmatch(text)))
            if in_comment:
                in_comment = not _ends_comment(line)
                self._note(line.rstrip() if in_comment else None)
            elif key:
                name, value = key[1].strip().lower(), key[2].strip()
                in_comment = name == "comment" and not value
                self.title = value if name == "title" else self.title
                self.author = value if name == "author" else self.author
                self._note(value if name == "comment" and value else None)
            elif found := _OPTIMAL.match(text):
                self.optimal = (int(found[1]), int(found[2]))
            elif is_title and text:
                self.title, is_title = text.lstrip("; ").removeprefix("Title:").strip(), False
            elif not after_solution:
                self._note(text.lstrip("; ") or None)

    def _note(self, line: str | None) -> None:
        if line is not None and len(self.comments) < MAX_SIDE:
            self.comments.append(line)


@dataclass
class Board:
    """The rows of a board as they stand in a file, and what is known about it."""

    head: Head
    line: int
    rows: list[str] = field(default_factory=list)
    unknown: str = ""
    """The first character that is not allowed, and where it is."""

    def level(self, author: str) -> Level:
        """The level. author: if the text around the board has none. Raises `LevelError` with the reason only."""
        if self.unknown:
            raise LevelError(self.unknown)
        width = max(map(len, self.rows), default=0)
        if max(len(self.rows), width) > MAX_SIDE:
            raise LevelError(f"over {MAX_SIDE:,} rows or columns")
        grid, head = tuple(row.ljust(width) for row in self.rows), self.head
        text = "".join(grid)
        players, boxes = text.count("@") + text.count("+"), text.count("$") + text.count("*")
        targets = text.count(".") + text.count("*") + text.count("+")
        if players != 1:
            raise LevelError(f"{players} players (@ or +); a level has exactly one")
        if boxes != targets or boxes == 0:
            raise LevelError(f"{boxes} boxes but {targets} targets; a level has as many of each, at least one")
        return Level(enclosed(grid), head.title, *head.optimal, head.author or author, tuple(head.comments))

    def add(self, row: str, line: int, column: int = 1) -> None:
        """A row, which begins at this place of the file."""
        if len(self.rows) <= MAX_SIDE:
            if (bad := _UNKNOWN.search(row)) and not self.unknown:
                self.unknown = f"line {line}, column {column + bad.start()}: {_named(bad[0])} is not one of {ALLOWED}"
            self.rows.append(row[: MAX_SIDE + 1].translate(_ONE_LETTER).rstrip())

    def outcome(self, author: str, source: str, number: int) -> Level | LevelError:
        """The level, or the error with its place. number: of the level in the file, from 1."""
        try:
            return self.level(author)
        except LevelError as error:
            where = f"{source}, level {number} (line {self.line})"
            return LevelError(f"{where}: {error}", source, number, self.line)


@dataclass
class _Block:
    """Lines of text without a blank line. below: they begin directly below a board."""

    below: bool
    lines: list[str] = field(default_factory=list)

    @property
    def is_comment(self) -> bool:
        return all(line.lstrip().startswith(";") for line in self.lines)

    @property
    def has_title_key(self) -> bool:
        return any(line.lower().startswith("title:") for line in self.lines)


class _Reader:
    """Boards and the blocks of text between them; a block belongs to the board above it or to the next one."""

    def __init__(self, source: str) -> None:
        self.source, self.n, self.author = source, 0, ""
        self.board: Board | None = None
        """The last board; the text that follows may belong to it."""
        self.blocks: list[_Block] = []
        self.inside = self.whole = self.apart = self.binary = False
        """The last line was a row; it was a whole level; it was blank; there was a line that is not text."""
        self.comment = 0
        """The line of a ``Comment:`` without its end yet."""

    def take(self, number: int, line: str) -> Iterator[Level | LevelError]:
        if self.comment:
            self._write(line)
            self.comment = 0 if _ends_comment(line) else self.comment
            return
        if _CONTROL.search(line):
            if not self.binary:
                yield from self._finish()
                message = f"{self.source}: not a text file; levels are XSB text in UTF-8 (line {number})"
                yield LevelError(message, self.source, None, number)
            self.binary, line = True, ""
        rows = _rows_of_line(line, self.inside)
        if rows:
            if not self.inside or self.whole or len(rows) > 1:
                head = self._divide(True)
                yield from self._finish()
                self.board = Board(head, number)
            assert self.board is not None
            self.inside, self.whole, self.apart = True, len(rows) > 1, False
            for row in rows:
                self.board.add(row, number)
            return
        if line.strip() and not line.startswith("::"):
            self._write(line, new=self.inside or self.apart or not self.blocks)
            key = _KEY.match(line)
            self.comment = number if key and key[1].strip().lower() == "comment" and not key[2].strip() else 0
            self.apart = False
        else:
            self.apart = True
        self.inside = False

    def end(self) -> Iterator[Level | LevelError]:
        self._divide(False)
        yield from self._finish()
        if self.comment:
            message = f"{self.source}: the Comment: of line {self.comment} has no Comment-End:"
            yield LevelError(message, self.source, None, self.comment)
        elif self.n == 0 and not self.binary:
            yield LevelError(f"{self.source}: no level found. A level is lines of {ALLOWED}.", self.source)

    def _write(self, line: str, new: bool = False) -> None:
        if new:
            if len(self.blocks) > 1:  # only the last one can belong to the next board
                self._keep(self.blocks.pop(0))
            self.blocks.append(_Block(self.inside))
        if len(self.blocks[-1].lines) < MAX_SIDE:
            self.blocks[-1].lines.append(line)

    def _finish(self) -> Iterator[Level | LevelError]:
        if self.board:
            self.n += 1
            yield self.board.outcome(self.author, self.source, self.n)
        self.board = None

    def _divide(self, more: bool) -> Head:
        """Give the blocks since the last board to it and to the next one, whose head this is. more: there is a next."""
        blocks, head = self.blocks, Head()
        self.blocks = []
        if more and blocks and self._announces(blocks[-1], alone=len(blocks) == 1):
            head.tight = not self.apart
            head.read(blocks[-1].lines, is_title=True)
            if self.board is None:
                self.author = head.author or self.author
            blocks = blocks[:-1]
        for block in blocks:
            self._keep(block, alone=more and len(blocks) == 1)
        return head

    def _announces(self, block: _Block, alone: bool) -> bool:
        """Whether the last block before a board belongs to it."""
        if not self.apart:
            return True
        if block.below:
            return block.is_comment and not self._names(block, alone)
        if len(block.lines) == 1:
            return block.has_title_key or not _KEY.match(block.lines[0])
        return self.board is not None and (block.is_comment or block.has_title_key)

    def _names(self, block: _Block, alone: bool) -> bool:
        """Whether comments directly below a board hold its title. alone: no other text precedes the next board."""
        board = self.board
        if board is None or not (block.below and block.is_comment):
            return False
        return not board.head.title or (self.n == 0 and alone and not board.head.tight)

    def _keep(self, block: _Block, alone: bool = False) -> None:
        """A block belongs to the board above it, or describes the collection."""
        head = self.board.head if self.board else Head()
        head.read(block.lines, is_title=self._names(block, alone))
        if self.board is None and self.n == 0:
            self.author = head.author or self.author


def read_levels(lines: Iterable[str], source: str = "text") -> Iterator[Level | LevelError]:
    """The levels of a text in order; the place of an unreadable level has its error.

    Text belongs to the next board if it stands directly above it, or if it is a title line of its own between blank
    lines; other text below a board belongs to that board. An ``Author:`` before the first board applies to every level
    without an author.
    """
    reader = _Reader(source)
    for number, line in enumerate(lines, 1):
        yield from reader.take(number, line)
    yield from reader.end()


def _ends_comment(line: str) -> bool:
    return line.strip().lower().startswith("comment-end:")


def _named(character: str) -> str:
    """A character for a message: invisible ones by name."""
    if character.isprintable() and character.isascii():
        return repr(character)
    name = "TAB" if character == "\t" else unicodedata.name(character, "control character")
    return f"{name} (U+{ord(character):04X})"


def _rows_of_line(line: str, inside: bool) -> list[str]:
    """The rows of a line: one, several separated by ``|``, or none if the line is not part of a board.

    Run lengths (``3#``, ``2(-#)``) and letters (``p`` player, ``b`` box, capitals on a target) are accepted only if
    every row begins and ends with a wall, so that a comment is not read as a board. A row with a tab or another odd
    space is a row, and so is, `inside` a board, whatever stands between walls and has no word: `Board` names what is
    unknown in it.
    """
    line = line.rstrip()
    if _PLAIN.fullmatch(line):
        return [line]
    if not _ENCODED.fullmatch(line):
        walled = inside and len(line) > 2 and line.lstrip().startswith("#") and line.endswith("#")
        odd = _PLAIN.fullmatch(_BLANK.sub(" ", line)) or (walled and not _WORD.search(line))
        return [line] if odd else []
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
        rows.append(row)
    return rows


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
