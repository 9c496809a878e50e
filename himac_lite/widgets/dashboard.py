"""Figures and curves of a run, during training and after it; several runs in one figure, with a band over seeds."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from threading import RLock
from typing import Any

import ipywidgets as widgets
import numpy as np
import plotly.graph_objects as go
import plotly.io

from himac_lite.errors import ConfigError, RunError, checked
from himac_lite.hierarchy import JOINT, PRESETS
from himac_lite.runs import health
from himac_lite.runs.folder import Run, load_run
from himac_lite.settings import Train
from himac_lite.widgets import pictures, plots
from himac_lite.widgets.base import STYLE, Pictured, dropdown

A, B = plots.PHASE_A, plots.PHASE_B
VIEWS: dict[str, dict[str, str]] = {
    "levels solved": {
        "macro/success": f"{A}, sampled",
        "micro/success": f"{B}, sampled",
        "validation/success": "greedy",
    },
    "return of both levels": {"macro/return": A, "micro/return": B},
    "groups without a difference": {"macro/zero_variance": A, "micro/zero_variance": B},
    "KL from the base model": {"macro/kl": A, "micro/kl": B},
    "clip fraction": {"macro/clip_fraction": A, "micro/clip_fraction": B},
    "entropy": {"macro/entropy": A, "micro/entropy": B},
    "gradient norm": {"macro/grad_norm": A, "micro/grad_norm": B},
    "sub-goals of a blueprint": {"macro/blueprint_length": "sampled", "micro/blueprint_length": "z*"},
    "valid blueprints": {"macro/blueprint_valid": "sampled", "micro/blueprint_valid": "z*"},
    "environment steps spent": {"env_steps": "both phases"},
    "tokens sampled": {"tokens": "both phases"},
}
"""The views of the dashboard: title → metric (see docs/metrics.md) → legend."""
COUNTERS = ("env_steps", "tokens")
WARN_AFTER = Train().warn_after
LONGEST = 50
"""Largest number of iterations of the running mean."""


def as_groups(source: Any) -> dict[str, list[Run]]:
    """Label → runs that differ by seed. source: one run or folder, several, or a mapping of labels to these.

    Several runs are grouped by the variant in their manifests. A run without a variant, or with a custom hierarchy, is
    a group of its own. Raises `HimacError`s for what is not a run, and for an empty list.
    """
    groups: dict[str, list[Run]] = {}
    if isinstance(source, Mapping):
        for label, runs in source.items():
            groups[str(label)] = [load_run(run) for run in (runs if _several(runs) else [runs])]
    elif _several(source):
        for run in map(load_run, source):
            groups.setdefault(_variant(run) or run.folder.name, []).append(run)
    else:
        run = load_run(source)
        groups = {run.folder.name: [run]}
    if not groups or not all(groups.values()):
        raise RunError("no run to show: the list is empty")
    return groups


def _several(source: Any) -> bool:
    return isinstance(source, Iterable) and not isinstance(source, str | bytes | os.PathLike)


def _variant(run: Run) -> str:
    try:
        return run.variant
    except RunError:
        return ""


@checked
class TrainingDashboard(Pictured, widgets.VBox):
    """Figures and curves of a run from its folder, finished or not; `refresh` reads the folder again.

    source: a run or a run folder; or several, grouped by variant, with the mean over seeds and their range as a band;
    or a mapping of labels to such lists. window: iterations of the running mean, 1 to 50.
    live: `source` is the folder of a run that has not begun. Display the dashboard, and pass
    ``progress=dashboard.refresh`` to `himac_lite.train`.
    Raises `HimacError`s with one clear line.
    """

    def __init__(self, source: Any, window: int = 10, *, live: bool = False, **kwargs: Any) -> None:
        if not 1 <= window <= LONGEST:
            raise ConfigError(f"window must lie between 1 and {LONGEST}; it is {window}")
        if live and not isinstance(source, str | os.PathLike):
            raise ConfigError(f"with live=True, source must be the folder of the coming run, not {source!r:.80}")
        self.runs = {Path(source).name: [Run(Path(source))]} if live else as_groups(source)
        self._lock = RLock()
        style, auto = {"description_width": "initial"}, widgets.Layout(width="auto")
        self.view = dropdown("curves", list(VIEWS), "levels solved", auto)
        self.against = dropdown("over", [(says, key) for key, says in plots.SPENT.items()], "iteration", auto)
        self.window = widgets.IntSlider(window, 1, LONGEST, description="running mean", style=style)
        self.bands = widgets.Checkbox(False, description="phases A and B", indent=False, layout=auto)
        self.again = widgets.Button(description="read again", icon="refresh", layout=auto)
        self.summary, self.curves = widgets.HTML(), widgets.Output()
        row = [self.view, self.against, self.window, *([self.bands] if self._phases() else []), self.again]
        controls = widgets.HBox(row, layout={"flex_flow": "row wrap"})
        super().__init__([self.summary, controls, self.curves], **kwargs)
        for control in (self.view, self.against, self.window, self.bands):
            control.observe(self.refresh, "value")
        self.again.on_click(self.refresh)
        self.refresh()

    @property
    def run(self) -> Run:
        """The first run."""
        return next(iter(self.runs.values()))[0]

    def _phases(self) -> bool:
        """Whether the runs alternate phases: they have a planner and no joint update. True for an unwritten run."""
        kinds = [PRESETS[v] for runs in self.runs.values() if (v := _variant(runs[0])) in PRESETS]
        return not kinds or any(kind.planner and kind.schedule != JOINT for kind in kinds)

    def figure(self) -> go.Figure:
        title, against = self.view.value, self.against.value
        names, window = VIEWS[title], self.window.value
        single = len(self.runs) == 1 and len(next(iter(self.runs.values()))) == 1
        if title == "levels solved" and single and against == "iteration":
            figure = plots.training_curves(self.run, window)
        else:
            window = 1 if set(names) <= set(COUNTERS) else window  # a running mean of a counter would lag
            figure = plots.seed_curves(self.runs, names, title, window, against=against)
        if self.bands.value and against == "iteration" and self._phases():
            runs = [run for group in self.runs.values() for run in group]
            plots.phase_bands(figure, max([0, *(line["iteration"] for run in runs for line in run.metrics())]))
        return figure

    def refresh(self, *_: Any) -> None:
        """Draw the run's current state. Ignores the arguments of a control's callback or of `train`'s `progress`."""
        with self._lock:
            figure = self.figure()
            self.summary.value = f'{STYLE}<div class="hx hx-cards">{_cards(self.runs)}</div>'
            words = f"{self.view.value}: " + ", ".join(t.name for t in figure.data if t.showlegend is not False)
            if "google.colab" in sys.modules:  # Colab shows plotly only as HTML
                data = plotly.io.renderers["colab"].to_mimebundle(figure.to_dict())
            else:
                # Without a picture, which JupyterLab would prefer.
                data = {"application/vnd.plotly.v1+json": json.loads(figure.to_json()), "text/plain": words}
            self.curves.outputs = ({"output_type": "display_data", "data": data, "metadata": {}},)

    # Without a kernel

    def words(self) -> str:
        last = [f"{t.name}: {t.y[-1]:.3g}" for t in self.figure().data if t.showlegend is not False and len(t.y or ())]
        return f"{self.view.value}, last values\n  " + "\n  ".join(last or ["nothing recorded yet"])

    def picture(self) -> bytes:
        return pictures.curves_picture(self.figure(), self.view.value)


