"""A board as text, as coloured text, as SVG and as an RGB array. No dependency but NumPy.

Colours are Okabe and Ito's, which people with any common colour blindness can tell apart; and nothing depends on colour
alone: a box has a cross and a box on target a tick, a target is a small ring and a target under the player a large one.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np

from himac_lite.sokoban.rules import BOX, TARGET, WALL, Board, pack, rows_of
from himac_lite.types import Cell

PLAYER = 8
"""The bit of the player's cell, in observations and in `rgb_of_cells` (next to `rules.WALL`, `TARGET` and `BOX`)."""

_ORANGE, _GREEN, _VERMILION, _BLUE, _SKY = "#E69F00", "#009E73", "#D55E00", "#0072B2", "#56B4E9"
_BROWN, _FOREST = "#4A3200", "#003D2C"
_THEME = {  # part: (light, dark)
    "floor": ("#FBF8F1", "#1E2227"),
    "grid": ("#E6E0D2", "#3B434D"),
    "wall": ("#4B5563", "#87919D"),
    "digit": ("#FFFFFF", "#14171A"),
    "player": (_BLUE, _SKY),
}
_PAGES = (  # where notebooks say which theme they show: (light, dark)
    ("[data-jp-theme-light=true]", "[data-jp-theme-light=false]"),  # JupyterLab
    (".vscode-light", ".vscode-dark"),
    ("html[theme=light]", "html[theme=dark]"),  # Colab
)
_ANSI = {"#": "90", ".": "1;38;5;166", "$": "1;38;5;172", "*": "1;38;5;36", "@": "1;38;5;32", "+": "1;7;38;5;32"}

_UNIT = 20
"""Side of a tile in the coordinates of the SVG and of the sprites."""
_PAWN = "M4.6 17.4a5.4 6.2 0 0 1 10.8 0z"


def to_text(board: Board) -> str:
    """The XSB rows, joined by newlines, none at the end."""
    return "\n".join(rows_of(board))


def to_ansi(board: Board) -> str:
    """`to_text` with ANSI colours; without the escape codes it is exactly `to_text`."""

    def paint(ch: str) -> str:
        return f"\033[{_ANSI[ch]}m{ch}\033[0m" if ch in _ANSI else ch

    return "\n".join("".join(map(paint, row)) for row in rows_of(board))


def _cell_list(cells: frozenset[Cell]) -> str:
    return ", ".join(f"({r},{c})" for r, c in sorted(cells))


def _style() -> str:
    """Dark colours where system or notebook is dark. Light ones are attributes too, for viewers without CSS."""

    def rules(prefix: str, dark: bool) -> str:
        return "".join(f"{prefix} .himac-{part}{{fill:{pair[dark]}}}" for part, pair in _THEME.items())

    pages = "".join(rules(light, False) + rules(dark, True) for light, dark in _PAGES)
    return f"<style>@media (prefers-color-scheme:dark){{{rules('', True)}}}{pages}</style>"


def to_svg(board: Board, size: int | None = None, theme: str = "auto", coordinates: bool = False) -> str:
    """The board as one self-contained `<svg>` element, to be shown inline or saved as a file.

    size: pixels of the longer side; None leaves the size to the page.
    theme: ``auto`` follows the system or the notebook (JupyterLab, VS Code, Colab), or ``light``, or ``dark``.
    coordinates: write row and column numbers, as sub-goals use them, on the left and the upper wall.
    Raises `ValueError` for another theme or a size below 1.
    """
    if theme not in ("auto", "light", "dark"):
        raise ValueError(f"theme must be 'auto', 'light' or 'dark', not {theme!r}")
    if size is not None and size < 1:
        raise ValueError(f"size must be at least 1 pixel, not {size}")
    width, height = board.width * _UNIT, board.height * _UNIT

    def fill(part: str) -> str:
        colour = _THEME[part][theme == "dark"]
        return f'class="himac-{part}" fill="{colour}"' if theme == "auto" else f'fill="{colour}"'

    def at(cell: Cell, shapes: str) -> str:
        return f'<g transform="translate({cell[1] * _UNIT} {cell[0] * _UNIT})">{shapes}</g>'

    def square(cell: Cell, inset: float) -> str:
        side = _UNIT - 2 * inset
        return f"M{cell[1] * _UNIT + inset:g} {cell[0] * _UNIT + inset:g}h{side:g}v{side:g}h-{side:g}z"

    ring = f'fill="none" stroke="{_VERMILION}"'
    target = f'<circle cx="10" cy="10" r="4.6" {ring} stroke-width="2.4"/>'
    case = '<rect x="2.6" y="2.6" width="14.8" height="14.8" rx="2"'
    line = 'fill="none" stroke-linecap="round" stroke-linejoin="round"'
    box = f'{case} fill="{_ORANGE}" stroke="{_BROWN}" stroke-width="1.6"/>'
    box += f'<path d="M6 6l8 8M14 6l-8 8" {line} stroke="{_BROWN}" stroke-width="1.6"/>'
    done = f'{case} fill="{_GREEN}" stroke="{_FOREST}" stroke-width="1.6"/>'
    done += f'<path d="M5.8 10.4l3 3.2 5.4-7" {line} stroke="#FFFFFF" stroke-width="2.4"/>'
    pawn = f'<g {fill("player")}><circle cx="10" cy="6.4" r="3.6"/><path d="{_PAWN}"/></g>'
    home = f'<circle cx="10" cy="10" r="8.4" {ring} stroke-width="2.4"/>'
    home += f'<g transform="translate(2.6 2.6) scale(.74)">{pawn}</g>'

    floor = [(r, c) for r in range(board.height) for c in range(board.width) if (r, c) not in board.walls]
    parts = [
        f'<rect width="{width}" height="{height}" {fill("floor")}/>',
        f'<path fill-rule="evenodd" d="{"".join(square(f, 0) + square(f, 0.3) for f in floor)}" {fill("grid")}/>',
        f'<path d="{"".join(square(w, 0.3) for w in sorted(board.walls))}" {fill("wall")}/>',
    ]
    for cell in sorted(board.targets - board.boxes - {board.player}):
        parts.append(at(cell, target))
    for cell in sorted(board.boxes):
        parts.append(at(cell, done if cell in board.targets else box))
    parts.append(at(board.player, home if board.player in board.targets else pawn))
    if coordinates:
        marks = [(0, c, c) for c in range(board.width)] + [(r, 0, r) for r in range(1, board.height)]
        text = "".join(f'<text x="{c * _UNIT + 10}" y="{r * _UNIT + 13.5}">{n}</text>' for r, c, n in marks)
        parts.append(f'<g {fill("digit")} font-family="sans-serif" font-size="10" text-anchor="middle">{text}</g>')

    title = f"Sokoban board, {board.height} rows by {board.width} columns, "
    title += f"{board.boxes_on_target} of {len(board.boxes)} boxes on target"
    where = f"Row and column from the upper left corner. Player at {_cell_list(frozenset({board.player}))}. "
    where += f"Boxes at {_cell_list(board.boxes)}. Targets at {_cell_list(board.targets)}."
    extent = ""
    if size is not None:
        scale = size / max(width, height)
        extent = f' width="{width * scale:g}" height="{height * scale:g}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"{extent} role="img">'
    style = _style() if theme == "auto" else ""
    return f"{head}<title>{title}</title><desc>{where}</desc>{style}{''.join(parts)}</svg>"


