"""Curves of one run, or of several runs with a band over seeds, over iterations or over the budget spent."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import cycle
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from himac_lite.advantage import as_floats
from himac_lite.errors import ConfigError, checked
from himac_lite.runs.folder import Run, load_run
from himac_lite.widgets.plots.style import BLUE, GREEN, HEIGHT, LEGEND, PURPLE, ROW, TEXT, VERMILION, layout

PHASE_A, PHASE_B, FLAT = "phase A: blueprints", "phase B: executions", "flat episodes"
"""Names in legends. A flat run has no planner, and its micro group has whole episodes."""


@checked
def running_mean(values: ArrayLike, window: int) -> np.ndarray:
    """Mean of the last `window` values at each point (of fewer at the start), with the length of `values`."""
    if window < 1:
        raise ConfigError(f"window must be at least 1, not {window}")
    array = as_floats(values, "values", 1)
    return np.array([array[max(0, i + 1 - window) : i + 1].mean() for i in range(len(array))])


_DASHES = ("solid", "dash", "dot", "dashdot")
_COLOURS = (BLUE, VERMILION, GREEN, PURPLE)
"""Colours of groups of runs, or of the metrics of one group."""
_PERCENT = "%{y:.1%}"


def _line(
    x: Sequence[float], y: Sequence[float], name: str, colour: str, dash: str = "solid", **more: Any
) -> go.Scatter:
    line = {"color": colour, "dash": dash, "width": 2.5}
    return go.Scatter(x=x, y=y, name=name, line=line, **{"mode": "lines", "hovertemplate": _PERCENT, **more})


@checked
def training_curves(run: str | os.PathLike[str] | Run, window: int = 10) -> go.Figure:
    """Success over iterations: sampled in phases A and B (points and running mean), and greedy on validation.

    Finished runs also show base model and random policy as horizontal lines, and the trained model as a star with its
    interval. window: iterations of the running mean.
    """
    run = run if isinstance(run, Run) else load_run(run)
    metrics, results = run.metrics(), run.results
    flat, figure = _has_no_planner(metrics), go.Figure()
    for key, name, colour, symbol in (
        ("macro/success", "phase A: sampled blueprints", BLUE, "circle"),
        ("micro/success", "flat episodes, sampled" if flat else "phase B: sampled executions", VERMILION, "square"),
    ):
        x, y = series(metrics, key)
        if x:
            dots = {"color": colour, "symbol": symbol, "size": 5, "opacity": 0.35}
            quiet: dict[str, Any] = {
                "mode": "markers",
                "marker": dots,
                "showlegend": False,
                "hoverinfo": "skip",
                "hovertemplate": None,
            }
            figure.add_trace(_line(x, y, name, colour, **quiet))
            figure.add_trace(_line(x, running_mean(y, window).tolist(), f"{name}, mean of {window}", colour))
    x, y = series(metrics, "validation/success")
    if x:
        diamonds: dict[str, Any] = {
            "mode": "lines+markers",
            "marker": {"symbol": "diamond", "size": 8},
            "cliponaxis": False,
        }
        figure.add_trace(_line(x, y, "validation, greedy", GREEN, **diamonds))
    last = max([1, *(line["iteration"] for line in metrics)])
    for key, name, colour, dash in (("base", "base model", PURPLE, "dash"), ("random", "random policy", TEXT, "dot")):
        if key in results:
            figure.add_trace(_line([0, last], [results[key]["success"]] * 2, f"{name}, test", colour, dash))
    if "trained" in results:
        value = results["trained"]["success"]
        low, high = results["trained"].get("ci95", (value, value))
        bar = {"type": "data", "array": [high - value], "arrayminus": [value - low], "color": GREEN}
        star = {"symbol": "star", "size": 14, "color": GREEN}
        name = "trained model, test (95 %)"
        figure.add_trace(_line([last], [value], name, GREEN, mode="markers", marker=star, error_y=bar))
    figure.update_yaxes(range=[-0.03, 1.03], tickformat=".0%")
    return _over_iterations(figure, "levels solved")


def _has_no_planner(metrics: Iterable[Mapping[str, Any]]) -> bool:
    return not any("macro/success" in line or "micro/blueprint_valid" in line for line in metrics)


def series(metrics: Iterable[Mapping[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """The iterations with a logged value of a metric, and the values."""
    points = [(line["iteration"], line[key]) for line in metrics if line.get(key) is not None]
    return [x for x, _ in points], [y for _, y in points]


@checked
def metric_curves(
    metrics: Sequence[Mapping[str, Any]], names: Mapping[str, str], title: str, window: int = 10
) -> go.Figure:
    """Running means of any metrics. names: metric → legend."""
    figure = go.Figure()
    for (key, name), colour, dash in zip(names.items(), cycle((BLUE, VERMILION, GREEN)), cycle(_DASHES), strict=False):
        x, y = series(metrics, key)
        if x:
            figure.add_trace(_line(x, running_mean(y, window).tolist(), name, colour, dash, hovertemplate="%{y:.3g}"))
    return _over_iterations(figure, title)


def _over_iterations(figure: go.Figure, title: str) -> go.Figure:
    figure.update_layout(**layout(HEIGHT), legend=LEGEND, showlegend=True)
    figure.update_layout(hovermode="x unified", hoverlabel={"namelength": -1})
    figure.update_xaxes(title="iteration", rangemode="tozero")
    figure.update_yaxes(title=title, rangemode="tozero")
    if not figure.data:
        figure.add_annotation(text="nothing recorded yet", showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper")
    return figure


# Several runs: a group is the seeds of one variant


@checked
def seed_curves(
    groups: Mapping[str, Sequence[Run]], names: Mapping[str, str], title: str, window: int = 10, *,
    against: str = "iteration",
) -> go.Figure:  # fmt: skip
    """Running means of metrics: for each group of runs the mean over seeds, and a band from minimum to maximum.

    groups: label → runs that differ by seed. names: metric → legend. window: iterations of the running mean, which is
    computed for each seed first. against: the horizontal axis, ``iteration`` or a counter of the budget (``env_steps``,
    ``tokens``, ``seconds``), averaged over seeds.
    A curve ends with its shortest seed. Curves of success also have horizontal lines for base and random policy.
    """
    figure, several = go.Figure(), len(groups) > 1
    for g, (label, runs) in enumerate(groups.items()):
        logged = [run.metrics() for run in runs]
        flat = all(_has_no_planner(metrics) for metrics in logged)
        for k, (key, name) in enumerate(names.items()):
            # Validation always plays the same levels, so there is no sampling noise to smooth.
            x, low, mean, high = seed_band(logged, key, 1 if key.startswith("validation/") else window, against)
            if not x:
                continue
            colour = _COLOURS[(g if several else k) % len(_COLOURS)]
            many = f"{len(runs)} seeds"
            whose = f"{label} ({many})" if len(runs) > 1 else label
            name = name.replace(PHASE_B, FLAT) if flat else name
            says = escape(f"{whose}: {name}" if several else name, quote=False)
            if len(runs) > 1:
                band = {"fill": "toself", "fillcolor": _pale(colour), "line": {"width": 0}, "hoverinfo": "skip"}
                around = {"x": [*x, *reversed(x)], "y": [*high, *reversed(low)], "showlegend": False, "mode": "lines"}
                figure.add_trace(go.Scatter(**band, **around, name=f"{says}, range of {many}"))
                says += "" if several else f", mean of {many}"
            mode = "lines+markers" if len(x) < 12 else "lines"
            dash = _DASHES[k % len(_DASHES)]
            figure.add_trace(_line(x, mean, says, colour, dash, hovertemplate="%{y:.3g}", mode=mode))
    shares = all(key.endswith("/success") for key in names)
    if shares and figure.data:
        figure.add_traces(_still(groups, max(max(trace.x) for trace in figure.data)))
    figure = _over_iterations(figure, title)
    if shares:
        figure.update_yaxes(range=[-0.03, 1.03], tickformat=".0%")
    rows = sum(trace.showlegend is not False for trace in figure.data)
    figure.update_layout(height=HEIGHT + ROW * max(0, rows - 5))  # the legend takes its space from the plot
    return figure.update_xaxes(title=SPENT.get(against, against))


def _still(groups: Mapping[str, Sequence[Run]], last: float) -> list[go.Scatter]:
    """Horizontal lines of finished runs: base models (one line if all groups share it), and the random policy."""
    found = {label: [run.results for run in runs] for label, runs in groups.items()}
    bases: dict[float, list[str]] = {}
    for label, results in found.items():
        if began := [each["base"]["success"] for each in results if "base" in each]:
            bases.setdefault(round(float(np.mean(began)), 6), []).append(label)
    out = []
    for height, labels in bases.items():
        own = len(bases) > 1 and len(labels) == 1
        colour = _COLOURS[list(found).index(labels[0]) % len(_COLOURS)] if own else PURPLE
        whose = escape(f"{', '.join(labels)}: ", quote=False) if len(bases) > 1 else ""
        out.append(_line([0, last], [height] * 2, f"{whose}base model, test", colour, "dash"))
    if chance := [each["random"]["success"] for results in found.values() for each in results if "random" in each]:
        out.append(_line([0, last], [float(np.mean(chance))] * 2, "random policy, test", TEXT, "dot"))
    for line in out:
        line.line.width = 1.5
    return out


SPENT = {
    "iteration": "iteration", "env_steps": "environment steps", "tokens": "tokens sampled", "seconds": "seconds",
}  # fmt: skip


def seed_band(
    logged: Sequence[Sequence[Mapping[str, Any]]], key: str, window: int = 10, against: str = "iteration"
) -> tuple[list[float], list[float], list[float], list[float]]:
    """(x, minimum, mean, maximum) over seeds of a metric's running mean, at the iterations that all seeds have."""
    smooth, spent = list[dict[int, float]](), list[dict[int, float]]()
    for metrics in logged:
        x, y = series(metrics, key)
        smooth.append(dict(zip(x, running_mean(y, window).tolist(), strict=True)) if x else {})
        counted = {line["iteration"]: line[against] for line in metrics if against in line}
        spent.append({0: 0.0} | counted)  # nothing is spent, and no counter logged, before the first iteration
    common = sorted(set.intersection(*map(set, smooth), *map(set, spent))) if smooth else []
    if not common:
        return [], [], [], []
    at = [float(np.mean([seed[i] for seed in spent])) for i in common]
    values = np.array([[seed[i] for i in common] for seed in smooth])  # [seeds, iterations]
    return at, values.min(0).tolist(), values.mean(0).tolist(), values.max(0).tolist()


def _pale(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},.18)"


MOST_BANDS = 60


def phase_bands(figure: go.Figure, iterations: int) -> go.Figure:
    """Shade phase A (planner learns) and phase B (executor learns) of each iteration; iteration i ends at x = i.

    More than `MOST_BANDS` iterations are not shaded, because the bands would be too narrow.
    """
    if not 0 < iterations <= MOST_BANDS:
        return figure
    for i in range(iterations):
        for begin, colour in ((i, BLUE), (i + 0.5, VERMILION)):
            band = {"fillcolor": colour, "opacity": 0.09, "line_width": 0, "layer": "below"}
            figure.add_shape(type="rect", x0=begin, x1=begin + 0.5, y0=0, y1=1, yref="paper", **band)
    words = "bands: <b>A</b> blue, planner learns · <b>B</b> red, executor learns"
    return figure.update_xaxes(title=f"{figure.layout.xaxis.title.text} ({words})")
