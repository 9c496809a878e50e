"""PNG pictures and text alternatives of the widgets, which a saved notebook shows without a kernel.

They are drawn with Pillow and its own font, on white for both themes.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from himac_lite.tasks.sokoban import pixels
from himac_lite.tasks.sokoban.rules import play
from himac_lite.widgets.plots import NEGATIVE, POSITIVE, SYMBOLS, TEXT, Record, best_of, executed_blueprint, signed
from himac_lite.widgets.replay import board_of, is_text

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from PIL import Image, ImageDraw

INK, SIZE, LINE = "#222222", 13, 20
_PLAIN = str.maketrans({"−": "-", "–": "-", "τ": "t", "★": "*", "✗": "x", "…": "...", "✓": "v", "Σ": "sum", "ω": "w"})


class Canvas:
    """A white page, cropped to its content."""

    def __init__(self, width: int, height: int) -> None:
        from PIL import Image, ImageDraw, ImageFont

        self.image: Image.Image = Image.new("RGB", (width, height), "white")
        self.draw: ImageDraw.ImageDraw = ImageDraw.Draw(self.image)
        self._font = ImageFont.load_default(SIZE)
        self.bottom = 0

    def text(
        self, x: float, y: float, text: str, *, ink: str = INK, width: int | None = None, right: bool = False
    ) -> None:
        line = " ".join(text.translate(_PLAIN).encode("latin-1", "replace").decode("latin-1").split())
        while width and len(line) > 4 and self.draw.textlength(line, self._font) > width:
            line = line[:-4] + "..."
        self.draw.text((x, y), line, fill=ink, font=self._font, anchor="ra" if right else "la")
        self.bottom = max(self.bottom, int(y) + LINE)

    def board(self, x: int, y: int, cells: np.ndarray) -> None:
        from PIL import Image

        self.image.paste(Image.fromarray(cells), (x, y))
        self.bottom = max(self.bottom, y + len(cells))

    def png(self) -> bytes:
        out = io.BytesIO()
        page = self.image.crop((0, 0, self.image.width, min(self.image.height, self.bottom + 8)))
        page.quantize(64).save(out, "PNG", optimize=True)
        return out.getvalue()


def _rows(record: Record, group: str) -> list[str]:
    if group == "micro":
        return [m["moves"] or "-" for m in record["micro"]["members"]]
    texts = (executed_blueprint(record, "macro", g) for g in range(len(record["macro"]["members"])))
    return [" / ".join((text or "").strip("\n").split("\n")) + (f"  x {bad}" if bad else "") for text, bad in texts]


def explorer_words(record: Record, advantages: Mapping[str, np.ndarray]) -> str:
    """Both groups of a level as lines of text: member, return, advantage, blueprint or moves."""
    lines = [f"Advantages of both groups, {record.get('title') or 'untitled level'}"]
    for group, values in advantages.items():
        lines.append({"macro": "macro group: blueprints", "micro": "micro group: executions of z*"}[group])
        best = best_of(record) if group == "macro" else -1
        for n, (a, text, m) in enumerate(zip(values, _rows(record, group), record[group]["members"], strict=False)):
            star = " (z*)" if n == best else ""
            lines.append(f"  {SYMBOLS[group]}{n + 1}{star}: return {m['return']:.2f}, advantage {signed(a)}: {text}")
    return "\n".join(lines)


def explorer_picture(record: Record, advantages: Mapping[str, np.ndarray]) -> bytes:
    page, y = Canvas(900, 900), 8
    if not is_text(record):
        page.board(740, 8, pixels.to_rgb(board_of(record), 20))
    limit = max([3.0, *(abs(a) for values in advantages.values() for a in values)])
    for group, values in advantages.items():
        members = record[group]["members"]
        title = "Macro group: blueprints, executed greedily (* z*)" if group == "macro" else "Micro group: executions"
        page.text(8, y, title)
        page.text(560, y, "return")
        page.text(615, y, "- advantage +")
        best = best_of(record) if group == "macro" else -1
        for n, (a, text, member) in enumerate(zip(values, _rows(record, group), members, strict=False)):
            y += LINE
            page.text(8, y, f"{SYMBOLS[group]}{n + 1}{' *' if n == best else ''}")
            page.text(44, y, text, width=510)
            page.text(596, y, f"{member['return']:.2f}", right=True)
            middle, reach = 650, 40 * abs(a) / limit
            page.draw.line((middle, y, middle, y + LINE), fill=TEXT)
            ends = (middle, middle + reach) if a > 0 else (middle - reach, middle)
            if abs(a) > 1e-9:
                page.draw.rectangle((ends[0], y + 3, ends[1], y + 15), fill=POSITIVE if a > 0 else NEGATIVE)
            page.text(732, y, signed(a), right=True)
        y += LINE + 8
    return page.png()


def player_picture(record: Record, members: Sequence[Mapping[str, Any]]) -> bytes:
    """The start and the end of each episode, its moves and its sub-goals."""
    page, y, board = Canvas(760, 900), 8, board_of(record)
    for member in members:
        page.text(8, y, f"{record.get('title') or 'level'}: {member['title']}")
        page.board(8, y + LINE, pixels.to_rgb(board, 20))
        page.board(24 + 20 * board.width, y + LINE, pixels.to_rgb(play(board, member["moves"]), 20))
        left, top = 40 + 40 * board.width, y + LINE
        page.text(left, top, f"moves: {member['moves'] or '-'}", width=750 - left)
        for goal in member["goals"]:
            top += LINE
            page.text(left, top, f"{goal['text']}: {goal['end'] or 'not reached'}, {goal['steps']}", width=750 - left)
        for line in member["note"].splitlines():
            top += LINE
            page.text(left, top, line, width=750 - left)
        y = max(top + LINE, y + LINE + 20 * board.height) + 12
    return page.png()


def curves_picture(figure: go.Figure, title: str) -> bytes:
    """The lines and points of a plotly figure on one pair of axes, with the legend below."""
    page, (x0, y0, x1, y1) = Canvas(760, 700), (56, 30, 744, 330)
    traces = [t for t in figure.data if t.type == "scatter" and t.x is not None and len(t.x)]
    page.text(8, 6, title)
    xs = [float(v) for t in traces for v in t.x if v is not None] or [0.0, 1.0]
    ys = [float(v) for t in traces for v in t.y if v is not None] or [0.0, 1.0]
    left, right, low, high = min(0.0, *xs), _above(max(xs)), min(0.0, *ys), _above(max(ys))

    def at(x: float, y: float) -> tuple[float, float]:
        return x0 + (x1 - x0) * (x - left) / (right - left), y1 - (y1 - y0) * (y - low) / (high - low)

    for part in (0.0, 0.25, 0.5, 0.75, 1.0):
        value = low + part * (high - low)
        page.draw.line((*at(left, value), *at(right, value)), fill="#DDDDDD")
        page.text(x0 - 6, at(left, value)[1] - 8, f"{value:.3g}", right=True, ink=TEXT)
        page.text(
            at(left + part * (right - left), low)[0], y1 + 4, f"{left + part * (right - left):.3g}", right=part > 0
        )
    row = y1 + 26
    for trace in traces:
        colour = trace.line.color or trace.marker.color or INK
        points = [at(float(x), float(y)) for x, y in zip(trace.x, trace.y, strict=True) if y is not None]
        if trace.fill in ("toself", "tonexty") or trace.showlegend is False:
            continue
        if "lines" in (trace.mode or "lines"):
            on, off = {"dash": (8, 4), "dot": (2, 4), "dashdot": (10, 8)}.get(trace.line.dash, (1, 0))
            _dashed(page, points, colour, on, off)
        if "markers" in (trace.mode or "lines") or len(points) == 1:
            for x, y in points:
                page.draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour)
        page.draw.rectangle((x0, row + 5, x0 + 16, row + 9), fill=colour)
        page.text(x0 + 22, row, trace.name or "", width=640)
        row += LINE
    return page.png()


def _above(value: float) -> float:
    """The next 1, 2, 4, 6 or 8 times a power of ten, whose quarters have few digits."""
    if value <= 0:
        return 1.0
    unit = 10.0 ** np.floor(np.log10(value))
    return float(next(m * unit for m in (1, 2, 4, 6, 8, 10) if m * unit >= value * 0.999))


def _dashed(page: Canvas, points: Sequence[tuple[float, float]], colour: str, on: int, off: int) -> None:
    """A polyline that is drawn for `on` of every on + off pixels; off = 0: solid."""
    gone = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        length = max(1.0, float(np.hypot(x1 - x0, y1 - y0)))
        for s in range(round(length) if off else 1):
            a, b = (s / length, (s + 1) / length) if off else (0.0, 1.0)
            if not off or (gone + s) % (on + off) < on:
                ends = (x0 + a * (x1 - x0), y0 + a * (y1 - y0), x0 + b * (x1 - x0), y0 + b * (y1 - y0))
                page.draw.line(ends, fill=colour, width=2)
        gone += length


def lines_picture(text: str, width: int = 900, indent: int = 6, top: int = 6) -> bytes:
    """Lines of text. width, top margin and the indent per leading space are in pixels."""
    lines = text.splitlines()
    page = Canvas(width, LINE * (len(lines) + 1))
    for n, line in enumerate(lines):
        page.text(8 + indent * (len(line) - len(line.lstrip())), top + LINE * n, line, width=width - 20)
    return page.png()
