"""Recorded trajectories of a task in plain words, page by page: the player's card of text in place of its board."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anywidget
import traitlets

from himac_lite.widgets.base import Pictured, browser_code
from himac_lite.widgets.credit import micro_groups
from himac_lite.widgets.pictures import LINE, Canvas
from himac_lite.widgets.plots import SYMBOLS, Record, executed_blueprint, signed

SEP = " [SEP] "


def is_text(record: Record) -> bool:
    """Whether a record is of a task in plain words: some member has a transcript."""
    return any("transcript" in member for _, _, member in _members(record, None))


def _members(record: Record, plan: int | None) -> Iterator[tuple[str, int, Any]]:
    """(group, index, member) of every member to choose from; plan: whose executions, by default those of z*."""
    best = record["macro"]["best"] if "macro" in record else -1
    if "macro" in record:
        for n, member in enumerate(record["macro"]["members"]):
            yield "macro", n, member
    for n, member in enumerate(micro_groups(record).get(best if plan is None else plan, [])):
        yield "micro", n, member


def cards(record: Record, plan: int | None = None) -> list[dict[str, Any]]:
    """Every member as the browser wants it: title, plan, and for each step the active sub-goal, action and texts."""
    out = []
    for group, n, member in _members(record, plan):
        name = f"{SYMBOLS[group]}{n + 1}"
        came = f"{'' if member['success'] else 'not '}solved, return {member['return']:.2f}"
        text, reason = executed_blueprint(record, group, n)
        active = [k for k, segment in enumerate(member["segments"]) for _ in range(segment["steps"])]
        told = member.get("transcript", [])
        steps = [
            {"goal": k, "action": action, "seen": seen.split(SEP)}
            for k, (action, seen) in zip(active or [0] * len(told), told, strict=False)
        ]
        goals = [{"text": s["subgoal"] or "(flat play)", "end": s["end"]} for s in member["segments"]]
        if text is not None:
            rest = [line for line in text.strip("\n").split("\n")[len(goals) :] if line]
            goals += [{"text": line, "end": ""} for line in rest]
        credit = f", advantage {signed(member['advantage'])}" if "advantage" in member else ""
        out.append({"name": name, "title": f"{name}, {came}{credit}", "goals": goals, "note": reason, "steps": steps})
    return out


class CardPlayer(Pictured, anywidget.AnyWidget):
    """A recorded episode in words, forward and back: what was done, the page or room it led to, the active sub-goal.

    It plays in the browser without the kernel. The arguments are those of `RolloutPlayer`.
    """

    _esm = browser_code("choosers.js", "cards.js")
    _css = browser_code("cards.css")
    data = traitlets.Dict().tag(sync=True)
    shown = traitlets.List([0]).tag(sync=True)
    """Which of the record's members are shown: one, or two side by side."""

    def __init__(
        self, record: Record, group: str = "micro", member: int | None = None, *,
        beside: tuple[str, int] | None = None, plan: int | None = None, explorer: Any = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(**kwargs)
        self.show(record, group, member, plan=plan, beside=beside)

    def show(
        self, record: Record, group: str = "micro", member: int | None = None, *,
        plan: int | None = None, beside: tuple[str, int] | None = None, **_: Any,
    ) -> None:  # fmt: skip
        """Another episode in the same place."""
        places = [(name, n) for name, n, _ in _members(record, plan)]
        returns = [m["return"] for name, _, m in _members(record, plan) if name == group]
        chosen = returns.index(max(returns)) if member is None and returns else member or 0
        wanted = [(group, chosen), *([beside] if beside else [])]
        with self.hold_sync():
            self.data = {"title": record.get("title") or "goal", "members": cards(record, plan)}
            self.shown = [places.index(place) for place in wanted if place in places] or [0]

    def words(self) -> str:
        lines = [f"Recorded episode, {self.data['title']}"]
        for member in (self.data["members"][i] for i in self.shown):
            lines.append(member["title"])
            lines += [f"  {goal['text']}: {goal['end'] or 'not reached'}" for goal in member["goals"]]
            lines += [f"  > {step['action']}" for step in member["steps"]]
        return "\n".join(lines)

    def picture(self) -> bytes:
        lines = self.words().split("\n")[:60]
        page = Canvas(760, 16 + LINE * len(lines))
        for i, line in enumerate(lines):
            page.text(8 + 12 * (len(line) - len(line.lstrip())), 8 + LINE * i, line, width=740)
        return page.png()
