"""One group of a record: its members, the blueprint of a member, and the advantages as bars."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from himac_lite.advantage import as_floats
from himac_lite.errors import ConfigError, checked
from himac_lite.types import Invalid
from himac_lite.widgets.plots.style import LONGEST_LABEL, NEGATIVE, POSITIVE, TEXT, Record, layout, signed


@checked
def advantage_bars(
    returns: ArrayLike, advantages: ArrayLike, labels: Sequence[str] | None = None, best: int | None = None
) -> go.Figure:
    """The advantage of each member of a group as a bar from zero, with its return; z* has a star.

    returns, advantages: [N]. labels: N texts, by default z1, z2, …; they may come from a model. best: index of z*, or
    None. Raises ConfigError if the lengths differ or `best` is out of range.
    """
    return_n, advantage_n = as_floats(returns, "returns", 1), as_floats(advantages, "advantages", 1)
    names = [f"z{n + 1}" for n in range(len(return_n))] if labels is None else list(labels)
    if return_n.shape != advantage_n.shape or len(names) != len(return_n) or not names:
        shapes = f"{return_n.shape}, {advantage_n.shape}, {len(names)}"
        raise ConfigError(f"returns, advantages and labels must be of one length: {shapes}")
    if best is not None and not 0 <= best < len(names):
        raise ConfigError(f"best must be one of 0 … {len(names) - 1}, not {best}")
    lines = [" ".join(name.split()) for name in names]
    cut = [line if len(line) <= LONGEST_LABEL else line[: LONGEST_LABEL - 1] + "…" for line in lines]
    shown = [("★ " if n == best else "") + escape(line, quote=False) for n, line in enumerate(cut)]
    rets = [f"{ret:.2f}".replace("-", "−") for ret in return_n]
    ticks = [f"{name}  <i>R</i> {ret}" for name, ret in zip(shown, rets, strict=True)]
    limit = max(1.0, float(np.abs(advantage_n).max())) * 1.25  # room for the number beside the longest bar
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


def best_of(record: Record) -> int:
    """The index of z* in the macro group; −1 for flat play and for a z* that no member wrote."""
    return record["macro"]["best"] if "macro" in record else -1


def micro_groups(record: Record) -> dict[int, Sequence[Any]]:
    """Blueprint → its sampled executions: of z* (empty if only the planner learnt), and of the others in a probe.

    −1: flat play.
    """
    more = {int(g): group["members"] for g, group in record.get("micros", {}).items()}
    return {best_of(record): record["micro"]["members"] if "micro" in record else [], **more}


def members_of(record: Record, group: str, plan: int | None = None) -> Sequence[Any]:
    """The members of a group. plan: the blueprint of a micro group; by default z*."""
    if group == "macro":
        return record["macro"]["members"] if "macro" in record else []
    return micro_groups(record).get(best_of(record) if plan is None else plan, [])


def executed_blueprint(record: Record, group: str, member: int) -> tuple[str | None, str]:
    """The blueprint that a member executed (None for flat play), and the reason if it is invalid."""
    if group == "micro":
        if "macro" not in record:
            return None, ""
        member = best_of(record)
        if member < 0:  # z* is not a member, but for example the task's own solution
            return record.get("micro", {}).get("blueprint"), ""
    planned = record["macro"]["members"][member]
    name = planned["invalid"]
    reason = Invalid[name].value if name in Invalid.__members__ else str(name or "")
    return planned["blueprint"], reason
