"""Linked group advantages at both levels: a control changes both in the browser, also while the kernel is busy.

The controls are ordinary ipywidgets. The JavaScript of `Groups` listens to them and computes the display. The kernel
also receives every choice; `AdvantageExplorer.advantages` uses `himac_lite.advantage`. Tests compare the two.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from threading import RLock
from typing import Any

import anywidget
import ipywidgets as widgets
import numpy as np
import traitlets

from himac_lite.errors import RunError, checked
from himac_lite.runs.folder import Run, load_run
from himac_lite.widgets import pictures
from himac_lite.widgets.base import PACKED, Pictured, browser_code, records_of
from himac_lite.widgets.credit import Dials, Member, comparable, credit, level_data
from himac_lite.widgets.player import RolloutPlayer
from himac_lite.widgets.plots import SYMBOLS, Record, best_of

CHOICES: dict[str, dict[str, Any]] = {
    "baseline": {"mean of the group": "mean", "leave one out": "leave_one_out", "mean of the batch": "batch"},
    "scale": {"std of the group": "std", "none": "none", "std of the batch": "batch"},
    "ddof": {"0": 0, "1": 1},
    "over": {"trajectories": "trajectories", "their steps": "steps"},
    "reward": {"as recorded": "recorded", "success: 1 or 0": "success", "shaped: boxes count": "shaped"},
}
"""Control → menu entry → value in `Dials`."""
SET = ("eps", "omega", "size", "toy_on")
"""Sliders and checkboxes."""
TITLES = {"baseline": "baseline b", "scale": "scale s", "ddof": "ddof", "over": "over", "reward": "return"}
PANELS: dict[str, tuple[str, ...]] = {
    "level": ("iteration", "level"),
    "advantage": ("baseline", "ddof", "scale", "eps", "over", "omega"),
    "experiment": ("reward", "size", "toy_on"),
}
"""Heading of a group of controls → its controls, row by row where the group has two columns."""

SENTENCES = {
    "all": "Advantages of two linked groups",
    "macro": "Macro group: # blueprints, executed greedily",
    "micro": "Micro group: # sampled executions of #",
    "flat": "Flat group: # episodes, without a plan",
    "spread": " · mean #, std #",
    "moves": "moves, capitals push",
    "macro key": "more likely|less likely|★ z*",
    "micro key": "more likely|less likely|✓ <sub_done> · ◷ budget used up · ★ solved · ✂ out of steps",
    "head": "return|− advantage +",
    "equal": "All # returns are #: nothing to compare. Every advantage is exactly 0: the group teaches nothing and is "
    "left out of the update.",
    "pooled": "All # returns are #: but against the mean of the batch they still stand for something.",
    "once": "# was executed once, greedily, with return #. Training samples executions of z* only, here of #.",
    "alone": "Only the planner learnt in this iteration: no execution was sampled.",
    "star": "With these returns z* is #; in training it was #.",
    "own": "the task's own solution",
    "row": "#, return #, advantage #",
    "out": "#, not in the group",
    "typed": "return of ##",
    "dragged": "drag the return of ##",
}
"""Texts of the browser, which replaces each #."""


class Groups(anywidget.AnyWidget):
    """The two groups of one level: rows, bars, coloured tokens."""

    _esm = browser_code("unpack.js", "numbers.js", "maths.js", "explorer.js")
    _css = browser_code("explorer.css")
    data = traitlets.Dict().tag(**PACKED)
    """{iteration, levels: `credit.level_data` of each}."""
    controls = traitlets.Dict().tag(sync=True, **widgets.widget_serialization)
    """Name of a dial → [widget, its trait]; the browser listens to these without the kernel."""
    channel = traitlets.Unicode().tag(sync=True)
    """Channel of the messages to `Arithmetic` and the player on the same page."""
    choices = traitlets.Dict({name: list(of.values()) for name, of in CHOICES.items()}).tag(sync=True)
    sentences = traitlets.Dict(SENTENCES).tag(sync=True)
    gamma = traitlets.Float(0.95).tag(sync=True)
    toy: traitlets.List = traitlets.List().tag(sync=True)
    """[level's key, {group: returns of toy mode}]. A level's key is "iteration:level"."""
    plan: traitlets.List = traitlets.List().tag(sync=True)
    """[level's key, blueprint of the executions on display]; by default z*."""
    chosen: traitlets.List = traitlets.List().tag(sync=True)
    """[level's key, group, member] of the arithmetic and the player; by default z*."""


