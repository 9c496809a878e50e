"""Metrics of one run, or of several with their seeds as a band, over iterations or over what was spent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import cycle
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from himac_lite.runs.folder import Run
from himac_lite.widgets.plots.style import BLUE, GREEN, HEIGHT, LEGEND, PURPLE, ROW, TEXT, VERMILION, layout

PHASE_A, PHASE_B, FLAT = "phase A: blueprints", "phase B: executions", "flat episodes"
"""What learns: in a flat run, which has no planner, episodes stand in the place of executions."""


def running_mean(values: ArrayLike, window: int) -> np.ndarray:
    """Mean of the last `window` values at each point, of fewer at the start; the same length as `values`."""
    if window < 1:
        raise ValueError(f"window must be at least 1, not {window}")
    array = np.asarray(values, dtype=np.float64)
    return np.array([array[max(0, i + 1 - window) : i + 1].mean() for i in range(len(array))])


def training_curves(runs: Run | Iterable[Run], window: int = 10) -> go.Figure:
    """Success over iterations: sampled in phases A and B (points, and their running mean) and greedy on validation.

    From the results: base and random policy as horizontal lines, the trained one as a star with its interval.
    runs: one run, or several to lay over each other. window: iterations of the running mean.
    """
    several = [runs] if isinstance(runs, Run) else list(runs)
    figure = go.Figure()
    for number, run in enumerate(several):
        prefix = f"{run.folder.name}: " if len(several) > 1 else ""
        for trace in _curves(run.metrics(), run.results, window, escape(prefix, quote=False), number):
            figure.add_trace(trace)
    figure.update_yaxes(range=[-0.03, 1.03], tickformat=".0%")
    return _over_iterations(figure, "levels solved")


_DASHES = ("solid", "dash", "dot", "dashdot")
_COLOURS = (BLUE, VERMILION, GREEN, PURPLE)
"""Of groups of runs, or of the metrics of one."""
_PERCENT = "%{y:.1%}"


def _line(x: Sequence[float], y: Sequence[float], name: str, colour: str, dash: str, **more: Any) -> go.Scatter:
    line = {"color": colour, "dash": dash, "width": 2.5}
    return go.Scatter(x=x, y=y, name=name, line=line, **{"mode": "lines", "hovertemplate": _PERCENT, **more})


def _curves(
    metrics: Sequence[Mapping[str, Any]], results: Mapping[str, Any], window: int, prefix: str, number: int
) -> list[go.Scatter]:
    dash = _DASHES[number % len(_DASHES)]
    flat = _has_no_planner(metrics)
    out: list[go.Scatter] = []
    for key, name, colour, symbol in (
        ("macro/success", "phase A: sampled blueprints", BLUE, "circle"),
        ("micro/success", "flat episodes, sampled" if flat else "phase B: sampled executions", VERMILION, "square"),
    ):
        x, y = series(metrics, key)
        if x:
            dots = {"color": colour, "symbol": symbol, "size": 5, "opacity": 0.35}
            quiet = {"mode": "markers", "marker": dots, "showlegend": False, "hoverinfo": "skip", "hovertemplate": None}
            out.append(_line(x, y, prefix + name, colour, dash, **quiet))
            smooth = running_mean(y, window).tolist()
            out.append(_line(x, smooth, f"{prefix}{name}, mean of {window}", colour, dash))
    x, y = series(metrics, "validation/success")
    if x:
        diamonds = {"mode": "lines+markers", "marker": {"symbol": "diamond", "size": 8}, "cliponaxis": False}
        out.append(_line(x, y, f"{prefix}validation, greedy", GREEN, dash, **diamonds))
    last = max([1, *(line["iteration"] for line in metrics)])
    for key, name, colour, style in (("base", "base model", PURPLE, "dash"), ("random", "random policy", TEXT, "dot")):
        if key in results:
            out.append(_line([0, last], [results[key]["success"]] * 2, f"{prefix}{name}, test", colour, style))
    if "trained" in results:
        value = results["trained"]["success"]
        low, high = results["trained"].get("ci95", (value, value))
        bar = {"type": "data", "array": [high - value], "arrayminus": [value - low], "color": GREEN}
        star = {"symbol": "star", "size": 14, "color": GREEN}
        name = f"{prefix}trained model, test (95 %)"
        out.append(_line([last], [value], name, GREEN, "solid", mode="markers", marker=star, error_y=bar))
    return out


def _has_no_planner(metrics: Iterable[Mapping[str, Any]]) -> bool:
    return not any("macro/success" in line or "micro/blueprint_valid" in line for line in metrics)


def series(metrics: Iterable[Mapping[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """The iterations at which a metric was logged, and its values."""
    points = [(line["iteration"], line[key]) for line in metrics if line.get(key) is not None]
    return [x for x, _ in points], [y for _, y in points]


def metric_curves(
    metrics: Sequence[Mapping[str, Any]], names: Mapping[str, str], title: str, window: int = 10
) -> go.Figure:
    """Running means of any metrics; names: metric → what the legend says."""
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


def seed_curves(
    groups: Mapping[str, Sequence[Run]], names: Mapping[str, str], title: str, window: int = 10, *,
    against: str = "iteration",
) -> go.Figure:  # fmt: skip
    """Running means of metrics; of each group of runs the mean over its seeds, and a band from lowest to highest.

    groups: label → runs that differ by seed. names: metric → what the legend says. window: iterations of the running
    mean, taken of each seed before seeds are compared. against: what the horizontal axis is, ``iteration``, or a metric
    that counts what was spent (``env_steps``, ``tokens``, ``seconds``), then of the seeds' mean.
    Where seeds end at different iterations, the curve ends with the shortest. Shares of solved levels stand beside base
    and random policy: horizontal lines, from the results.
    """
    figure, several = go.Figure(), len(groups) > 1
    for g, (label, runs) in enumerate(groups.items()):
        logged = [run.metrics() for run in runs]
        flat = all(_has_no_planner(metrics) for metrics in logged)
        for k, (key, name) in enumerate(names.items()):
            # Validation plays the same levels each time, now and then: there is no noise of levels to smooth.
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
            dash = _DASHES[(k if several else g) % len(_DASHES)] if several else _DASHES[k % len(_DASHES)]
            figure.add_trace(_line(x, mean, says, colour, dash, hovertemplate="%{y:.3g}", mode=mode))
    shares = all(key.endswith("/success") for key in names)
    if shares and figure.data:
        figure.add_traces(_still(groups, max(max(trace.x) for trace in figure.data)))
    figure = _over_iterations(figure, title)
    if shares:
        figure.update_yaxes(range=[-0.03, 1.03], tickformat=".0%")
    rows = sum(trace.showlegend is not False for trace in figure.data)
    figure.update_layout(height=HEIGHT + ROW * max(0, rows - 5))  # the legend takes its rows from the plot
    return figure.update_xaxes(title=SPENT.get(against, against))


def _still(groups: Mapping[str, Sequence[Run]], last: float) -> list[go.Scatter]:
    """Horizontal lines from the results of finished runs: the base, one where all groups began alike; random play."""
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
    """(x, lowest, mean, highest) over seeds of the running mean of a metric, at the iterations that all seeds have."""
    smooth: list[dict[int, float]] = []
    for metrics in logged:
        x, y = series(metrics, key)
        smooth.append(dict(zip(x, running_mean(y, window).tolist(), strict=True)) if x else {})
    common = sorted(set.intersection(*map(set, smooth))) if smooth else []
    values = np.array([[seed[i] for i in common] for seed in smooth])  # [seeds, iterations]
    if against != "iteration":
        nothing = {0: 0.0}  # before the first iteration nothing was spent, and nothing is logged of it
        spent = [
            nothing | {line["iteration"]: line[against] for line in metrics if against in line} for metrics in logged
        ]
        common = [i for i in common if all(i in seed for seed in spent)]
        values = np.array([[seed[i] for i in common] for seed in smooth])
        at = [float(np.mean([seed[i] for seed in spent])) for i in common]
    else:
        at = [float(i) for i in common]
    if not common:
        return [], [], [], []
    return at, values.min(0).tolist(), values.mean(0).tolist(), values.max(0).tolist()


def _pale(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},.18)"


MOST_BANDS = 60


def phase_bands(figure: go.Figure, iterations: int) -> go.Figure:
    """Shade phase A (planner learns) and phase B (executor learns) of each iteration, which ends where it is counted.

    For at most `MOST_BANDS` iterations: more would be a grey wall.
    """
    if not 0 < iterations <= MOST_BANDS:
        return figure
    for i in range(iterations):
        for begin, colour in ((i, BLUE), (i + 0.5, VERMILION)):
            band = {"fillcolor": colour, "opacity": 0.09, "line_width": 0, "layer": "below"}
            figure.add_shape(type="rect", x0=begin, x1=begin + 0.5, y0=0, y1=1, yref="paper", **band)
    words = "bands: <b>A</b> blue, planner learns · <b>B</b> red, executor learns"
    return figure.update_xaxes(title=f"{figure.layout.xaxis.title.text} ({words})")
