"""What notebooks show (`himac_lite.exercises.course`), the glossary, how runs are recorded and the gallery is made."""

from __future__ import annotations

import importlib.util
import inspect
import json
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import plotly.graph_objects as go
import pytest
from notebook_runs import ROOT, script

from himac_lite.config import TRAIN_PRESETS, validate
from himac_lite.exercises import course
from himac_lite.storage import data_dir
from himac_lite.tasks.sokoban.rules import board_from_level
from himac_lite.types import Level

gallery, record = script("gallery"), script("record")


def test_lines_keep_their_numbers_and_differ_without_colour():
    figure = course.lines([1, 2, 3], {"a": [0.5, np.nan, 1.5], "<b>": np.array([3, 2, 1])}, "x", "y")
    assert [list(trace.y) for trace in figure.data] == [pytest.approx([0.5, np.nan, 1.5], nan_ok=True), [3, 2, 1]]
    assert len({trace.line.dash for trace in figure.data}) == len({trace.marker.symbol for trace in figure.data}) == 2
    assert figure.data[1].name == "&lt;b&gt;"
    assert figure.layout.showlegend


def test_many_curves_are_told_apart():
    """Eight variants with five colours: no two have the same colour and dash."""
    figure = course.bands({f"v{i}": ([0, 1], [0, 0], [0, 1], [1, 1]) for i in range(8)}, {}, "x", "y")
    looks = [(trace.line.color, trace.line.dash) for trace in figure.data if trace.name]
    assert len(set(looks)) == len(looks) == 8
    assert figure.layout.height == 360 + 4 * 18


def test_bars_keep_their_numbers_and_differ_without_colour():
    figure = course.bars(["short", "long"], {"flat": [3, 1], "plan": [2, 2]}, "length", "solved")
    assert [(list(trace.x), list(trace.y)) for trace in figure.data] == [
        (["short", "long"], [3, 1]),
        (["short", "long"], [2, 2]),
    ]
    assert len({trace.marker.pattern.shape for trace in figure.data}) == 2


def test_boards_are_side_by_side_with_escaped_captions():
    board = board_from_level(Level(("#####", "#@$.#", "#####")))
    html = course.boards({"start": board, "<evil>": board}, 120).data
    assert html.count("<svg") == 2
    assert "&lt;evil&gt;" in html
    assert "<evil>" not in html


def test_marked_tokens_say_which_were_chosen():
    html = course.marked(["\nup", " moved (1,2)", "<sub_done>"], [1, 0, 1], [-0.5, 0.0, -0.25]).data
    assert html.count(course.plots.BLUE) == 2
    assert "−0.50" in html
    assert "−0.25" in html
    assert "0.00" not in html  # what was not chosen has no log-probability
    assert "&lt;sub_done&gt;" in html


def test_a_table_is_html_in_a_notebook_and_aligned_text_elsewhere():
    table = course.table(("player", "solved"), [("<base>", 0.5), ("random policy", 12)])
    assert repr(table).splitlines() == ["player         solved", "<base>            0.5", "random policy      12"]
    html = table._repr_html_()
    assert html.count("<tr>") == 3
    assert "&lt;base&gt;" in html
    assert '<td style="text-align:right">12</td>' in html
    assert repr(course.table(("player", "why"), [("a", "long text"), ("b", "short")])).endswith("b       short")  # left
    assert repr(course.table(("player", "solved"), [])) == "player  solved"
    with pytest.raises(ValueError, match="a row needs 2 values"):
        course.table(("a", "b"), [(1, 2), (3,)])


def test_scores_become_a_table():
    scores = {"base": {"success": 0.25, "n": 16, "ci95": [0.1, 0.5]}}
    assert repr(course.score_table(scores)).splitlines()[1].split() == ["base", "16", "25.0", "%", "10–50", "%"]


def test_the_tests_train_briefly(monkeypatch):
    config = TRAIN_PRESETS["quick"]
    monkeypatch.setattr(course, "FAST", False)
    assert course.brief(config) == config
    monkeypatch.setattr(course, "FAST", True)
    short = course.brief(config)
    assert (short.iterations, short.rollout.levels, short.test_limit) == (1, 2, 4)
    assert short.rollout == replace(config.rollout, levels=2, group=4)


GLOSSARY = [line for line in (ROOT / "docs" / "glossary.md").read_text("utf-8").splitlines() if line.startswith("| ")]


