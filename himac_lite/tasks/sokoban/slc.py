"""Level files as XML: SLC, ``SokobanLevels / LevelCollection / Level / L``. They are read, never written.

The parser is expat alone, with a handler for each thing that is needed. It loads no file that the XML names, and any
declaration of an entity is refused, so there is nothing to expand; depth and the length of a tag are limited.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from xml.parsers import expat

from himac_lite.errors import LevelError
from himac_lite.tasks.sokoban.files import MAX_SIDE, Board, Head
from himac_lite.types import Level

_MAX_DEPTH = 20
_MAX_TAG = 1_000_000
"""Bytes of the longest tag, comment or declaration."""
_XML = re.compile(r"\s*<(\?xml|!DOCTYPE|!--|SokobanLevels)")


def is_xml(start: str) -> bool:
    """Whether a file that starts so is XML, and not a board or text."""
    return bool(_XML.match(start.removeprefix("\ufeff")))


def read_levels(parts: Iterable[bytes], source: str, encoding: str | None = None) -> Iterator[Level | LevelError]:
    """The levels in order; the place of an unreadable level has its error. Reading ends where the XML is damaged.

    parts: the bytes of the file. encoding: in place of the one that the file declares.
    """
    reader = _Reader(source, encoding)
    try:
        for part in parts:
            reader.feed(part)
            yield from reader.taken()
        reader.feed(b"", last=True)
    except expat.ExpatError as error:
        yield from reader.taken()
        reason = f"{expat.ErrorString(error.code)} at line {error.lineno}, column {error.offset + 1}"
        yield LevelError(f"{source}: damaged XML: {reason}", source, None, error.lineno)
    except (LevelError, LookupError, ValueError) as error:  # the last two: an encoding that Python cannot read
        yield from reader.taken()
        yield error if isinstance(error, LevelError) else LevelError(f"{source}: {error}; save it in UTF-8", source)
    else:
        if reader.n == 0:
            yield LevelError(f"{source}: no level found: this XML has no <Level> with rows in <L>, as SLC has", source)


class _Reader:
    """The handlers: they collect the rows of a level, and at its end the level."""

    def __init__(self, source: str, encoding: str | None) -> None:
        self.source, self.n, self.depth, self.fed, self.copyright = source, 0, 0, 0, ""
        self.board: Board | None = None
        self.row: str | None = None
        self.place = (0, 0)  # line and column of the row
        self.found: list[Level | LevelError] = []
        self.parser = expat.ParserCreate(encoding)
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.parser.CharacterDataHandler = self.text
        self.parser.EntityDeclHandler = self.entity

    def feed(self, part: bytes, last: bool = False) -> None:
        self.fed += len(part)
        self.parser.Parse(part, last)
        if self.fed - self.parser.CurrentByteIndex > _MAX_TAG:
            raise self.refused(f"a tag of more than {_MAX_TAG:,} bytes")

    def taken(self) -> list[Level | LevelError]:
        found, self.found = self.found, []
        return found

    def refused(self, reason: str) -> LevelError:
        line = self.parser.CurrentLineNumber
        return LevelError(f"{self.source}: {reason} (line {line}); levels in XML have none", self.source, None, line)

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise self.refused(f"tags nested more than {_MAX_DEPTH} deep")
        if name == "LevelCollection":
            self.copyright = _line(attributes.get("Copyright", ""))
        elif name == "Level":
            head = Head(_line(attributes.get("Id", "")), _line(attributes.get("Copyright", "")))
            self.board = Board(head, self.parser.CurrentLineNumber)
        elif name == "L" and self.board:
            self.row, self.place = "", (self.parser.CurrentLineNumber, self.parser.CurrentColumnNumber + len("<L>") + 1)

    def text(self, text: str) -> None:
        if self.row is not None and len(self.row) <= MAX_SIDE:
            self.row += text

    def end(self, name: str) -> None:
        self.depth -= 1
        if name == "L" and self.board and self.row is not None:
            self.board.add(self.row, *self.place)
            self.row = None
        elif name == "Level" and self.board:
            self.n += 1
            self.found.append(self.board.outcome(self.copyright, self.source, self.n))
            self.board = None

    def entity(self, *_: object) -> None:
        raise self.refused("an entity is declared")


def _line(text: str) -> str:
    return " ".join(text.split())