def to_rgb(board: Board, tile: int = 16) -> np.ndarray:
    """uint8 [H·tile, W·tile, 3]; `tile` pixels a cell. Raises `ValueError` for a tile below 1."""
    cells, player = pack([board])
    cells[0, player[0, 0], player[0, 1]] |= PLAYER
    return rgb_of_cells(cells[0], tile)


def rgb_of_cells(cells: np.ndarray, tile: int = 16) -> np.ndarray:
    """uint8 cells [..., H, W] of WALL, TARGET, BOX and PLAYER bits → uint8 [..., H·tile, W·tile, 3]."""
    if tile < 1:
        raise ValueError(f"tile must be at least 1 pixel, not {tile}")
    *batch, height, width = cells.shape
    tiles = np.moveaxis(_sprites(tile)[cells], -3, -4)  # [..., H, tile, W, tile, 3]
    return np.ascontiguousarray(tiles).reshape(*batch, height * tile, width * tile, 3)


@lru_cache(maxsize=8)
def _sprites(tile: int) -> np.ndarray:
    """uint8 [16, tile, tile, 3]: the picture of every combination of bits, in the SVG's shapes and light colours."""
    fine = 4  # drawn four times as large, then averaged
    y, x = (np.mgrid[: tile * fine, : tile * fine] + 0.5) * (_UNIT / (tile * fine))

    def near(points: list[tuple[float, float]], reach: float) -> np.ndarray:
        """Within `reach` of a polyline."""
        out = np.zeros(x.shape, bool)
        for (x0, y0), (x1, y1) in pairwise(points):
            t = np.clip(((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / ((x1 - x0) ** 2 + (y1 - y0) ** 2), 0, 1)
            out |= np.hypot(x - x0 - t * (x1 - x0), y - y0 - t * (y1 - y0)) <= reach
        return out

    def pawn(scale: float) -> np.ndarray:
        u, v = (x - 10) / scale + 10, (y - 10) / scale + 10
        body = (np.hypot((u - 10) / 5.4, (v - 17.4) / 6.2) <= 1) & (v <= 17.4)
        return body | (np.hypot(u - 10, v - 6.4) <= 3.6)

    def rgb(colour: str) -> list[int]:
        return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]

    radius, off = np.hypot(x - 10, y - 10), np.maximum(abs(x - 10), abs(y - 10))
    cross = near([(6, 6), (14, 14)], 0.9) | near([(14, 6), (6, 14)], 0.9)
    tick = near([(5.8, 10.4), (8.8, 13.6), (14.2, 6.6)], 1.3)
    out = np.empty((16, tile, tile, 3), np.uint8)
    for bits in range(16):
        on = bool(bits & TARGET)
        layers = [(off <= 10, _THEME["grid"][0]), (off <= 9.6, _THEME["floor"][0])]
        if bits & WALL:
            layers.append((off <= 9.6, _THEME["wall"][0]))
        elif bits & BOX:
            edge, face, mark, ink = (_FOREST, _GREEN, tick, "#FFFFFF") if on else (_BROWN, _ORANGE, cross, _BROWN)
            layers += [(off <= 8.2, edge), (off <= 6.8, face), (mark, ink)]
        elif on:
            layers.append((abs(radius - (8.4 if bits & PLAYER else 4.6)) <= 1.2, _VERMILION))
        if bits & PLAYER:
            layers.append((pawn(0.74 if on else 1.0), _THEME["player"][0]))
        picture = np.empty((*x.shape, 3))
        for mask, colour in layers:
            picture[mask] = rgb(colour)
        out[bits] = picture.reshape(tile, fine, tile, fine, 3).mean((1, 3)).round()
    return out
