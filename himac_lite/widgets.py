"""Things to touch: group advantages at both levels, a recorded episode on its board, a run's curves.

Everything is computed from recorded arrays: no torch, no model. What a model wrote is escaped before it becomes HTML.
A control's callback may run while a cell is busy (ipykernel 7 gives it a thread of its own), so it takes a lock.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from threading import RLock
from typing import Any

import anywidget
import ipywidgets as widgets
import numpy as np
import plotly.graph_objects as go
import plotly.io
import traitlets

from himac_lite import plots
from himac_lite.advantage import group_advantage
from himac_lite.errors import RunError
from himac_lite.plots import SYMBOLS, Record
from himac_lite.runs import Run, load_run
from himac_lite.sokoban import levels, render
from himac_lite.sokoban.rules import Board, Outcome, board_from_level, step
from himac_lite.types import Level

_STATIC = Path(__file__).parent / "static"
_STYLE = f"<style>{(_STATIC / 'explorer.css').read_text('utf-8')}</style>"
_KEY = "✓ &lt;sub_done&gt; · ◷ budget used up · ★ level solved · ✂ out of steps"


def recorded_run(name: str = "quickstart") -> Run:
    """A run that is recorded with the package. Raises `RunError` that says where it was looked for and what to do."""
    folder = levels.data_dir() / "runs" / name
    if not folder.is_dir():
        mine = "open one of your own by himac_lite.load_run(FOLDER); himac-lite train --out FOLDER makes it"
        raise RunError(f"the recorded run {name!r} is not at {folder}: get the whole repository, or {mine}")
    return load_run(folder)


def playback(record: Record, group: str = "micro", member: int | None = None) -> dict[str, Any]:
    """All positions of one recorded trajectory, as the player wants them; a cell is row × width + column.

    group: ``macro`` (greedy execution of a blueprint) or ``micro`` (sampled execution of z*, or flat play).
    member: its index in the group; by default z* of the macro group and the highest return of the micro group.
    """
    if group not in record:
        raise RunError(f"this record has no {group!r} group; it has {' and '.join(g for g in SYMBOLS if g in record)}")
    members = record[group]["members"]
    if member is None:
        member = record["macro"]["best"] if group == "macro" else int(np.argmax([m["return"] for m in members]))
    chosen = members[member]
    board = board_from_level(Level(tuple(record["level"].split("\n"))))
    boxes = sorted(board.boxes)
    frames, happened = [[board.player, *boxes]], []
    for move in chosen["moves"]:
        (r, c), (board, outcome) = board.player, step(board, move)
        if outcome is Outcome.PUSHED:  # the box went on by the player's own step
            boxes[boxes.index(board.player)] = (2 * board.player[0] - r, 2 * board.player[1] - c)
        frames.append([board.player, *boxes])
        happened.append(outcome.name.lower())
    text, reason = plots.executed_blueprint(record, group, member)
    goals = [{"text": s["subgoal"], "steps": s["steps"], "end": s["end"]} for s in chosen["segments"]]
    if text is None:
        goals, note = [{**goal, "text": "(flat play: no blueprint)"} for goal in goals], ""
    elif reason:
        note = f"{text.strip()}\n✗ not executed: {reason}"
    else:
        rest = text.strip("\n").split("\n")[len(goals) :]
        goals, note = goals + [{"text": line, "steps": 0, "end": ""} for line in rest if line], ""
    empty = Board(board.height, board.width, board.walls, frozenset(), frozenset(), board.player)
    what = f"{SYMBOLS[group]}{member + 1}, {'' if chosen['success'] else 'not '}solved"
    return {
        "title": f"{record.get('title') or 'level'} · {what}", "board": render.to_svg(empty, coordinates=True),
        "width": board.width, "targets": [r * board.width + c for r, c in sorted(board.targets)],
        "frames": [[r * board.width + c for r, c in frame] for frame in frames],
        "moves": chosen["moves"], "happened": happened, "subgoals": goals, "note": note,
    }  # fmt: skip


class RolloutPlayer(anywidget.AnyWidget):
    """A recorded episode on its board, forward and back, with the active sub-goal and how each ended.

    It plays in the browser, so it plays while the kernel is busy. Arguments: see `playback`.
    """

    _esm = (_STATIC / "player.js").read_text("utf-8")
    _css = (_STATIC / "player.css").read_text("utf-8")
    data = traitlets.Dict().tag(sync=True)

    def __init__(self, record: Record, group: str = "micro", member: int | None = None, **kwargs: Any) -> None:
        super().__init__(data=playback(record, group, member), **kwargs)

    def show(self, record: Record, group: str = "micro", member: int | None = None) -> None:
        """Another episode in the same place."""
        self.data = playback(record, group, member)


BASELINES = [("mean of the group", "mean"), ("leave one out", "leave_one_out"), ("mean of the batch", "batch")]
SCALES = [("std of the group", "std"), ("none", "none"), ("std of the batch", "batch")]


def _dropdown(name: str, options: Sequence[Any], value: Any) -> widgets.Dropdown:
    style, layout = {"description_width": "initial"}, {"width": "auto"}
    return widgets.Dropdown(description=name, options=options, value=value, style=style, layout=layout)


class AdvantageExplorer(widgets.VBox):
    """Two linked levels of one recorded level: eight blueprints, and eight executions of the best of them.

    source: a run, or the records of one iteration, or one record. It opens where both groups have a difference to show.
    ``advantages`` holds what is shown: {"macro": [G], "micro": [N]} (no "macro" for flat play).
    """

    def __init__(self, source: Run | Record | Sequence[Record], **kwargs: Any) -> None:
        self._lock, self._filling = RLock(), False
        self._playing: tuple[Any, ...] = ()
        self._run = source if isinstance(source, Run) else None
        given = [] if isinstance(source, Run) else [source] if isinstance(source, Mapping) else list(source)
        self._recorded: dict[int, Sequence[Record]] = {0: given}
        numbers = self._run.recorded_iterations() if self._run else [0]
        if not numbers or (self._run is None and not given):
            raise RunError(f"{self._run.folder if self._run else 'the list'} holds no recorded rollouts")
        first, level = next((found for i in numbers if (found := self._telling(i))), (numbers[0], 0))
        self.advantages: dict[str, np.ndarray] = {}

        self.iteration = _dropdown("iteration", numbers, first)
        self.level = _dropdown("level", [("", level)], level)
        self.member = _dropdown("member", [("", ("micro", 0))], ("micro", 0))
        self.baseline = _dropdown("baseline b", BASELINES, "mean")
        self.scale = _dropdown("scale s", SCALES, "std")
        self.ddof = _dropdown("ddof", [0, 1], 0)
        self.eps = widgets.FloatLogSlider(1e-6, base=10, min=-8, max=0, step=0.5, description="ε", readout_format=".0e")
        self.eps.style.description_width, self.eps.layout = "initial", widgets.Layout(width="230px")
        self.groups, self.arithmetic = widgets.HTML(), widgets.HTML()
        self.player = RolloutPlayer(self._records(first)[level])

        wrap = {"display": "flex", "flex_flow": "row wrap"}
        which = [self.iteration] if len(numbers) > 1 else []
        top = widgets.HBox([*which, self.level, self.member], layout=wrap)
        dials = widgets.HBox([self.baseline, self.scale, self.ddof, self.eps], layout=wrap)
        left = widgets.VBox([self.groups], layout={"flex": "1 1 440px", "min_width": "0"})
        right = widgets.VBox([self.player, self.arithmetic], layout={"flex": "1 1 260px", "max_width": "380px"})
        super().__init__([widgets.HTML(_STYLE), top, dials, widgets.HBox([left, right], layout=wrap)], **kwargs)
        for control in (self.iteration, self.level, self.member, self.baseline, self.scale, self.ddof, self.eps):
            control.observe(self._changed, "value")
        self._fill(level)
        self._draw()

    @property
    def record(self) -> Record:
        """The recorded level that is shown."""
        return self._records(self.iteration.value)[self.level.value]

    def _records(self, iteration: int) -> Sequence[Record]:
        if self._run and iteration not in self._recorded:
            self._recorded[iteration] = self._run.rollouts(iteration)
        return self._recorded[iteration]

    def _telling(self, iteration: int) -> tuple[int, int] | None:
        """The first level of an iteration whose groups all have a difference to show."""
        for p, record in enumerate(self._records(iteration)):
            if all(len({m["return"] for m in record[g]["members"]}) > 1 for g in SYMBOLS if g in record):
                return iteration, p
        return None

    def _fill(self, level: int | None = None) -> None:
        """The choices of level (if its number is given) and member that the record now shown has."""
        records = self._records(self.iteration.value)
        if level is not None:
            self.level.options = [(f"{p + 1}: {r.get('title') or 'untitled'}", p) for p, r in enumerate(records)]
            self.level.value = level
        record = records[self.level.value]
        members = [(g, n) for g in SYMBOLS if g in record for n in range(len(record[g]["members"]))]
        self.member.options = [(f"{SYMBOLS[g]}{n + 1}", (g, n)) for g, n in members]
        self.member.value = ("macro", record["macro"]["best"]) if "macro" in record else members[0]

    def _changed(self, change: Any) -> None:
        with self._lock:
            if self._filling:
                return
            self._filling = True
            try:
                if change.owner in (self.iteration, self.level):
                    self._fill(0 if change.owner is self.iteration else None)
                self._draw()
            finally:
                self._filling = False

    def _draw(self) -> None:
        records, p = self._records(self.iteration.value), self.level.value
        choices = {name: getattr(self, name).value for name in ("baseline", "scale", "ddof", "eps")}
        group, n = self.member.value
        present = [g for g in SYMBOLS if g in records[p]]
        if self._playing != (self.iteration.value, p, group, n):
            self._playing = (self.iteration.value, p, group, n)
            self.player.show(records[p], group, n)
        batch = {g: _returns(records, p, g) for g in present}
        try:
            found = {g: group_advantage(r_pn, **choices)[q] for g, (r_pn, q) in batch.items()}
        except ValueError as error:  # a choice that a group this small does not allow
            self.groups.value = self.arithmetic.value = f'<p class="hx hx-flag">{escape(str(error))}</p>'
            return
        self.advantages = found
        limit = max(3.0, *(float(np.abs(a).max()) for a in found.values()))
        chosen = {group: n}
        tables = [plots.group_table(records[p], g, found[g], limit, chosen.get(g)) for g in present]
        key = f'<p class="hx-key">{_KEY}. Bars reach ±{limit:.2g}.</p>'
        self.groups.value = f'<div class="hx">{"".join(tables)}{key}</div>'
        sums = plots.arithmetic(*batch[group], n, float(found[group][n]), choices)
        self.arithmetic.value = (
            f'<div class="hx"><h4>The arithmetic of {SYMBOLS[group]}{n + 1}</h4><div class="hx-sum">{sums}</div>'
            f"<p>{plots.credit_note(records[p], group, n)}</p></div>"
        )


def _returns(records: Sequence[Record], p: int, group: str) -> tuple[np.ndarray, int]:
    """Returns [P, N] of the recorded batch and the row of level p; the level alone where groups differ in size."""
    rows = [[m["return"] for m in record[group]["members"]] for record in records]
    if len({len(row) for row in rows}) > 1:
        return np.array([rows[p]], dtype=np.float64), 0
    return np.array(rows, dtype=np.float64), p


VIEWS = {
    "levels solved": "",
    "groups without a difference": "zero_variance",
    "KL from the base model": "kl",
    "entropy": "entropy",
    "clip fraction": "clip_fraction",
}
"""What the dashboard can show: title → metric of both phases (see docs/metrics.md)."""


class TrainingDashboard(widgets.VBox):
    """A run's figures and curves, from its folder, finished or not; `refresh` reads it again.

    Live: display it and give `himac_lite.train` ``progress=dashboard.refresh``; the folder need not exist yet.
    """

    def __init__(self, run: Run | str | os.PathLike[str], window: int = 10, **kwargs: Any) -> None:
        self.run = run if isinstance(run, Run) else Run(Path(run))
        self._lock = RLock()
        style = {"description_width": "initial"}
        self.view = _dropdown("curves", list(VIEWS), "levels solved")
        self.window = widgets.IntSlider(window, 1, 50, description="running mean", style=style)
        self.again = widgets.Button(description="read again", icon="refresh", layout={"width": "auto"})
        self.summary, self.curves = widgets.HTML(), widgets.Output()
        controls = widgets.HBox([self.view, self.window, self.again], layout={"flex_flow": "row wrap"})
        super().__init__([self.summary, controls, self.curves], **kwargs)
        self.view.observe(self.refresh, "value")
        self.window.observe(self.refresh, "value")
        self.again.on_click(self.refresh)
        self.refresh()

    def figure(self) -> go.Figure:
        key = VIEWS[self.view.value]
        if not key:
            return plots.training_curves(self.run, self.window.value)
        names = {f"macro/{key}": "phase A: blueprints", f"micro/{key}": "phase B: executions"}
        return plots.metric_curves(self.run.metrics(), names, self.view.value, self.window.value)

    def refresh(self, *_: Any) -> None:
        """Draw what the run has written so far. Takes what a control, or a trainer after an iteration, hands over."""
        with self._lock:
            figure = self.figure()
            self.summary.value = f'{_STYLE}<div class="hx hx-cards">{_cards(self.run)}</div>'
            if "google.colab" in sys.modules:  # Colab shows plotly as HTML only
                data = plotly.io.renderers["colab"].to_mimebundle(figure.to_dict())
            else:
                data = {"application/vnd.plotly.v1+json": json.loads(figure.to_json())}
            self.curves.outputs = ({"output_type": "display_data", "data": data, "metadata": {}},)


def _cards(run: Run) -> str:
    """The figures to know, in a row: budget spent, and success of random, base and trained policy."""
    metrics, results = run.metrics(), run.results
    last: Mapping[str, Any] = next((line for line in reversed(metrics) if "env_steps" in line), {})
    cards = [
        ("iterations", f"{last.get('iteration', 0)}"),
        ("environment steps", f"{last.get('env_steps', 0):,}"),
        ("minutes", f"{last.get('seconds', 0) / 60:.1f}"),
    ]
    for key, name in (("random", "random policy"), ("base", "base model"), ("trained", "trained model")):
        if key in results:
            low, high = results[key]["ci95"]
            what = f"{name} ({100 * low:.0f}–{100 * high:.0f} % of {results[key]['n']} test levels)"
            cards.append((what, f"{100 * results[key]['success']:.0f} %"))
    if not results:
        cards.append(("no final scores yet", "…"))
    return "".join(f"<span><b>{escape(value)}</b>{escape(name)}</span>" for name, value in cards)
