"""What a model wrote is text in every widget: no tag of it reaches the HTML, the figures or the pictures' words."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from recorded_runs import make_run, records

from himac_lite import widgets
from himac_lite.widgets import plots
from himac_lite.widgets.base import STATIC

SCRIPT = "<script>alert(1)</script>"
IMAGE = "<img src=x onerror=alert(1)>"
TAG = re.compile(r"<\s*(script|img\s+src=x)", re.IGNORECASE)


def poisoned() -> list[dict[str, Any]]:
    """Records in which every text that a model or a stranger may have written is markup."""
    found = json.loads(json.dumps(records()))
    for record in found:
        record["title"] = SCRIPT
        for group in ("macro", "micro"):
            for n, member in enumerate(record[group]["members"]):
                evil = (SCRIPT, IMAGE)[n % 2]
                member["blueprint"] = f"\n{evil}"
                for part in (member, *member.get("sequences", ())):
                    part.update({"tokens": [evil] * len(part["tokens"])} if "tokens" in part else {})
                for segment in member["segments"]:
                    segment["subgoal"] = evil
        record["micro"]["blueprint"] = f"\n{SCRIPT}"
    return found


@pytest.fixture
def run(tmp_path: Path) -> Any:
    made = make_run(tmp_path / "x<script>alert(1)<")
    for i in (1, 2):
        made.record(i, poisoned())
    return made


def html(widget: Any) -> list[str]:
    """Every HTML value and every figure inside a widget."""
    found = [widget.value] if type(widget).__name__ == "HTML" else []
    found += [json.dumps(o["data"]) for o in getattr(widget, "outputs", ())]
    return found + [text for child in getattr(widget, "children", ()) for text in html(child)]


@pytest.mark.parametrize("kind", ["AdvantageExplorer", "TrainingDashboard", "CoEvolutionStrip"])
def test_no_tag_reaches_the_page(run, kind):
    shown = html(getattr(widgets, kind)(run))
    assert shown or kind == "AdvantageExplorer"  # which sends data, and its JavaScript sets text
    assert [text for text in shown if TAG.search(text)] == []
    if kind == "CoEvolutionStrip":
        assert any("&lt;script&gt;alert(1)&lt;/script&gt;" in text for text in shown)  # it is there, as text


def test_figures_escape_the_labels_that_a_model_wrote():
    figure = plots.advantage_bars([1.0, 0.0], [1.0, -1.0], labels=[SCRIPT, IMAGE])
    assert not TAG.search(json.dumps(figure.to_dict(), default=list))
    assert "&lt;script&gt;" in json.dumps(figure.to_dict(), default=list)


def test_the_browser_code_sets_text_and_one_board():
    """The board's SVG is made by himac_lite.tasks.sokoban.render from cells alone."""
    ways = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|srcdoc")
    code = {f.name: f.read_text("utf-8") for f in sorted(STATIC.glob("*.js"))}
    assert len(code) >= 3
    lines = [
        (name, line.strip())
        for name, text in code.items()
        for line in text.splitlines()
        if ways.search(line) and not line.strip().startswith("//")
    ]
    assert [name for name, _ in lines] == ["player.js"]
    assert "innerHTML: data.board" in lines[0][1]
    from himac_lite.tasks.sokoban import render
    from himac_lite.widgets.replay import board_of

    assert not TAG.search(render.to_svg(board_of(poisoned()[0])))


def test_a_saved_notebook_has_text_and_a_picture_only(run):
    for widget in (widgets.CoEvolutionStrip(run), widgets.RolloutPlayer(poisoned()[0])):
        data, _ = widget._repr_mimebundle_()
        assert set(data) == {"application/vnd.jupyter.widget-view+json", "image/png", "text/plain"}
