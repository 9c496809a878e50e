"""One level over training: the blueprints of its macro group at selected iterations, and the changes of z*.

It needs a level that was recorded at several iterations. Training records `probe_levels` levels every `probe_every`
iterations (see himac_lite/settings.py).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from html import escape
from threading import RLock
from typing import Any

import ipywidgets as widgets

from himac_lite.errors import RunError, checked
from himac_lite.runs.folder import Run, load_run
from himac_lite.widgets import pictures
from himac_lite.widgets.base import STYLE, Pictured, dropdown
from himac_lite.widgets.credit import shared_words
from himac_lite.widgets.plots import Record, executed_blueprint, signed

COLUMNS = 6
"""Number of iterations shown at first."""


def recurring(run: Run) -> dict[str, dict[int, Record]]:
    """Level's text → iteration → record, for levels that were recorded at two or more iterations."""
    found: dict[str, dict[int, Record]] = {}
    for iteration in run.recorded_iterations():
        for record in run.rollouts(iteration):
            if "macro" in record:
                found.setdefault(record["level"], {})[iteration] = record
    return {level: records for level, records in found.items() if len(records) > 1}


def distinct(record: Record) -> list[dict[str, Any]]:
    """The different blueprints of a macro group: {text, invalid, count, ret, advantage, best}; z* first, then by count.

    Execution is greedy, so equal texts have equal returns and advantages.
    """
    out: dict[str, dict[str, Any]] = {}
    for g, member in enumerate(record["macro"]["members"]):
        text, reason = executed_blueprint(record, "macro", g)
        said = (text or "").strip("\n")
        entry = out.setdefault(
            said + reason,
            {"text": said, "invalid": reason, "count": 0, "ret": member["return"], "advantage": member["advantage"],
             "best": False},
        )  # fmt: skip
        entry["count"] += 1
        entry["best"] |= g == record["macro"]["best"]
    return sorted(out.values(), key=lambda entry: (not entry["best"], -entry["count"]))


def z_star(record: Record) -> str:
    """The blueprint that the executor practised: the best member's, or one that no member wrote."""
    return (executed_blueprint(record, "micro", 0)[0] or "").strip("\n")


def change(before: str, after: str) -> list[tuple[str, str]]:
    """The change of z*: each sub-goal with "+" (new), "−" (removed) or "=" (kept), in the new order first."""
    old, new = before.split("\n"), after.split("\n")
    return [("=" if line in old else "+", line) for line in new] + [("−", line) for line in old if line not in new]