def _cards(groups: Mapping[str, Sequence[Run]]) -> str:
    """The main figures in a row: budget spent, and success of random, base and trained policy."""
    cards: list[tuple[str, str]] = []
    for label, runs in groups.items():
        if len(groups) == 1 and len(runs) == 1:
            return _one_run(runs[0])
        scores = [run.results["trained"]["success"] for run in runs if "trained" in run.results]
        what = f"{label}: trained, {len(scores)} seed{'s' * (len(scores) != 1)}"
        if scores:
            what += f" ({100 * min(scores):.1f}–{100 * max(scores):.1f} %)"
        cards.append((what, f"{100 * np.mean(scores):.1f} %" if scores else "…"))
        spent = [metrics[-1].get("env_steps", 0) for run in runs if (metrics := run.metrics())]
        cards.append((f"{label}: environment steps, mean", f"{np.mean(spent or [0]):,.0f}"))
    return _cards_html(cards)


def _one_run(run: Run) -> str:
    metrics, results = run.metrics(), run.results
    last: Mapping[str, Any] = next((line for line in reversed(metrics) if "env_steps" in line), {})
    cards = [
        ("iterations", f"{last.get('iteration', 0)}"),
        ("environment steps", f"{last.get('env_steps', 0):,}"),
        ("tokens sampled", f"{last.get('tokens', 0):,}"),
        ("minutes", f"{last.get('seconds', 0) / 60:.1f}"),
    ]
    for key, name in (("random", "random policy"), ("base", "base model"), ("trained", "trained model")):
        if key in results:
            low, high = results[key]["ci95"]
            what = f"{name} ({100 * low:.0f}–{100 * high:.0f} % of {results[key]['n']} test levels)"
            cards.append((what, f"{100 * results[key]['success']:.0f} %"))
    if not results:
        cards.append(("no final scores yet", "…"))
    signs = health.warnings(last, WARN_AFTER)
    return _cards_html(cards) + "".join(f'<div class="hx-bad">⚠ {escape(text)}</div>' for text in signs)


def _cards_html(cards: Sequence[tuple[str, str]]) -> str:
    return "".join(f"<span><b>{escape(value)}</b>{escape(name)}</span>" for name, value in cards)
