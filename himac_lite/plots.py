"""Records → plotly figures. Pure: nothing is read but what is handed in, nothing is drawn but what is returned.

Backgrounds are transparent and text is a grey that reads on white and on black, so a figure fits a light and a dark
notebook. Colours are Okabe and Ito's, and none carries a meaning alone: lines differ in dash and marker too, and the
sign of an advantage is also a direction and a number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import cycle, takewhile
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from himac_lite.advantage import zero_variance
from himac_lite.runs import Run
from himac_lite.types import Invalid

BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
TEXT = "#7A7A7A"
"""4.3 : 1 on white, 4.4 : 1 on JupyterLab's black."""
POSITIVE, NEGATIVE = BLUE, VERMILION
"""The sign of an advantage."""

Record = Mapping[str, Any]
"""One line of a run's rollouts/*.jsonl: a level with its `macro` and `micro` group."""
SYMBOLS = {"macro": "z", "micro": "τ"}
_MARK = {"sub_done": "✓", "budget": "◷", "success": "★", "truncated": "✂"}
HEIGHT, LONGEST_LABEL = 440, 28


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
_PERCENT = "%{y:.1%}"


def _line(x: list[int], y: list[float], name: str, colour: str, dash: str, **more: Any) -> go.Scatter:
    line = {"color": colour, "dash": dash, "width": 2.5}
    return go.Scatter(x=x, y=y, name=name, line=line, **{"mode": "lines", "hovertemplate": _PERCENT, **more})


