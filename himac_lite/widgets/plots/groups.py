"""One group of a record: its advantages as bars, and what a member executed."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from himac_lite.types import Invalid
from himac_lite.widgets.plots.style import LONGEST_LABEL, NEGATIVE, POSITIVE, TEXT, Record, layout, signed


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
    rets = [f"{ret:.2f}".replace("-", "−") for ret in return_n]
    ticks = [f"{name}  <i>R</i> {ret}" for name, ret in zip(shown, rets, strict=True)]
    limit = max(1.0, float(np.abs(advantage_n).max())) * 1.25  # the number beside the longest bar stays inside
    bars = go.Bar(
        x=advantage_n.tolist(), y=list(range(len(names))), orientation="h", name="advantage",
        marker={"color": [POSITIVE if a > 0 else NEGATIVE if a < 0 else TEXT for a in advantage_n]},
        text=[signed(a) for a in advantage_n], textposition="outside", cliponaxis=False,
        customdata=[escape(name, quote=False).replace("\n", "<br>") for name in names],
        hovertemplate="%{customdata}<br>advantage %{text}<extra></extra>",
    )  # fmt: skip
    figure = go.Figure(bars)
    figure.update_layout(**layout(90 + 30 * len(names)), showlegend=False, bargap=0.25)
    figure.update_xaxes(title="advantage", range=[-limit, limit], zeroline=True, zerolinecolor=TEXT, zerolinewidth=1)
    figure.update_yaxes(tickvals=list(range(len(names))), ticktext=ticks, range=[len(names) - 0.5, -0.5])
    return figure


def executed_blueprint(record: Record, group: str, member: int) -> tuple[str | None, str]:
    """The text that a member executed (None for flat play), and why it is invalid, if so."""
    if group == "micro":
        if "macro" not in record:
            return None, ""
        member = record["macro"]["best"]
        if member < 0:  # z* came from elsewhere, such as the task's own solution
            return record.get("micro", {}).get("blueprint"), ""
    planned = record["macro"]["members"][member]
    name = planned["invalid"]
    reason = Invalid[name].value if name in Invalid.__members__ else str(name or "")
    return planned["blueprint"], reason
