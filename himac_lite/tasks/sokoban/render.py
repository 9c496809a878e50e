"""A board as text, as coloured text and as SVG, in plain Python; `sokoban.pixels` has RGB.

The colours are Okabe and Ito's, which remain distinct with the common forms of colour blindness. Nothing depends on
colour alone: a box has a cross, a box on target a tick; a target is a small ring, a target under the player a large
one.
"""

from __future__ import annotations

from himac_lite.errors import ConfigError, checked
from himac_lite.tasks.sokoban.rules import Board, rows_of
from himac_lite.types import Cell

ORANGE, GREEN, VERMILION, BLUE, SKY = "#E69F00", "#009E73", "#D55E00", "#0072B2", "#56B4E9"
BROWN, FOREST = "#4A3200", "#003D2C"
THEME = {  # part: (light, dark)
    "floor": ("#FBF8F1", "#1E2227"),
    "grid": ("#E6E0D2", "#3B434D"),
    "wall": ("#4B5563", "#87919D"),
    "digit": ("#FFFFFF", "#14171A"),
    "player": (BLUE, SKY),
}
_PAGES = (  # CSS selectors of the notebooks' themes: (light, dark)
    ("[data-jp-theme-light=true]", "[data-jp-theme-light=false]"),  # JupyterLab
    (".vscode-light", ".vscode-dark"),
    ("html[theme=light]", "html[theme=dark]"),  # Colab
)
_ANSI = {"#": "90", ".": "1;38;5;166", "$": "1;38;5;172", "*": "1;38;5;36", "@": "1;38;5;32", "+": "1;7;38;5;32"}

UNIT = 20
"""Side of a tile in the coordinates of the SVG and of the sprites."""
_PAWN = "M4.6 17.4a5.4 6.2 0 0 1 10.8 0z"


@checked
def to_text(board: Board) -> str:
    """The XSB rows, joined by newlines, without one at the end."""
    return "\n".join(rows_of(board))


@checked
def to_ansi(board: Board) -> str:
    """`to_text` with ANSI colours: without the escape codes it equals `to_text`."""

    def paint(ch: str) -> str:
        return f"\033[{_ANSI[ch]}m{ch}\033[0m" if ch in _ANSI else ch

    return "\n".join("".join(map(paint, row)) for row in rows_of(board))


def _cell_list(cells: frozenset[Cell]) -> str:
    return ", ".join(f"({r},{c})" for r, c in sorted(cells))


def _style() -> str:
    """CSS for dark colours on a dark system or notebook. Light colours are also attributes, for viewers without CSS."""

    def rules(prefix: str, dark: bool) -> str:
        return "".join(f"{prefix} .himac-{part}{{fill:{pair[dark]}}}" for part, pair in THEME.items())

    pages = "".join(rules(light, False) + rules(dark, True) for light, dark in _PAGES)
    return f"<style>@media (prefers-color-scheme:dark){{{rules('', True)}}}{pages}</style>"


@checked
def to_svg(board: Board, size: int | None = None, theme: str = "auto", coordinates: bool = False) -> str:
    """The board as one self-contained `<svg>` element, for inline display or a file.

    size: pixels of the longer side; None: the page decides.
    theme: ``auto`` (follows the system or the notebook: JupyterLab, VS Code, Colab), ``light`` or ``dark``.
    coordinates: write the row and column numbers of sub-goals on the left and the upper wall.
    Raises `ConfigError` for another theme or a size below 1.
    """
    if theme not in ("auto", "light", "dark"):
        raise ConfigError(f"theme must be 'auto', 'light' or 'dark', not {theme!r}")
    if size is not None and size < 1:
        raise ConfigError(f"size must be at least 1 pixel, not {size}")
    width, height = board.width * UNIT, board.height * UNIT

    def fill(part: str) -> str:
        colour = THEME[part][theme == "dark"]
        return f'class="himac-{part}" fill="{colour}"' if theme == "auto" else f'fill="{colour}"'

    def at(cell: Cell, shapes: str) -> str:
        return f'<g transform="translate({cell[1] * UNIT} {cell[0] * UNIT})">{shapes}</g>'

    def square(cell: Cell, inset: float) -> str:
        side = UNIT - 2 * inset
        return f"M{cell[1] * UNIT + inset:g} {cell[0] * UNIT + inset:g}h{side:g}v{side:g}h-{side:g}z"

    ring = f'fill="none" stroke="{VERMILION}"'
    target = f'<circle cx="10" cy="10" r="4.6" {ring} stroke-width="2.4"/>'
    case = '<rect x="2.6" y="2.6" width="14.8" height="14.8" rx="2"'
    line = 'fill="none" stroke-linecap="round" stroke-linejoin="round"'
    box = f'{case} fill="{ORANGE}" stroke="{BROWN}" stroke-width="1.6"/>'
    box += f'<path d="M6 6l8 8M14 6l-8 8" {line} stroke="{BROWN}" stroke-width="1.6"/>'
    done = f'{case} fill="{GREEN}" stroke="{FOREST}" stroke-width="1.6"/>'
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
        text = "".join(f'<text x="{c * UNIT + 10}" y="{r * UNIT + 13.5}">{n}</text>' for r, c, n in marks)
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