def _curves(
    metrics: Sequence[Mapping[str, Any]], results: Mapping[str, Any], window: int, prefix: str, number: int
) -> list[go.Scatter]:
    dash = _DASHES[number % len(_DASHES)]
    flat = not any("macro/success" in line for line in metrics)
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
    legend = {"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top", "itemsizing": "constant"}
    figure.update_layout(**_layout(HEIGHT), legend=legend, showlegend=True)
    figure.update_layout(hovermode="x unified", hoverlabel={"namelength": -1})
    figure.update_xaxes(title="iteration", rangemode="tozero")
    figure.update_yaxes(title=title, rangemode="tozero")
    if not figure.data:
        figure.add_annotation(text="nothing recorded yet", showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper")
    return figure


def advantage_bars(
    returns: ArrayLike, advantages: ArrayLike, labels: Sequence[str] | None = None, best: int | None = None
) -> go.Figure:
    """One group: the advantage of each member as a bar from zero, its return beside its label, z* with a star.

    returns, advantages: [N]. labels: N texts, z1 … by default; they may come from a model. best: index of z*, or None.
    Raises ValueError if the lengths differ or `best` is not a member.
    """
    return_n, advantage_n = np.asarray(returns, np.float64), np.asarray(advantages, np.float64)
    names = [f"z{n + 1}" for n in range(len(return_n))] if labels is None else list(labels)
    if return_n.ndim != 1 or return_n.shape != advantage_n.shape or len(names) != len(return_n) or not names:
        shapes = f"{return_n.shape}, {advantage_n.shape}, {len(names)}"
        raise ValueError(f"returns, advantages and labels must be of one length: {shapes}")
    if best is not None and not 0 <= best < len(names):
        raise ValueError(f"best must be one of 0 … {len(names) - 1}, not {best}")
    lines = [" ".join(name.split()) for name in names]
    cut = [line if len(line) <= LONGEST_LABEL else line[: LONGEST_LABEL - 1] + "…" for line in lines]
    shown = [("★ " if n == best else "") + escape(line, quote=False) for n, line in enumerate(cut)]
    ticks = [f"{name}  <i>R</i> {ret:.2f}" for name, ret in zip(shown, return_n, strict=True)]
    limit = max(1.0, float(np.abs(advantage_n).max())) * 1.25  # the number beside the longest bar stays inside
    bars = go.Bar(
        x=advantage_n.tolist(), y=list(range(len(names))), orientation="h", name="advantage",
        marker={"color": [POSITIVE if a > 0 else NEGATIVE if a < 0 else TEXT for a in advantage_n]},
        text=[signed(a) for a in advantage_n], textposition="outside", cliponaxis=False,
        customdata=[escape(name, quote=False).replace("\n", "<br>") for name in names],
        hovertemplate="%{customdata}<br>advantage %{text}<extra></extra>",
    )  # fmt: skip
    figure = go.Figure(bars)
    figure.update_layout(**_layout(90 + 30 * len(names)), showlegend=False, bargap=0.25)
    figure.update_xaxes(title="advantage", range=[-limit, limit], zeroline=True, zerolinecolor=TEXT, zerolinewidth=1)
    figure.update_yaxes(tickvals=list(range(len(names))), ticktext=ticks, range=[len(names) - 0.5, -0.5])
    return figure


def signed(value: float, digits: int = 2) -> str:
    """A number with its sign, as people set it: +1.73, −0.58, 0.00."""
    text = f"{abs(value):.{digits}f}"
    return text if float(text) == 0 else f"{'+' if value > 0 else '−'}{text}"


def _layout(height: int) -> dict[str, Any]:
    grid = "rgba(128,128,128,.25)"
    axis = {"automargin": True, "gridcolor": grid, "linecolor": grid, "zeroline": False}
    return {
        "height": height, "autosize": True, "margin": {"l": 64, "r": 24, "t": 24, "b": 56},
        "font": {"color": TEXT, "size": 13}, "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)",
        "template": {"layout": {"xaxis": axis, "yaxis": axis}},
    }  # fmt: skip


# Groups as HTML, for the widgets. Whatever a model wrote is escaped here.


def executed_blueprint(record: Record, group: str, member: int) -> tuple[str | None, str]:
    """The text that a member executed (None for flat play), and why it is invalid, if so."""
    if group == "micro":
        if "macro" not in record:
            return None, ""
        member = record["macro"]["best"]
    planned = record["macro"]["members"][member]
    name = planned["invalid"]
    reason = Invalid[name].value if name in Invalid.__members__ else str(name or "")
    return planned["blueprint"], reason


def arithmetic(return_pn: np.ndarray, p: int, n: int, advantage: float, choices: Mapping[str, Any]) -> str:
    """The formula of `group_advantage` with the numbers of member n of group p in it, as HTML lines."""
    r_n, ret = return_pn[p], return_pn[p, n]
    total, count = _figure(r_n.sum()), len(r_n)
    if choices["baseline"] == "mean":
        b, how = r_n.mean(), f"mean of the group = {total} / {count}"
    elif choices["baseline"] == "leave_one_out":
        b, how = (r_n.sum() - ret) / (count - 1), f"mean of the others = ({total} − {_figure(ret)}) / {count - 1}"
    else:
        b, how = return_pn.mean(), f"mean of the batch = {_figure(return_pn.sum())} / {return_pn.size}"
    lines = [f"R = {_figure(ret)}", f"b = {how} = {_figure(b)}"]
    above, result = f"{_figure(ret)} − {_figure(b)}", f"<b>{signed(advantage, 4)}</b>"
    if advantage == 0 and zero_variance(r_n[None])[0]:
        lines.append("all returns are equal: A = <b>0</b>, exactly")
    elif choices["scale"] == "none":
        lines.append(f"A = R − b = {above} = {result}")
    else:
        name, pool = ("group", r_n) if choices["scale"] == "std" else ("batch", return_pn.ravel())
        squares, s = _figure(((pool - pool.mean()) ** 2).sum()), _figure(pool.std(ddof=choices["ddof"]))
        below = f"({len(pool)} − {choices['ddof']})" if choices["ddof"] else len(pool)
        lines.append(f"s = std of the {name} = √(Σ(R<sub>j</sub> − mean)² / {below}) = √({squares} / {below}) = {s}")
        lines.append(f"A = (R − b) / (s + ε) = ({above}) / ({s} + {choices['eps']:.0e}) = {result}")
    return "<br>".join(lines)


def _figure(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")


def _row(label: str, text: str, ret: float, advantage: float, limit: float, chosen: bool) -> str:
    width = 50 * min(1.0, abs(advantage) / limit)
    side, colour = ("left", POSITIVE) if advantage > 0 else ("right", NEGATIVE)
    return (
        f'<div class="hx-row{" hx-chosen" if chosen else ""}"><span class="hx-star">{label}</span><span>{text}</span>'
        f'<span class="hx-num">{ret:.2f}</span>'
        f'<span class="hx-bar" role="img" aria-label="advantage {signed(advantage)}">'
        f'<i style="{side}:50%;width:{width:.1f}%;background:{colour}"></i></span>'
        f'<span class="hx-num">{signed(advantage)}</span></div>'
    )


def zero_variance_note(returns: Sequence[float], advantages: np.ndarray) -> str:
    """What follows when all returns of a group are equal; nothing if they are not."""
    if not zero_variance([returns])[0]:
        return ""
    nothing = (
        "nothing to compare. Every advantage is exactly 0: the group teaches nothing and is left out of the update."
    )
    what = "but against the mean of the batch they still stand for something." if advantages.any() else nothing
    return f'<p class="hx-flag">All {len(returns)} returns are {returns[0]:.2f}: {what}</p>'


def credit_note(record: Record, group: str, n: int) -> str:
    """Which tokens a member's advantage trains."""
    member = record[group]["members"][n]
    parts = [member] if group == "macro" else member["sequences"]
    count = sum(sum(part["sampled"]) for part in parts)
    actions = "action tokens (with &lt;sub_done&gt;), in phase B" if "macro" in record else "action tokens"
    what = "blueprint tokens, in phase A" if group == "macro" else actions
    return f"This one number is the credit of all its {count} {what}."


def group_table(record: Record, group: str, advantages: np.ndarray, limit: float, chosen: int | None) -> str:
    """One group as rows: what each member is, its return, its advantage as a bar of at most ±limit."""
    members, best = record[group]["members"], record["macro"]["best"] if "macro" in record else None
    returns = [m["return"] for m in members]
    if group == "macro":
        title = f"Macro group: {len(members)} blueprints, executed greedily"
    elif best is None:
        title = f"Flat group: {len(members)} episodes, without a plan"
    else:
        title = f"Micro group: {len(members)} sampled executions of z* = z{best + 1}"
    rows = []
    for n, (member, a) in enumerate(zip(members, advantages, strict=True)):
        label = f"{SYMBOLS[group]}{n + 1}" + (" ★" if group == "macro" and n == best else "")
        rows.append(_row(label, _told(record, group, n), member["return"], float(a), limit, n == chosen))
    spread = f'<span class="hx-key">mean {np.mean(returns):.3g}, std {np.std(returns):.3g}</span>'
    words = f"{escape(_shared_words(record))}…" if group == "macro" else "moves; capitals push a box"
    head = f'<span>{words}</span><span class="hx-num">return</span><span class="hx-mid">− advantage +</span>'
    title = f"<h4>{title} {spread}</h4>{zero_variance_note(returns, advantages)}"
    return f'{title}<div class="hx-row hx-head"><span></span>{head}<span></span></div>{"".join(rows)}'


def _shared_words(record: Record) -> str:
    """The words with which every sub-goal of the valid blueprints begins: said once, rows stay short."""
    texts = [m["blueprint"].strip("\n").split("\n") for m in record["macro"]["members"] if not m["invalid"]]
    columns = zip(*(line.split() for text in texts for line in text), strict=False)
    return "".join(f"{c[0]} " for c in takewhile(lambda c: len({*c}) == 1 and c[0].isalpha(), columns))


def _told(record: Record, group: str, n: int) -> str:
    if group == "macro":
        text, reason = executed_blueprint(record, group, n)
        lines = (text or "").strip("\n").split("\n")
        short = " · ".join(line.removeprefix(_shared_words(record)) for line in lines)
        bad = f' <span class="hx-bad">✗ {escape(reason)}</span>' if reason else ""
        return f'<span title="{escape(text or "")}">{escape(short)}{bad}</span>'
    parts, start, member = [], 0, record[group]["members"][n]
    for segment in member["segments"]:
        parts.append(f"{member['moves'][start : start + segment['steps']]}{_MARK.get(segment['end'], '')}")
        start += segment["steps"]
    return f"<code>{escape(' '.join(parts)) or '–'}</code>"
