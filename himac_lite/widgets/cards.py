"""Recorded trajectories of a text-action task, page by page; `player` shows a board instead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anywidget
import traitlets

from himac_lite.errors import RunError, checked
from himac_lite.widgets.base import Pictured, browser_code, records_of
from himac_lite.widgets.pictures import lines_picture
from himac_lite.widgets.plots import SYMBOLS, Record, best_of, executed_blueprint, members_of, signed
from himac_lite.widgets.replay import is_text

SEP = " [SEP] "
Wanted = tuple[str, int]
"""Group and index of a member."""


def member_of(record: Record, group: str, member: int | None, plan: int | None) -> int:
    """The index of a member: by default z* of the macro group, or the highest return of the micro group.

    Raises RunError if the record has no such group or member.
    """
    if group not in SYMBOLS or group not in record:
        raise RunError(f"this record has no {group!r} group; it has {' and '.join(g for g in SYMBOLS if g in record)}")
    members = members_of(record, group, plan)
    if member is None:
        returns = [m["return"] for m in members]
        member = best_of(record) if group == "macro" else returns.index(max(returns)) if returns else 0
    if not 0 <= member < len(members):
        raise RunError(f"there is no member {member}: this {group} group has {len(members)} members, counted from 0")
    return member


def cards(record: Record, plan: int | None = None) -> list[dict[str, Any]]:
    """The data of every member for cards.js: title, plan, and for each step the active sub-goal, action and texts."""
    out = []
    for group, n, member in ((g, n, m) for g in SYMBOLS for n, m in enumerate(members_of(record, g, plan))):
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


class EpisodePlayer(Pictured, anywidget.AnyWidget):
    """Base class of recorded episodes that play in the browser. Arguments: see `player.RolloutPlayer`."""

    shown = traitlets.List([0]).tag(sync=True)
    """The members on display: one, or two side by side."""

    def __init__(
        self, record: Record, group: str = "micro", member: int | None = None, *,
        beside: tuple[str, int] | None = None, plan: int | None = None, explorer: tuple[str, str] = ("", ""),
        **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(**kwargs)
        self.show(record, group, member, plan=plan, beside=beside, explorer=explorer)

    @checked
    def show(
        self, record: Record, group: str = "micro", member: int | None = None, *,
        plan: int | None = None, beside: tuple[str, int] | None = None, explorer: tuple[str, str] = ("", ""),
    ) -> None:  # fmt: skip
        """Show another episode of the same kind of task. Raises `RunError` if this player cannot."""
        records_of(record)
        if is_text(record) != isinstance(self, CardPlayer):
            raise RunError("this record is of another kind of task; show it with a new RolloutPlayer(record)")
        given = [(group, member), *([beside] if beside else [])]
        wanted = [(name, member_of(record, name, n, plan)) for name, n in given]
        with self.hold_sync():
            self.record = record
            self.data, self.shown = self._load(record, wanted, plan, explorer)

    def _load(
        self, record: Record, wanted: Sequence[Wanted], plan: int | None, explorer: tuple[str, str]
    ) -> tuple[dict[str, Any], list[int]]:
        """The data of all members for the browser, and the places of the wanted ones."""
        raise NotImplementedError


class CardPlayer(EpisodePlayer):
    """A recorded episode of a text-action task: each action, the page or room after it, and the active sub-goal."""

    _esm = browser_code("choosers.js", "cards.js")
    _css = browser_code("cards.css")
    data = traitlets.Dict().tag(sync=True)

    def _load(
        self, record: Record, wanted: Sequence[Wanted], plan: int | None, explorer: tuple[str, str]
    ) -> tuple[dict[str, Any], list[int]]:
        places = [(name, n) for name in SYMBOLS for n in range(len(members_of(record, name, plan)))]
        title = record.get("title") or "goal"
        return {"title": title, "members": cards(record, plan)}, [places.index(place) for place in wanted]

    def words(self) -> str:
        lines = [f"Recorded episode, {self.data['title']}"]
        for member in (self.data["members"][i] for i in self.shown):
            lines.append(member["title"])
            lines += [f"  {goal['text']}: {goal['end'] or 'not reached'}" for goal in member["goals"]]
            lines += [f"  > {step['action']}" for step in member["steps"]]
        return "\n".join(lines)

    def picture(self) -> bytes:
        lines = self.words().split("\n")[:60]
        return lines_picture("\n".join(lines), width=760, indent=12, top=8)