@pytest.mark.parametrize(
    "row", [r for r in GLOSSARY if not r.startswith("| term")], ids=lambda r: r.split("|")[1].strip()
)
def test_the_glossary_has_one_sentence_and_real_code_for_each_term(row):
    _, term, meaning, _, code, _ = (cell.strip() for cell in row.split("|"))
    assert sum(other.split("|")[1].strip() == term for other in GLOSSARY) == 1
    assert meaning.endswith(".")
    assert ". " not in meaning, "one sentence"
    parts = code.strip("`").split(".")
    for used in range(len(parts), -1, -1):  # the longest prefix that is a module
        try:
            found = importlib.import_module(".".join(["himac_lite", *parts[:used]]))
            break
        except ModuleNotFoundError:
            continue
    for name in parts[used:]:
        fields = {**getattr(found, "__dataclass_fields__", {}), **inspect.get_annotations(found)}
        assert hasattr(found, name) or name in fields, f"{code}: {name}"
        found = getattr(found, name, fields.get(name))


def output(**data: str) -> nbformat.NotebookNode:
    names = {"html": "text/html", "plotly": gallery.PLOTLY, "widget": gallery.WIDGET}
    return nbformat.v4.new_output("display_data", {names[name]: value for name, value in data.items()})


def test_a_page_has_no_widget_and_no_warning_left():
    figure = go.Figure(go.Scatter(y=[1, 2])).to_json()
    made = gallery.still(
        [
            nbformat.v4.new_output("stream", name="stderr", text="warning"),
            output(widget="{}", html="<b>still</b>"),
            output(plotly=json.loads(figure)),
        ]
    )
    assert [list(o.data) for o in made] == [["text/html"], ["text/html"]]
    assert made[0].data["text/html"] == "<b>still</b>"
    assert "Plotly.newPlot" in made[1].data["text/html"]
    assert "https://" not in made[1].data["text/html"].split("Plotly.newPlot")[0]


def test_a_dashboard_appears_on_its_page_once_in_its_last_state():
    figure = go.Figure().to_json()
    drawn = [f"<!--still:{n}-->{words}<!--plotly:{figure}-->" for n, words in ((7, "early"), (8, "other"), (7, "late"))]
    made = gallery.still([output(html=html) for html in drawn])
    texts = [o.data["text/html"] for o in made]
    assert ["other" in texts[0], "late" in texts[1], len(texts)] == [True, True, 2]
    assert all("Plotly.newPlot" in text for text in texts)


@pytest.mark.notebook
def test_the_gallery_shows_its_pictures_without_kernel_and_network(tmp_path):
    pytest.importorskip("nbconvert")
    assert gallery.main(["03", "--fast", "--out", str(tmp_path)]) == 0
    page = (tmp_path / "03_group_advantages.html").read_text("utf-8")
    assert '<script src="plotly.min.js">' in page
    assert (tmp_path / "plotly.min.js").stat().st_size > 1e6
    assert page.count("Plotly.newPlot") == 3
    assert "data:image/png;base64" in page  # the explorer in its last state
    assert '<script src="http' not in page


def test_the_gallery_names_a_number_that_is_not_there(capsys, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        gallery.main(["99", "--out", str(tmp_path)])
    assert stopped.value.code == 2
    assert "no notebook has the number 99" in capsys.readouterr().err


def test_recorded_runs_are_the_ones_that_are_shown(capsys):
    for name, (config, kept) in record.RUNS.items():
        assert validate(config) == config
        assert max(kept) <= config.iterations
        folder = data_dir() / "runs" / name
        assert [int(file.stem) for file in sorted((folder / "rollouts").glob("*.jsonl"))] == list(kept)
        assert not (folder / "checkpoints").exists()
        assert sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file()) < 1_500_000
    with pytest.raises(SystemExit) as stopped:
        record.main(["nothing"])
    assert stopped.value.code == 2
    assert "choose from quickstart, flat" in capsys.readouterr().err


def test_a_finished_run_becomes_a_record_only_with_the_same_settings(capsys):
    other = data_dir() / "runs" / "flat"
    with pytest.raises(SystemExit):
        record.main(["quickstart", "--from", str(other)])
    assert f"{other} is not a finished run with the settings of 'quickstart'" in capsys.readouterr().err
    assert (data_dir() / "runs" / "quickstart" / "manifest.json").is_file()  # what was there stays