class Arithmetic(anywidget.AnyWidget):
    """The formula with the numbers of the chosen member. `Groups` on the same page has the style sheet."""

    _esm = browser_code("numbers.js", "maths.js", "arithmetic.js")
    channel = traitlets.Unicode().tag(sync=True)


@checked
class AdvantageExplorer(Pictured, widgets.HBox):
    """The two groups of one recorded puzzle: its blueprints, and the executions of the chosen blueprint.

    source: a run or its folder, or the records of one iteration, or one record. It opens at the first puzzle whose
    groups both have different returns. ``advantages``: {"macro": [G], "micro": [N]} (no "macro" for flat play).
    """

    def __init__(self, source: str | os.PathLike[str] | Run | Record | Sequence[Record], **kwargs: Any) -> None:
        self._lock = RLock()
        self._run, self._recorded = None, dict[int, Sequence[Record]]()
        if isinstance(source, Run | str | os.PathLike):
            self._run = load_run(source)
        elif given := records_of(source):
            self._recorded[0] = given
        numbers = self._run.recorded_iterations() if self._run else list(self._recorded)
        if not numbers:
            where = f"{self._run.folder} holds" if self._run else "the list holds"
            raise RunError(f"{where} no recorded rollouts; train with record_levels of 1 or more")
        first, level = next((found for i in numbers if (found := self._telling(i))), (numbers[0], 0))

        label, auto = {"description_width": "68px"}, widgets.Layout(width="auto")
        self.iteration = widgets.Dropdown(
            description="iteration", options=numbers, value=first, style=label, layout=auto
        )
        select = partial(widgets.Dropdown, style=self.iteration.style, layout=auto)
        self.level = select(description="level", options=[("", 0)], value=0)
        for name, of in CHOICES.items():
            setattr(
                self, name, select(description=TITLES[name], options=list(of.items()), value=next(iter(of.values())))
            )
        self.eps = widgets.FloatLogSlider(
            1e-6, base=10, min=-8, max=0, step=0.5, description="ε", readout_format=".0e", style=label, layout=auto
        )
        slide = {"style": self.eps.style, "layout": auto}
        self.omega = widgets.FloatSlider(0.0, min=0, max=2, step=0.05, description="ω (GiGPO)", **slide)
        self.size = widgets.IntSlider(8, min=2, max=8, description="group size", **slide)
        self.toy_on = widgets.Checkbox(False, description="toy mode: set the returns", indent=False, layout=auto)
        listened = dict.fromkeys(("level", *CHOICES), "index") | dict.fromkeys(SET, "value")
        self.groups = Groups(
            controls={name: [getattr(self, name), trait] for name, trait in listened.items()},
            layout={"width": "100%", "min_width": "0"},
        )
        self.groups.channel = self.groups.model_id
        self.sums = Arithmetic(channel=self.groups.channel)
        self._fill(first, level)
        self.player = RolloutPlayer(self.record, *self.chosen, plan=self.plan, explorer=self._place)

        panels = [self._panel(title, names, auto) for title, names in PANELS.items()]
        if len(numbers) == 1:
            panels[0].children = (panels[0].children[0], self.level)
        top = widgets.HBox(panels, layout=auto)
        top.add_class("hx-panels")
        left = widgets.VBox([self.groups], layout={"flex": "3 1 400px", "min_width": "0"})
        right = widgets.VBox([self.player, self.sums], layout={"flex": "1 1 240px", "min_width": "0"})
        wrap = widgets.Layout(flex_flow="row wrap", width="100%", grid_gap="4px 16px")
        super().__init__([top, left, right], layout=wrap, **kwargs)
        self.iteration.observe(self._changed, "value")
        self.level.observe(self._show_chosen, "value")
        self.groups.observe(self._show_chosen, ["chosen", "plan"])

    # State of the display

    @property
    def record(self) -> Record:
        """The record on display."""
        return self._records(self.iteration.value)[self.level.value or 0]

    @property
    def dials(self) -> Dials:
        values = {name: getattr(self, name).value for name in (*CHOICES, "eps", "omega", "size")}
        return Dials(**values, gamma=self.groups.gamma)

    @property
    def plan(self) -> int:
        """The blueprint of the executions on display; −1 for flat play and for a z* that no member wrote."""
        return self._own("plan", [best_of(self.record)])[0]

    @property
    def chosen(self) -> tuple[str, int]:
        """Group and index of the member in the arithmetic and the player."""
        group, n = self._own("chosen", ["macro", max(0, self.plan)] if "macro" in self.record else ["micro", 0])
        return group, n

    @checked
    def choose(self, group: str, n: int) -> None:
        """Choose a member, like a click on its row. Raises `RunError` if it does not exist."""
        there = self.groups.data["levels"][self.level.value or 0]
        members = {"macro": there.get("macro", []), "micro": there["micros"].get(str(self.plan), [])}.get(group, [])
        if not 0 <= n < len(members):
            raise RunError(
                f"there is no {SYMBOLS.get(group, group)}{n + 1}: this {group} group has {len(members)} members"
            )
        self.groups.chosen = [self._key, group, n]
        if group == "macro":
            self.groups.plan = [self._key, n]

    @property
    def advantages(self) -> dict[str, np.ndarray]:
        """Group → advantage of each member on display, by `himac_lite.advantage`, with its ValueErrors."""
        found = {group: self._batch(group) for group in SYMBOLS if group in self.record}
        return {group: credit(*batch, self.dials).member for group, batch in found.items() if batch[0][batch[1]]}

    def _batch(self, group: str) -> tuple[Sequence[Sequence[Member]], int]:
        dials, own = self.dials, self.level.value or 0
        toy = self._own("toy", [{}])[0].get(group) if self.toy_on.value else None

        def members(p: int, level: Mapping[str, Any]) -> list[Member]:
            plan = self.plan if p == own else level["best"]
            rows = level.get("macro", []) if group == "macro" else level["micros"].get(str(plan), [])
            returns = toy if toy and p == own else [row["rets"][dials.reward] for row in rows]
            return [Member(r, m["steps"], tuple(m["states"])) for m, r in zip(rows, returns, strict=True)]

        groups = [members(p, level) for p, level in enumerate(self.groups.data["levels"])]
        return comparable([groups[own]] if self.toy_on.value else groups, 0 if self.toy_on.value else own, dials.size)

    # Inside

    def _panel(self, title: str, names: Sequence[str], layout: widgets.Layout) -> widgets.VBox:
        """Controls under a heading; explorer.css puts them into columns."""
        heading = widgets.HTML(f"<h4>{title}</h4>", layout=layout)
        panel = widgets.VBox([heading, *(getattr(self, name) for name in names)], layout=layout)
        panel.add_class("hx-panel")
        return panel

    @property
    def _key(self) -> str:
        return f"{self.iteration.value}:{self.level.value or 0}"

    @property
    def _place(self) -> tuple[str, str]:
        """The channel and the key of the groups on display, for the player."""
        return self.groups.channel, f"{self._key}:{self.plan}"

    def _own(self, name: str, otherwise: list[Any]) -> list[Any]:
        key, *values = getattr(self.groups, name) or [""]
        return values if key == self._key else otherwise

    def _records(self, iteration: int) -> Sequence[Record]:
        if self._run and iteration not in self._recorded:
            self._recorded[iteration] = records_of(self._run.rollouts(iteration))
        return self._recorded[iteration]

    def _telling(self, iteration: int) -> tuple[int, int] | None:
        """The first record of an iteration whose groups all have different returns."""
        for p, record in enumerate(self._records(iteration)):
            if all(len({m["return"] for m in record[g]["members"]}) > 1 for g in SYMBOLS if g in record):
                return iteration, p
        return None

    def _fill(self, iteration: int, level: int) -> None:
        """Load the levels of an iteration and send their groups to the browser."""
        records = self._records(iteration)
        self.groups.data = {"iteration": iteration, "levels": [level_data(record) for record in records]}
        self.level.options = [(f"{p + 1}: {r.get('title') or 'untitled'}", p) for p, r in enumerate(records)]
        self.level.value = level
        largest = max(len(r[g]["members"]) for r in records for g in SYMBOLS if g in r)
        self.size.max, self.size.value = max(2, largest), max(2, largest)

    def _changed(self, _: Any) -> None:
        with self._lock:
            self._fill(self.iteration.value, 0)
            self._show_chosen()

    def _show_chosen(self, *_: Any) -> None:
        with self._lock:
            self.player.show(self.record, *self.chosen, plan=self.plan, explorer=self._place)

    # Without a kernel

    def words(self) -> str:
        return pictures.explorer_words(self.record, self.advantages)

    def picture(self) -> bytes:
        return pictures.explorer_picture(self.record, self.advantages)
