"""What several notebooks show: curves, bars, tables, boards side by side, tokens with the chosen ones marked.

Once drawn, they need no kernel and no network. Text that a model wrote is escaped.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import count, cycle
from typing import Any

import plotly.graph_objects as go
from IPython.display import HTML
from numpy.typing import ArrayLike

from himac_lite.settings import Train
from himac_lite.tasks.sokoban.render import to_svg
from himac_lite.tasks.sokoban.rules import Board
from himac_lite.widgets import plots
from himac_lite.widgets.plots.style import LEGEND, ROW

_COLOURS = (plots.BLUE, plots.VERMILION, plots.GREEN, plots.PURPLE, plots.TEXT)
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x")
FAST = os.environ.get("HIMAC_FAST", "") not in ("", "0")
"""Set by the tests: notebooks then use few levels and one iteration."""
_GRID = "rgba(128,128,128,.25)"


def brief(config: Train) -> Train:
    """The same settings, but under `FAST` one iteration on two levels."""
    if not FAST:
        return config
    return replace(
        config, iterations=1, validate_on=4, test_limit=4, rollout=replace(config.rollout, levels=2, group=4)
    )


@dataclass(frozen=True)
class Table:
    """Rows under column titles: an HTML table in a notebook, aligned text elsewhere."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def _right(self) -> list[bool]:
        """Columns aligned to the right: those with numbers, but not the first."""
        return [
            i > 0 and any(map(str.isdigit, "".join(column))) for i, column in enumerate(zip(*self.rows, strict=True))
        ]

    def _repr_html_(self) -> str:
        def line(tag: str, cells: tuple[str, ...]) -> str:
            sides = ("right" if right else "left" for right in self._right() or [False] * len(cells))
            made = (f'<{tag} style="text-align:{s}">{escape(c)}</{tag}>' for s, c in zip(sides, cells, strict=True))
            return f"<tr>{''.join(made)}</tr>"

        body = "".join(line("td", row) for row in self.rows)
        return f"<table><thead>{line('th', self.columns)}</thead><tbody>{body}</tbody></table>"

    def __repr__(self) -> str:
        widths = [max(map(len, column)) for column in zip(self.columns, *self.rows, strict=True)]
        sides = [str.rjust if right else str.ljust for right in self._right() or [False] * len(widths)]
        return "\n".join(
            "  ".join(side(cell, w) for side, cell, w in zip(sides, row, widths, strict=True)).rstrip()
            for row in (self.columns, *self.rows)
        )


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table. columns: C titles. rows: C values each; a value is shown as `str` shows it.

    Raises: ValueError if a row has another number of values than there are columns.
    """
    made = tuple(tuple(map(str, row)) for row in rows)
    if wrong := [row for row in made if len(row) != len(columns)]:
        raise ValueError(f"a row needs {len(columns)} values ({', '.join(columns)}), got {wrong[0]}")
    return Table(tuple(columns), made)


def score_table(scores: Mapping[str, Mapping[str, Any]]) -> Table:
    """Success rates with their intervals. scores: name → a score of `run.results`."""
    rows = []
    for name, score in scores.items():
        low, high = score["ci95"]
        rows.append((name, score["n"], f"{100 * score['success']:.1f} %", f"{100 * low:.0f}–{100 * high:.0f} %"))
    return table(("player", "levels", "solved", "95 % interval"), rows)


def _looks() -> Iterator[tuple[str, str, str]]:
    """Colour, dash and symbol of each curve: the first 25 combinations differ."""
    for turn in count():
        for i, colour in enumerate(_COLOURS):
            yield colour, _DASHES[(i + turn) % len(_DASHES)], _SYMBOLS[(i + turn) % len(_SYMBOLS)]


def lines(
    x: ArrayLike, series: Mapping[str, ArrayLike], x_title: str, y_title: str, *, markers: bool = True
) -> go.Figure:
    """Curves over one axis. They differ in colour, dash and marker, so that no meaning depends on colour alone.

    x: [X]. series: name for the legend → [X].
    """
    figure = go.Figure()
    for (name, y), (colour, dash, symbol) in zip(series.items(), _looks(), strict=False):
        figure.add_scatter(
            x=list(x), y=list(y), name=escape(name, quote=False), mode="lines+markers" if markers else "lines",  # type: ignore[arg-type]
            line={"color": colour, "dash": dash, "width": 2.5}, marker={"symbol": symbol, "size": 7},
        )  # fmt: skip
    return _dressed(figure, x_title, y_title, len(series) > 1)


def bars(x: Sequence[str], series: Mapping[str, ArrayLike], x_title: str, y_title: str) -> go.Figure:
    """Grouped bars. x: X names. series: name for the legend → [X]. They differ in pattern too."""
    figure = go.Figure()
    for (name, y), colour, shape in zip(series.items(), cycle(_COLOURS), cycle(("", "/", ".", "x")), strict=False):
        marker = {"color": colour, "pattern": {"shape": shape, "fgcolor": "white"}}
        figure.add_bar(x=list(x), y=list(y), name=escape(name, quote=False), marker=marker)  # type: ignore[arg-type]
    return _dressed(figure, x_title, y_title, len(series) > 1)


Band = tuple[Sequence[float], Sequence[float], Sequence[float], Sequence[float]]
"""(x, low, mean, high), as `reproduce.curve_band` makes it."""


def bands(series: Mapping[str, Band], levels: Mapping[str, float], x_title: str, y_title: str) -> go.Figure:
    """Curves with their intervals, and horizontal lines for constants such as the random policy.

    series: name for the legend → band. levels: name → height. Curves differ in colour and dash.
    """
    figure, last = go.Figure(), max([1.0, *(max(band[0], default=0.0) for band in series.values())])
    for (name, (x, low, mean, high)), (colour, dash, _) in zip(series.items(), _looks(), strict=False):
        figure.add_scatter(
            x=[*x, *reversed(x)], y=[*high, *reversed(low)], fill="toself", fillcolor=colour, opacity=0.15,
            line={"width": 0}, mode="lines", hoverinfo="skip", showlegend=False,
        )  # fmt: skip
        line = {"color": colour, "dash": dash, "width": 2.5}
        figure.add_scatter(x=list(x), y=list(mean), name=escape(name, quote=False), mode="lines", line=line)
    for (name, height), dash in zip(levels.items(), cycle(("dot", "dash", "longdashdot")), strict=False):
        line = {"color": plots.TEXT, "dash": dash, "width": 1.5}
        figure.add_scatter(x=[0, last], y=[height] * 2, name=escape(name, quote=False), mode="lines", line=line)
    return _dressed(figure, x_title, y_title, True)


def _dressed(figure: go.Figure, x_title: str, y_title: str, legend: bool) -> go.Figure:
    rows = sum(trace.showlegend is not False for trace in figure.data)  # each legend row shrinks the plot
    axis = {"automargin": True, "gridcolor": _GRID, "linecolor": _GRID, "zeroline": False}
    figure.update_layout(
        height=360 + ROW * max(0, rows - 4), autosize=True, margin={"l": 64, "r": 24, "t": 24, "b": 56},
        showlegend=legend, barmode="group",
        font={"color": plots.TEXT, "size": 13}, paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)",
        legend=LEGEND,
        template={"layout": {"xaxis": axis, "yaxis": axis}},
    )  # fmt: skip
    figure.update_xaxes(title=x_title)
    figure.update_yaxes(title=y_title)
    return figure


def boards(shown: Mapping[str, Board], size: int = 170) -> HTML:
    """Boards side by side with row and column numbers and captions; they wrap on a narrow page."""
    cells = "".join(
        f'<figure style="margin:0 16px 12px 0;width:{size}px">{to_svg(board, size, coordinates=True)}'
        f'<figcaption style="font-size:13px">{escape(caption)}</figcaption></figure>'
        for caption, board in shown.items()
    )
    return HTML(f'<div style="display:flex;flex-wrap:wrap;align-items:flex-start">{cells}</div>')


def marked(tokens: Sequence[str], chosen: Sequence[int | bool], values: Sequence[float] | None = None) -> HTML:
    """Tokens in a row. A token that the model chose is underlined, with its value below it if values are given."""
    cells = []
    for t, (token, own) in enumerate(zip(tokens, chosen, strict=True)):
        line = f"border-bottom:3px solid {plots.BLUE}" if own else "opacity:.65;border-bottom:3px solid transparent"
        below = "" if values is None else f"<br><small>{plots.signed(values[t]) if own else '&nbsp;'}</small>"
        word = escape(token.strip()) or "␣"
        cells.append(
            f'<span style="display:inline-block;margin:2px 8px 4px 0;text-align:center">'
            f'<code style="{line}">{word}</code>{below}</span>'
        )
    return HTML(f'<div style="line-height:1.5">{"".join(cells)}</div>')
