"""Shared style of all figures: colours, layout, signed numbers.

Backgrounds are transparent and text is a grey with contrast on white and on black, so a figure fits light and dark
notebooks. The colours are Okabe and Ito's. No meaning depends on colour alone: lines also differ in dash and marker,
and the sign of an advantage is also a direction and a number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
TEXT = "#7A7A7A"
"""Contrast 4.3 : 1 on white, 4.4 : 1 on JupyterLab's black."""
POSITIVE, NEGATIVE = BLUE, VERMILION
"""Colours of positive and negative advantages."""

Record = Mapping[str, Any]
"""One line of a run's rollouts/*.jsonl: a level with its `macro` group, its `micro` group or both."""
SYMBOLS = {"macro": "z", "micro": "τ"}
HEIGHT, LONGEST_LABEL, ROW = 440, 28, 18
"""Height of a figure in pixels, maximum characters of a label, height of a legend row in pixels."""
LEGEND = {"orientation": "h", "x": 0, "y": 1.05, "yanchor": "bottom", "itemsizing": "constant"}
"""Above the plot, because below it the legend overlaps the axis title at some widths."""


def signed(value: float, digits: int = 2) -> str:
    """A number with a typographic sign: +1.73, −0.58, 0.00."""
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
