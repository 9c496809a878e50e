"""What all figures share: colours, layout, and how a signed number is written.

Backgrounds are transparent and text is a grey that reads on white and on black, so a figure fits a light and a dark
notebook. Colours are Okabe and Ito's, and none carries a meaning alone: lines differ in dash and marker too, and the
sign of an advantage is also a direction and a number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
TEXT = "#7A7A7A"
"""4.3 : 1 on white, 4.4 : 1 on JupyterLab's black."""
POSITIVE, NEGATIVE = BLUE, VERMILION
"""The sign of an advantage."""

Record = Mapping[str, Any]
"""One line of a run's rollouts/*.jsonl: a level with its `macro` and `micro` group, or one of them."""
SYMBOLS = {"macro": "z", "micro": "τ"}
HEIGHT, LONGEST_LABEL, ROW = 440, 28, 18
"""Pixels of a figure, letters of a label, pixels of a row of the legend."""
LEGEND = {"orientation": "h", "x": 0, "y": 1.05, "yanchor": "bottom", "itemsizing": "constant"}
"""Above the plot: below it, rows of it would run into the title of the axis at some widths."""


def signed(value: float, digits: int = 2) -> str:
    """A number with its sign, as people set it: +1.73, −0.58, 0.00."""
    text = f"{abs(value):.{digits}f}"
    return text if float(text) == 0 else f"{'+' if value > 0 else '−'}{text}"


def layout(height: int) -> dict[str, Any]:
    grid = "rgba(128,128,128,.25)"
    axis = {"automargin": True, "gridcolor": grid, "linecolor": grid, "zeroline": False}
    return {
        "height": height, "autosize": True, "margin": {"l": 64, "r": 24, "t": 24, "b": 56},
        "font": {"color": TEXT, "size": 13}, "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)",
        "template": {"layout": {"xaxis": axis, "yaxis": axis}},
    }  # fmt: skip