@checked
class CoEvolutionStrip(Pictured, widgets.VBox):
    """Columns of blueprints, one per iteration: the planner's blueprints for one level, and which became z*.

    run: a run or its folder, with probe levels, or with any level that was recorded twice. level: its number among
    these levels. iterations: the iterations shown first; by default a selection.
    Raises RunError if no level was recorded twice, or if it has no such level or iteration.
    """

    def __init__(
        self, run: str | os.PathLike[str] | Run, level: int = 0, iterations: Sequence[int] | None = None, **kwargs: Any
    ) -> None:
        run = load_run(run)
        self._lock, self._found = RLock(), list(recurring(run).values())
        if not self._found:
            raise RunError(
                f"{run.folder} recorded no level with blueprints twice; train with probe_levels of 1 or more "
                "(himac-lite train --set probe_levels=2)"
            )
        if not 0 <= level < len(self._found):
            raise RunError(f"there is no level {level}; {run.folder} recorded {len(self._found)} twice, counted from 0")
        if missing := sorted(set(iterations or ()) - self._found[level].keys()):
            there = ", ".join(map(str, self._found[level]))
            raise RunError(f"{run.folder} did not record level {level} at iteration {missing[0]}, but at {there}")
        titles = [
            (f"{p + 1}: {next(iter(of.values())).get('title') or 'untitled'}", p) for p, of in enumerate(self._found)
        ]
        self.level = dropdown("level", titles, level)
        self.iterations = widgets.SelectMultiple(description="iterations", rows=4, layout={"width": "200px"})
        self.strip = widgets.HTML(layout={"width": "auto", "overflow": "auto"})  # 100 % plus margins would be clipped
        self._fill(iterations)
        top = widgets.HBox([self.level, self.iterations], layout={"flex_flow": "row wrap"})
        super().__init__([top, self.strip], **kwargs)
        self.level.observe(lambda _: self._fill(None), "value")
        self.iterations.observe(self._draw, "value")
        self._draw()

    @property
    def shown(self) -> dict[int, Record]:
        """Iteration → record, in the order of the columns."""
        records = self._found[self.level.value]
        return {i: records[i] for i in self.iterations.value}

    def _fill(self, wanted: Sequence[int] | None) -> None:
        there = list(self._found[self.level.value])
        last = len(there) - 1
        some = sorted({there[round(k * last / (COLUMNS - 1))] for k in range(COLUMNS)})
        with self._lock:
            self.iterations.options = there
            self.iterations.value = tuple(i for i in there if i in (wanted if wanted is not None else some))

    def _draw(self, *_: Any) -> None:
        with self._lock:
            self.strip.value = f'{STYLE}<div class="hx hx-strip">{columns(self.shown)}</div>'

    def words(self) -> str:
        lines, before = ["Blueprints of one level through training"], ""
        for i, record in self.shown.items():
            entries = distinct(record)
            lines.append(f"iteration {i}: {_solved(record)}")
            lines += [
                f"  {'z* ' if e['best'] else ''}{e['count']} × {e['text'].replace(chr(10), ' / ')} {e['invalid']}: "
                f"return {e['ret']:.2f}, advantage {signed(e['advantage'])}"
                for e in entries
            ]
            best = z_star(record)
            if before:
                lines.append("  z* is the same" if best == before else f"  z* was {before.replace(chr(10), ' / ')}")
            before = best
        return "\n".join(lines)

    def picture(self) -> bytes:
        return pictures.lines_picture(self.words())


def _solved(record: Record) -> str:
    members = record["macro"]["members"]
    return f"{sum(bool(m['success']) for m in members)} of {len(members)} solve it"


def columns(shown: Mapping[int, Record]) -> str:
    """The strip as HTML; text of a model is escaped."""
    out, before = [], None
    for i, record in shown.items():
        entries, words = distinct(record), shared_words(record)
        cards = [_card(entry, words) for entry in entries]
        best = z_star(record)
        if record["macro"]["best"] < 0:
            story = "z* is the task's own solution, none of these"
        elif before is None:
            story = "z* at the beginning of the strip"
        elif best == before:
            story = "z* is the same as before"
        elif all(sign == "=" for sign, _ in change(before, best)):
            story = "z* has the same sub-goals as before, in another order"
        else:
            marks = {"+": "hx-new", "−": "hx-gone", "=": "hx-kept"}
            said = [(sign, line.removeprefix(words)) for sign, line in change(before, best)]
            lines = [f'<div class="{marks[sign]}">{sign} {escape(line or "–")}</div>' for sign, line in said]
            story = f"z* changed:{''.join(lines)}"
        before = best
        out.append(
            f'<section aria-label="iteration {i}"><h4>iteration {i}</h4><p class="hx-key">{_solved(record)}</p>'
            f'{cards[0]}<div class="hx-story">{story}</div>{"".join(cards[1:])}</section>'
        )
    return "".join(out) or "<p>Choose iterations.</p>"


def _card(entry: Mapping[str, Any], words: str) -> str:
    lines = "<br>".join(escape(line.removeprefix(words)) for line in entry["text"].split("\n"))
    bad = f'<div class="hx-bad">✗ {escape(entry["invalid"])}</div>' if entry["invalid"] else ""
    a = entry["advantage"]
    sign = "+" if a > 5e-7 else "-" if a < -5e-7 else "0"
    label = f"{'z*, ' if entry['best'] else ''}{entry['count']} times, return {entry['ret']:.2f}, advantage {signed(a)}"
    star = "★ z* · " if entry["best"] else ""
    return (
        f'<div class="hx-plan-card{" hx-best" * entry["best"]}" data-sign="{sign}" role="group" aria-label="{label}">'
        f"<div>{lines or '–'}</div>{bad}"
        f"<small>{star}×{entry['count']} · R {entry['ret']:.2f} · A {signed(a)}</small></div>"
    )
