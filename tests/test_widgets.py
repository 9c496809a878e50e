"""The widgets, on a small recorded run: they show what `himac_lite.advantage` computes, and no text as markup."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from himac_lite import plots, runs, widgets
from himac_lite.advantage import group_advantage
from himac_lite.config import PRESETS
from himac_lite.errors import RunError
from himac_lite.language import parse_blueprint
from himac_lite.records import macro_record, micro_record
from himac_lite.types import Blueprint, End, Level, MacroGroup, MicroGroup, Role, Trajectory
from himac_lite.types import Sequence as TokenSequence

LEVEL = Level(("######", "#@$ .#", "######"), "toy 1", 2, 2)
"""Two pushes to the right solve it. Cell numbers (row × 6 + column): player 7, box 8, target 10."""
GOOD = "\npush the box at (1,2) right to (1,4)"
HALF = "\npush the box at (1,2) right to (1,3)\npush the box at (1,3) right to (1,4)"
EVIL = "\n<img src=x onerror=alert(1)>"
WORDS = [
    "<plan>",
    "\npush the box at ",
    "(1,2)",
    " right to ",
    "(1,4)",
    "<end>",
    "\nright",
    " pushed (1,2)",
    "<sub_done>",
]


def _plan(text: str) -> TokenSequence:
    return TokenSequence(Role.PLANNER, (0, 1, 2, 3, 4, 5), 1, (False, *[True] * 5), (0.0, *[-0.1] * 5), End.PLAN, text)


def _segment(end: End) -> TokenSequence:
    return TokenSequence(Role.EXECUTOR, (0, 6, 7, 8), 1, (False, True, False, True), (0.0, -0.2, 0.0, -0.3), end, "")


def _episode(plan: Blueprint | None, moves: str, ends: dict[End, int]) -> Trajectory:
    """ends: how each segment ended and after how many moves."""
    won = End.SUCCESS in ends
    return Trajectory(plan, tuple(map(_segment, ends)), moves, float(won), won, len(moves), tuple(ends.values()))


def records() -> list[dict]:
    """Two levels: returns 1 0 0 0 and, for z*, 1 1 0 0; then a level on which everything fails."""
    good, half, evil = parse_blueprint(GOOD), parse_blueprint(HALF), parse_blueprint(EVIL)
    win = _episode(good, "RR", {End.SUCCESS: 2})
    fail = _episode(good, "Rl", {End.BUDGET: 2})
    early = _episode(half, "R", {End.SUB_DONE: 1})
    bad = _episode(evil, "", {})
    plans = tuple(map(_plan, (GOOD, HALF, GOOD, EVIL)))
    macro = MacroGroup(LEVEL, plans, (win, early, fail, bad)), MacroGroup(LEVEL, plans, (fail, early, fail, bad))
    micro = MicroGroup(LEVEL, good, (win, win, fail, fail)), MicroGroup(LEVEL, good, (fail, fail, fail, fail))
    out = []
    for group, below in zip(macro, micro, strict=True):
        above_n = group_advantage([[t.ret for t in group.executions]])[0]
        below_n = group_advantage([[t.ret for t in below.trajectories]])[0]
        out.append(
            {"level": LEVEL.text, "title": LEVEL.title, "optimal_moves": 2,
             "macro": macro_record(group, list(above_n), 0, lambda ids: WORDS[ids[0]]),
             "micro": micro_record(below, list(below_n), lambda ids: WORDS[ids[0]])}
        )  # fmt: skip
    return out


def score(success: float) -> dict:
    return {"success": success, "ci95": [success - 0.1, success + 0.1], "n": 50, "by_length": {}}


def make_run(folder: Path, results: bool = True) -> runs.Run:
    """A run folder in the recorded format: two iterations, in the first of which every group fails."""
    run = runs.create_run(folder, replace(PRESETS["quick"], iterations=2), {"train": [LEVEL]})
    run.append_metrics({"iteration": 0, "validation/success": 0.25, "validation/n": 8})
    for i, (macro, micro) in enumerate([(0.2, 0.4), (0.4, 0.8)], start=1):
        line = {"macro/success": macro, "micro/success": micro, "macro/zero_variance": 0.5, "micro/zero_variance": 0.25}
        run.append_metrics({"iteration": i, "env_steps": 1000 * i, "tokens": 5, "seconds": 30.0 * i, **line})
    run.record(1, [records()[1]])
    run.record(2, records())
    if results:
        run.write_results({"base": score(0.3), "random": score(0.1), "trained": score(0.6)})
    return run


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


# AdvantageExplorer


def numbers(explorer: widgets.AdvantageExplorer) -> list[str]:
    """The advantages as they are shown, macro group first."""
    return re.findall(r'<span class="hx-num">([^<]*)</span></div>', explorer.groups.value)


def test_explorer_opens_where_both_groups_have_something_to_show(run):
    explorer = widgets.AdvantageExplorer(run)
    assert (explorer.iteration.value, explorer.level.value, explorer.member.value) == (2, 0, ("macro", 0))
    # macro 1 0 0 0: mean 1/4, std √(3/16) = 0.4330: +1.73, −0.58; micro 1 1 0 0: mean 1/2, std 1/2: ±1
    assert numbers(explorer) == ["+1.73", "−0.58", "−0.58", "−0.58", "+1.00", "+1.00", "−1.00", "−1.00"]
    assert explorer.advantages["macro"] == pytest.approx([1.73205, -0.57735, -0.57735, -0.57735], abs=1e-4)
    assert "z1 ★" in explorer.groups.value
    assert "executions of z* = z1" in explorer.groups.value
    assert "hx-flag" not in explorer.groups.value


@pytest.mark.parametrize(
    ("control", "value", "macro", "micro"),
    [
        ("scale", "none", ["+0.75", "−0.25"], ["+0.50", "−0.50"]),
        ("ddof", 1, ["+1.50", "−0.50"], ["+0.87", "−0.87"]),  # std √(0.75/3) = 1/2; √(1/3) = 0.577
        ("eps", 0.5, ["+0.80", "−0.27"], ["+0.50", "−0.50"]),  # 0.75/0.933; 0.5/1
        ("baseline", "leave_one_out", ["+2.31", "−0.77"], ["+1.33", "−1.33"]),  # 1/0.433, −1/3/0.433; (2/3)/0.5
        ("baseline", "batch", ["+2.02", "−0.29"], ["+1.50", "−0.50"]),  # means 1/8 and 2/8 of both levels
        ("scale", "batch", ["+2.27", "−0.76"], ["+1.15", "−1.15"]),  # std √(7/64) = 0.331; √(12/64) = 0.433
    ],
)
def test_one_choice_changes_both_levels(run, control, value, macro, micro):
    explorer = widgets.AdvantageExplorer(run)
    getattr(explorer, control).value = value
    shown = numbers(explorer)
    assert [shown[0], shown[1]] == macro
    assert [shown[4], shown[7]] == micro


def test_the_arithmetic_has_the_members_numbers_in_the_formula(run):
    explorer = widgets.AdvantageExplorer(run)
    assert "1 / 4 = 0.25" in explorer.arithmetic.value
    assert "√(0.75 / 4) = 0.433" in explorer.arithmetic.value
    assert "(1 − 0.25) / (0.433 + 1e-06) = <b>+1.7320</b>" in explorer.arithmetic.value
    assert "all its 5 blueprint tokens" in explorer.arithmetic.value
    explorer.member.value = ("micro", 2)
    explorer.baseline.value, explorer.scale.value = "leave_one_out", "none"
    assert "(2 − 0) / 3 = 0.6667" in explorer.arithmetic.value
    assert "<b>−0.6667</b>" in explorer.arithmetic.value
    assert "all its 2 action tokens" in explorer.arithmetic.value
    assert explorer.player.data["title"] == "toy 1 · τ3, not solved"


def test_what_is_shown_is_what_the_library_computes():
    rng = np.random.default_rng(0)
    batch = records()
    for record in batch:
        for group in ("macro", "micro"):
            for member in record[group]["members"]:
                member["return"] = float(rng.integers(0, 3))
    explorer = widgets.AdvantageExplorer(batch)
    returns = {g: [[m["return"] for m in record[g]["members"]] for record in batch] for g in ("macro", "micro")}
    options = itertools.product(("mean", "leave_one_out", "batch"), ("std", "none", "batch"), (0, 1), (0, 1))
    for baseline, scale, ddof, p in options:
        explorer.baseline.value, explorer.scale.value = baseline, scale
        explorer.ddof.value, explorer.level.value = ddof, p
        wanted = {
            g: group_advantage(r, baseline=baseline, scale=scale, ddof=ddof, eps=1e-6)[p] for g, r in returns.items()
        }
        assert numbers(explorer) == [plots.signed(a) for a in [*wanted["macro"], *wanted["micro"]]]
        for group in returns:
            for n in range(4):
                explorer.member.value = (group, n)
                result = re.findall("<b>([^<]*)</b>", explorer.arithmetic.value)[-1]
                assert float(result.replace("−", "-")) == pytest.approx(wanted[group][n], abs=6e-5)


def test_a_group_without_a_difference_is_flagged(run):
    explorer = widgets.AdvantageExplorer(run)
    explorer.level.value = 1
    assert numbers(explorer) == ["0.00"] * 8
    assert explorer.groups.value.count("All 4 returns are 0.00: nothing to compare") == 2
    assert "A = <b>0</b>, exactly" in explorer.arithmetic.value
    explorer.baseline.value, explorer.scale.value = "batch", "none"  # macro mean of the batch: 1/8
    assert numbers(explorer)[:4] == ["−0.12"] * 4
    assert "against the mean of the batch" in explorer.groups.value


def test_another_iteration_has_its_own_levels(run):
    explorer = widgets.AdvantageExplorer(run)
    explorer.level.value = 1
    explorer.iteration.value = 1
    assert explorer.level.options == (("1: toy 1", 0),)
    assert explorer.record["macro"]["members"][0]["return"] == 0


def test_what_a_model_wrote_is_shown_and_never_markup(run):
    explorer = widgets.AdvantageExplorer(run)
    explorer.member.value = ("macro", 3)
    for html in (explorer.groups.value, explorer.arithmetic.value):
        assert "<img" not in html
    assert "&lt;img src=x onerror=alert(1)&gt;" in explorer.groups.value
    assert "is not of the form" in explorer.groups.value  # the reason of Invalid.SYNTAX
    data = explorer.player.data
    assert "<img" not in data["board"]
    assert data["note"].startswith("<img src=x onerror=alert(1)>\n✗ not executed: ")  # goes into textContent
    source = widgets.RolloutPlayer._esm
    assert re.findall(r"innerHTML: (\S+)", str(source)) == ["data.board"]
    assert not re.search(r"outerHTML|insertAdjacent|eval\(|https?://(?!www\.w3\.org/2000/svg)", str(source))


def test_evil_titles_and_reasons_are_escaped_too():
    record = records()[0]
    record["macro"]["members"][3] |= {"invalid": "<b>new reason"}
    record["micro"]["members"][0]["moves"] = "RR"
    record["micro"]["members"][0]["segments"][0]["end"] = "<i>"
    explorer = widgets.AdvantageExplorer(record)
    assert "<b>new" not in explorer.groups.value
    assert "&lt;b&gt;new reason" in explorer.groups.value


def test_flat_play_has_one_level():
    record = {k: v for k, v in records()[0].items() if k != "macro"} | {"level": LEVEL.text}
    explorer = widgets.AdvantageExplorer([record])
    assert list(explorer.advantages) == ["micro"]
    assert "Flat group" in explorer.groups.value
    assert explorer.player.data["subgoals"][0]["text"] == "(flat play: no blueprint)"
    with pytest.raises(RunError, match="no 'macro' group"):
        widgets.RolloutPlayer(record, "macro")


def test_a_choice_that_a_group_does_not_allow_is_said():
    record = records()[0]
    for group in ("macro", "micro"):
        record[group]["members"] = record[group]["members"][:1]
    explorer = widgets.AdvantageExplorer(record)
    explorer.baseline.value = "leave_one_out"
    assert "N &gt;= 2" in explorer.groups.value


def test_groups_of_different_sizes_are_compared_alone():
    batch = records()
    batch[1]["micro"]["members"] = batch[1]["micro"]["members"][:2]
    explorer = widgets.AdvantageExplorer(batch)
    explorer.baseline.value, explorer.scale.value = "batch", "none"
    assert numbers(explorer)[4:] == ["+0.50", "+0.50", "−0.50", "−0.50"]


def test_nothing_recorded_is_said(tmp_path):
    empty = runs.create_run(tmp_path / "empty", PRESETS["quick"], {})
    with pytest.raises(RunError, match="empty holds no recorded rollouts"):
        widgets.AdvantageExplorer(empty)


# RolloutPlayer


def test_player_gets_every_position():
    player = widgets.RolloutPlayer(records()[0], "macro")  # z* of the macro group
    data = player.data
    assert (data["width"], data["targets"]) == (6, [10])
    assert data["frames"] == [[7, 8], [8, 9], [9, 10]]  # player, box
    assert data["happened"] == ["pushed", "pushed"]
    assert data["subgoals"] == [{"text": GOOD.strip(), "steps": 2, "end": "success"}]
    player.show(records()[0], "micro", 2)  # Rl: one push, one step back
    assert player.data["frames"] == [[7, 8], [8, 9], [7, 9]]
    assert player.data["subgoals"][0]["end"] == "budget"


def test_sub_goals_that_were_not_reached_are_shown_as_such():
    goals = widgets.playback(records()[0], "macro", 1)["subgoals"]
    assert [(g["end"], g["steps"]) for g in goals] == [("sub_done", 1), ("", 0)]
    assert goals[1]["text"] == "push the box at (1,3) right to (1,4)"


def test_the_browser_side_is_small():
    for file in (Path(widgets.__file__).parent / "static").glob("*"):
        assert file.stat().st_size < 10_000, file.name


# TrainingDashboard


def plotted(dashboard: widgets.TrainingDashboard) -> dict:
    (output,) = dashboard.curves.outputs
    return output["data"]["application/vnd.plotly.v1+json"]


def test_dashboard_shows_scores_and_curves(run):
    dashboard = widgets.TrainingDashboard(run)
    for text in ("2,000", "1.0", "60 %", "30 %", "10 %", "trained model (50–70 % of 50 test levels)"):
        assert text in dashboard.summary.value
    assert "validation, greedy" in [trace["name"] for trace in plotted(dashboard)["data"]]
    dashboard.view.value = "groups without a difference"
    assert [trace["y"] for trace in plotted(dashboard)["data"]] == [[0.5, 0.5], [0.25, 0.25]]
    dashboard.view.value = "levels solved"
    dashboard.window.value = 1
    smooth = next(t for t in plotted(dashboard)["data"] if t["name"] == "phase A: sampled blueprints, mean of 1")
    assert smooth["y"] == [0.2, 0.4]


def test_dashboard_follows_a_run_that_is_being_made(tmp_path):
    dashboard = widgets.TrainingDashboard(tmp_path / "run")
    assert "no final scores yet" in dashboard.summary.value
    make_run(tmp_path / "run", results=False)
    dashboard.refresh(2, 40, {"iteration": 2})  # as a trainer reports its progress
    assert "2,000" in dashboard.summary.value
    assert len(plotted(dashboard)["data"]) == 5  # points and mean of both phases, validation


# The recorded runs


def test_an_absent_recorded_run_is_explained(tmp_path, monkeypatch):
    monkeypatch.setattr("himac_lite.sokoban.levels.data_dir", lambda: tmp_path)
    with pytest.raises(RunError, match=r"'quickstart' is not at .*runs.quickstart: get the whole repository, or"):
        widgets.recorded_run()
    make_run(tmp_path / "runs" / "quickstart")
    assert widgets.recorded_run().results["trained"]["success"] == 0.6


def test_no_torch_is_imported():
    code = "import sys, himac_lite.widgets, himac_lite.exercises; print(*[m in sys.modules for m in ('torch', 'peft')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
