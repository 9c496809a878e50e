"""The widgets, on a small recorded run: they show what `himac_lite.advantage` computes, and no text as markup."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
from recorded_runs import GOOD, LEVEL, WORDS, make_run, records

from himac_lite import widgets
from himac_lite.advantage import gigpo_advantage, group_advantage, group_advantage_over_steps
from himac_lite.config import TRAIN_PRESETS
from himac_lite.errors import ConfigError, HimacError, RunError
from himac_lite.runs import folder as runs
from himac_lite.widgets import plots
from himac_lite.widgets.base import browser_code, packed, unpacked
from himac_lite.widgets.credit import Dials, Member, credit, level_data


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


# AdvantageExplorer: the kernel's side. What the browser shows is held to it in tests/widgets/test_browser.py and below.


def rounded(explorer: widgets.AdvantageExplorer) -> list[str]:
    """The advantages as people set them, macro group first."""
    return [plots.signed(a) for values in explorer.advantages.values() for a in values]


def test_explorer_opens_where_both_groups_have_something_to_show(run):
    explorer = widgets.AdvantageExplorer(run)
    assert (explorer.iteration.value, explorer.level.value, explorer.chosen) == (2, 0, ("macro", 0))
    # macro 1 0 0 0: mean 1/4, std √(3/16) = 0.4330: +1.73, −0.58; micro 1 1 0 0: mean 1/2, std 1/2: ±1
    assert rounded(explorer) == ["+1.73", "−0.58", "−0.58", "−0.58", "+1.00", "+1.00", "−1.00", "−1.00"]
    assert explorer.advantages["macro"] == pytest.approx([1.73205, -0.57735, -0.57735, -0.57735], abs=1e-4)
    level = explorer.groups.data["levels"][0]
    assert (level["best"], level["words"]) == (0, "push the box at ")
    assert explorer.player.data["members"][explorer.player.shown[0]]["name"] == "z1"


@pytest.mark.parametrize(
    ("control", "value", "macro", "micro"),
    [
        ("scale", "none", ["+0.75", "−0.25"], ["+0.50", "−0.50"]),
        ("ddof", 1, ["+1.50", "−0.50"], ["+0.87", "−0.87"]),  # std √(0.75/3) = 1/2; √(1/3) = 0.577
        ("eps", 0.5, ["+0.80", "−0.27"], ["+0.50", "−0.50"]),  # 0.75/0.933; 0.5/1
        ("baseline", "leave_one_out", ["+2.31", "−0.77"], ["+1.33", "−1.33"]),  # 1/0.433, −1/3/0.433; (2/3)/0.5
        ("baseline", "batch", ["+2.02", "−0.29"], ["+1.50", "−0.50"]),  # means 1/8 and 2/8 of both levels
        ("scale", "batch", ["+2.27", "−0.76"], ["+1.15", "−1.15"]),  # std √(7/64) = 0.331; √(12/64) = 0.433
        # steps 2 1 2 0 → 2 1 2 1 rows: mean 2/6, std √(2/9) = 0.471: (2/3)/0.471, −(1/3)/0.471; micro all of 2 steps
        ("over", "steps", ["+1.41", "−0.71"], ["+1.00", "−1.00"]),
        # the first two members: 1 0 → ±1; 1 1 → no difference
        ("size", 2, ["+1.00", "−1.00"], ["0.00", "0.00"]),
        # shaped: no box of a failure stands on the target, and so it is worth 0, as recorded
        ("reward", "shaped", ["+1.73", "−0.58"], ["+1.00", "−1.00"]),
    ],
)
def test_one_choice_changes_both_levels(run, control, value, macro, micro):
    explorer = widgets.AdvantageExplorer(run)
    getattr(explorer, control).value = value
    shown = [[plots.signed(a) for a in values] for values in explorer.advantages.values()]
    assert [shown[0][0], shown[0][1]] == macro
    assert [shown[1][0], shown[1][-1]] == micro


def test_a_group_without_a_difference_has_no_advantage(run):
    explorer = widgets.AdvantageExplorer(run)
    explorer.level.value = 1
    assert rounded(explorer) == ["0.00"] * 8
    explorer.baseline.value, explorer.scale.value = "batch", "none"  # macro mean of the batch: 1/8
    assert rounded(explorer)[:4] == ["−0.12"] * 4


def test_a_click_on_a_row_reaches_the_player(run):
    explorer = widgets.AdvantageExplorer(run)
    explorer.choose("micro", 2)  # as the browser says it: ["2:0", "micro", 2]
    assert explorer.groups.chosen == ["2:0", "micro", 2]
    assert explorer.player.data["members"][explorer.player.shown[0]]["title"] == "τ3, not solved, advantage −1.00"
    explorer.choose("macro", 1)
    assert explorer.plan == 1
    assert list(explorer.advantages) == ["macro"]  # no sampled executions of z2 were recorded
    with pytest.raises(RunError, match="there is no z9: this macro group has 4 members"):
        explorer.choose("macro", 8)
    explorer.level.value = 1  # what was chosen was chosen on another level
    assert (explorer.plan, explorer.chosen) == (0, ("macro", 0))


def test_executions_of_other_blueprints_are_shown_where_a_probe_recorded_them():
    record = records()[0]
    record["micros"] = {"1": {"members": [{**m, "sequences": []} for m in record["micro"]["members"][:3]]}}
    explorer = widgets.AdvantageExplorer(record)
    explorer.choose("macro", 1)
    # 1 1 0: mean 2/3, std √(2/9) = 0.471: +0.71, +0.71, −1.41
    assert [plots.signed(a) for a in explorer.advantages["micro"]] == ["+0.71", "+0.71", "−1.41"]
    explorer.choose("micro", 2)
    assert explorer.player.data["members"][explorer.player.shown[0]]["name"] == "τ3"


def test_toy_returns_are_compared_alone(run):
    explorer = widgets.AdvantageExplorer(run)
    explorer.toy_on.value, explorer.baseline.value = True, "batch"
    explorer.groups.toy = ["2:0", {"macro": [1, 1, 0, 0]}]  # as the browser sends a drag; the batch is this group
    assert rounded(explorer)[:4] == ["+1.00", "+1.00", "−1.00", "−1.00"]


def test_the_records_before_the_first_iteration_are_shown(run):
    run.record(0, [records()[1]])
    explorer = widgets.AdvantageExplorer(run)
    explorer.iteration.value = 0
    assert explorer.level.options == (("1: toy 1", 0),)
    only_failures = make_run(run.folder.parent / "other")
    only_failures.record(0, [records()[1]])
    only_failures.record(2, [records()[1]])
    assert widgets.AdvantageExplorer(only_failures).iteration.value == 0


def test_another_iteration_has_its_own_levels(run):
    explorer = widgets.AdvantageExplorer(run)
    explorer.level.value = 1
    explorer.iteration.value = 1
    assert explorer.level.options == (("1: toy 1", 0),)
    assert explorer.record["macro"]["members"][0]["return"] == 0
    assert explorer.groups.data["iteration"] == 1


def test_a_row_of_moves_says_how_each_sub_goal_ended():
    record = records()[0]
    segments = [{"end": "sub_done", "steps": 1, "subgoal": ""}, {"end": "budget", "steps": 1, "subgoal": ""}]
    record["micro"]["members"][0] |= {"moves": "Rl", "steps": 2, "segments": segments}
    rows = level_data(record)["micros"]["0"]
    # <sub_done> is a token of the executor, with the member's credit; a budget that is used up is no token
    assert rows[0]["chips"] == [["R", 0], ["✓"], ["l", 1], ["◷ ", None]]
    assert rows[1]["chips"] == [["R", 0], ["R", 1], ["★ ", None]]
    assert level_data(record)["macro"][3]["bad"]


def test_the_player_listens_to_the_groups_that_it_shows(run):
    explorer = widgets.AdvantageExplorer(run)
    channel = explorer.groups.channel
    assert channel
    assert (explorer.sums.channel, explorer.player.data["channel"]) == (channel, channel)
    assert explorer.player.data["key"] == "2:0:0"  # iteration, level, blueprint
    explorer.choose("macro", 1)
    assert explorer.player.data["key"] == "2:0:1"
    assert widgets.RolloutPlayer(records()[0]).data["channel"] == ""


def test_text_reaches_the_browser_as_text_only(run):
    level = widgets.AdvantageExplorer(run).groups.data["levels"][0]
    assert level["macro"][3]["text"] == "<img src=x onerror=alert(1)>"  # goes into textContent
    assert "is not of the form" in level["macro"][3]["bad"]  # the reason of Invalid.SYNTAX
    shown = widgets.RolloutPlayer(records()[0], "macro", 3)
    assert "<img" not in shown.data["board"]
    member = shown.data["members"][3]
    assert member["note"].startswith("<img src=x onerror=alert(1)>\n✗ not executed: ")
    for widget in (widgets.RolloutPlayer, widgets.explorer.Groups, widgets.explorer.Arithmetic):
        source = str(widget._esm)
        assert re.findall(r"innerHTML[:=](\S+?)[,})]", source) == ["data.board"] * (widget is widgets.RolloutPlayer)
        assert not re.search(r"outerHTML|insertAdjacent|eval\(|https?://(?!www\.w3\.org/2000/svg)", source)


def test_flat_play_has_one_level():
    record = {k: v for k, v in records()[0].items() if k != "macro"} | {"level": LEVEL.text}
    explorer = widgets.AdvantageExplorer([record])
    assert list(explorer.advantages) == ["micro"]
    assert explorer.player.data["members"][0]["goals"][0]["text"] == "(flat play: no blueprint)"
    with pytest.raises(RunError, match="no 'macro' group"):
        widgets.RolloutPlayer(record, "macro")


def test_an_iteration_of_the_planner_alone_has_no_executions():
    record = {k: v for k, v in records()[0].items() if k != "micro"}
    explorer = widgets.AdvantageExplorer([record])
    assert rounded(explorer) == ["+1.73", "−0.58", "−0.58", "−0.58"]
    assert explorer.groups.data["levels"][0]["micros"] == {"0": []}
    assert [m["name"] for m in explorer.player.data["members"]] == ["z1", "z2", "z3", "z4"]
    explorer.choose("macro", 1)  # as a click does: the executions of another blueprint, of which there are none either
    assert "advantage −0.58" in explorer.words()
    assert explorer.picture().startswith(b"\x89PNG")
    with pytest.raises(RunError, match="no 'micro' group; it has macro"):
        widgets.RolloutPlayer(record)


def test_a_z_star_that_no_member_wrote(tmp_path):
    """`choose_oracle` has the task's own solution practised: best is −1, and the micro group is of none of the four."""
    record = records()[0]
    record["macro"]["best"] = -1
    explorer = widgets.AdvantageExplorer(record)
    assert (explorer.plan, explorer.chosen) == (-1, ("macro", 0))
    assert rounded(explorer)[4:] == ["+1.00", "+1.00", "−1.00", "−1.00"]
    assert "(z*)" not in explorer.words()
    first = widgets.RolloutPlayer(record, "micro", 0)
    assert first.data["members"][first.shown[0]]["goals"][0]["text"] == "push the box at (1,2) right to (1,4)"
    run = make_run(tmp_path / "run")
    run.record(1, [record])
    run.record(2, [record])
    html = widgets.CoEvolutionStrip(run).strip.value
    assert html.count("z* is the task's own solution, none of these") == 2


def test_a_choice_that_a_group_does_not_allow_is_an_error_of_the_library():
    record = records()[0]
    for group in ("macro", "micro"):
        record[group]["members"] = record[group]["members"][:1]
    explorer = widgets.AdvantageExplorer(record)
    explorer.baseline.value = "leave_one_out"
    with pytest.raises(ValueError, match="N >= 2"):
        _ = explorer.advantages


def test_groups_of_different_sizes_are_compared_alone():
    batch = records()
    batch[1]["micro"]["members"] = batch[1]["micro"]["members"][:2]
    explorer = widgets.AdvantageExplorer(batch)
    explorer.baseline.value, explorer.scale.value = "batch", "none"
    assert rounded(explorer)[4:] == ["+0.50", "+0.50", "−0.50", "−0.50"]


def test_nothing_recorded_is_said(tmp_path):
    empty = runs.create_run(tmp_path / "empty", TRAIN_PRESETS["quick"], {})
    with pytest.raises(RunError, match="empty holds no recorded rollouts"):
        widgets.AdvantageExplorer(empty)


# RolloutPlayer


def test_player_gets_every_position():
    data = widgets.playback(records()[0], "macro")  # z* of the macro group
    assert (data["name"], data["size"]) == ("z1", 2)
    assert data["frames"] == [7, 8, 8, 9, 9, 10]  # player, box
    assert data["happened"] == "pp"
    assert data["goals"] == [{"text": GOOD.strip(), "steps": 2, "end": "success"}]
    data = widgets.playback(records()[0], "micro", 2)  # Rl: one push, one step back
    assert data["frames"] == [7, 8, 8, 9, 7, 9]
    assert data["happened"] == "pm"
    assert data["goals"][0]["end"] == "budget"


def test_player_has_all_members_and_shows_two_side_by_side():
    player = widgets.RolloutPlayer(records()[0], "micro", 0, beside=("macro", 1))
    assert (player.data["width"], player.data["targets"]) == (6, [10])
    assert [m["name"] for m in player.data["members"]] == ["z1", "z2", "z3", "z4", "τ1", "τ2", "τ3", "τ4"]
    assert player.shown == [4, 1]
    with pytest.raises(RunError, match="no member 7: this micro group has 4"):
        widgets.RolloutPlayer(records()[0], "micro", 7)


def test_tokens_have_role_mask_and_move():
    tokens = widgets.playback(records()[0], "micro", 0)["tokens"]  # words 6, 7, 8, of which the model chose two
    assert tokens == [["\nright", "action", -0.2, 0, 0], [" pushed (1,2)", "given", 0.0, None, 0],
                      ["<sub_done>", "action", -0.3, 1, 0]]  # fmt: skip
    early = records()[0]
    early["micro"]["members"][0] |= {
        "moves": "R",
        "steps": 1,
        "segments": [{"end": "sub_done", "steps": 1, "subgoal": ""}],
    }
    assert [t[1:4:2] for t in widgets.playback(early, "micro", 0)["tokens"]] == [
        ["action", 0],
        ["given", None],
        ["sub_done", None],
    ]
    plan = widgets.playback(records()[0], "macro", 0)["tokens"]
    assert [t[0] for t in plan] == WORDS[1:6]
    assert {t[1] for t in plan} == {"blueprint"}


def test_sub_goals_that_were_not_reached_are_shown_as_such():
    goals = widgets.playback(records()[0], "macro", 1)["goals"]
    assert [(g["end"], g["steps"]) for g in goals] == [("sub_done", 1), ("", 0)]
    assert goals[1]["text"] == "push the box at (1,3) right to (1,4)"


def test_four_widgets_fit_in_a_saved_notebook():
    """As nbclient writes them, every field a line, with pictures and words; test_browser.py executes one."""
    import ipywidgets

    before = set(ipywidgets.Widget.get_manager_state()["state"])
    recorded = widgets.recorded_run()
    explorer = widgets.AdvantageExplorer(recorded)
    made = [explorer, widgets.RolloutPlayer(explorer.record, "micro", 0, beside=("micro", 1)),
            widgets.TrainingDashboard(recorded), widgets.CoEvolutionStrip(recorded)]  # fmt: skip
    state = {k: v for k, v in ipywidgets.Widget.get_manager_state()["state"].items() if k not in before}
    book = {"cells": [w._repr_mimebundle_() for w in made], "metadata": {"widgets": {"state": {"state": state}}}}
    assert len(state) > 40
    assert len(json.dumps(book, indent=1, ensure_ascii=False, default=str).encode()) < 280_000


def test_the_browser_side_is_small():
    for widget in (widgets.RolloutPlayer, widgets.explorer.Groups, widgets.explorer.Arithmetic):
        assert len(str(widget._esm).encode()) < 10_000, widget


# TrainingDashboard


def plotted(dashboard: widgets.TrainingDashboard) -> dict:
    (output,) = dashboard.curves.outputs
    return output["data"]["application/vnd.plotly.v1+json"]


def test_dashboard_shows_scores_and_curves(run):
    dashboard = widgets.TrainingDashboard(run)
    for text in ("2,000", "5", "1.0", "60 %", "30 %", "10 %", "trained model (50–70 % of 50 test levels)"):
        assert text in dashboard.summary.value
    assert "validation, greedy" in [trace["name"] for trace in plotted(dashboard)["data"]]
    dashboard.view.value = "groups without a difference"
    assert [trace["y"] for trace in plotted(dashboard)["data"]] == [[0.5, 0.5], [0.25, 0.25]]
    dashboard.view.value = "levels solved"
    dashboard.window.value = 1
    smooth = next(t for t in plotted(dashboard)["data"] if t["name"] == "phase A: sampled blueprints, mean of 1")
    assert smooth["y"] == [0.2, 0.4]


def test_dashboard_follows_a_run_that_is_being_made(tmp_path):
    dashboard = widgets.TrainingDashboard(tmp_path / "run", live=True)
    assert "no final scores yet" in dashboard.summary.value
    make_run(tmp_path / "run", results=False)
    dashboard.refresh(2, 40, {"iteration": 2})  # as a trainer reports its progress
    assert "2,000" in dashboard.summary.value
    assert len(plotted(dashboard)["data"]) == 5  # points and mean of both phases, validation


@pytest.mark.parametrize("widget", [widgets.AdvantageExplorer, widgets.TrainingDashboard, widgets.CoEvolutionStrip])
def test_what_is_not_a_run_is_refused(widget, tmp_path, run):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "nowhere", tmp_path / "empty", str(tmp_path / "file"), runs.Run(tmp_path / "nowhere")):
        with pytest.raises(RunError, match=r"is not a run folder: it has no manifest.json"):
            widget(path)
    with pytest.raises(HimacError, match="must be "):
        widget(None)


def test_what_a_widget_cannot_show_is_refused(tmp_path, run):
    for file in (run.folder / "rollouts").iterdir():
        file.write_text("")  # as with record_levels=0
    with pytest.raises(RunError, match="holds no recorded rollouts; train with record_levels of 1 or more"):
        widgets.AdvantageExplorer(run)
    for show in (widgets.AdvantageExplorer, widgets.RolloutPlayer, widgets.playback):
        with pytest.raises(RunError, match=r"this record has no group; give a run, or one of run.rollouts"):
            show({"level": "x"})
    for empty in ([], {"a": []}):
        with pytest.raises(RunError, match="no run to show: the list is empty"):
            widgets.TrainingDashboard(empty)
    with pytest.raises(ConfigError, match="window must lie between 1 and 50; it is 0"):
        widgets.TrainingDashboard(run, window=0)
    with pytest.raises(ConfigError, match="source must be the folder of the coming run"):
        widgets.TrainingDashboard([run], live=True)
    with pytest.raises(RunError, match="there is no member 0: this micro group has 0 members"):
        widgets.RolloutPlayer(records()[0], plan=99)
    with pytest.raises(RunError, match="no 'steps' group; it has macro and micro"):
        widgets.RolloutPlayer(records()[0], "steps")


def test_a_strip_refuses_levels_and_iterations_that_are_not_there(run):
    with pytest.raises(RunError, match=r"there is no level 1; .* recorded 1 twice, counted from 0"):
        widgets.CoEvolutionStrip(run, level=1)
    with pytest.raises(RunError, match="did not record level 0 at iteration 7, but at 1, 2"):
        widgets.CoEvolutionStrip(run, iterations=[1, 7])


# The recorded runs


def test_an_absent_recorded_run_is_explained(tmp_path, monkeypatch):
    monkeypatch.setattr("himac_lite.storage.data_dir", lambda: tmp_path)
    with pytest.raises(RunError, match=r"'quickstart' is not at .*runs.quickstart: clone the whole repository, or"):
        widgets.recorded_run()
    make_run(tmp_path / "runs" / "quickstart")
    assert widgets.recorded_run().results["trained"]["success"] == 0.6


def test_no_torch_is_imported():
    code = "import sys, himac_lite.widgets, himac_lite.exercises; print(*[m in sys.modules for m in ('torch', 'peft')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


# CoEvolutionStrip


def test_strip_tells_how_z_star_changed(run):
    strip = widgets.CoEvolutionStrip(run)  # the same level at iterations 1 and 2
    assert list(strip.shown) == [1, 2]
    html = strip.strip.value
    assert html.count("z* is the same as before") == 1
    assert "<img" not in html
    assert "&lt;img src=x onerror=alert(1)&gt;" in html
    entries = widgets.strip.distinct(records()[0])
    # GOOD twice: once solved, once not, for these toy records let it fail; as the first is z*, the entry is z*'s
    assert [(e["count"], e["best"]) for e in entries] == [(2, True), (1, False), (1, False)]
    strip.iterations.value = (2,)
    assert "iteration 1" not in strip.strip.value


def test_change_of_z_star_by_lines():
    assert widgets.strip.change("a\nb", "b\nc") == [("=", "b"), ("+", "c"), ("−", "a")]


def test_a_run_without_a_recurring_level_is_explained(tmp_path):
    run = make_run(tmp_path / "run")
    (run.folder / "rollouts" / "000001.jsonl").unlink()
    with pytest.raises(RunError, match="recorded no level with blueprints twice; train with probe_levels"):
        widgets.CoEvolutionStrip(run)


# Where no kernel runs


def test_every_widget_has_a_picture_and_words(run):
    made = [widgets.AdvantageExplorer(run), widgets.RolloutPlayer(records()[0]), widgets.TrainingDashboard(run),
            widgets.CoEvolutionStrip(run)]  # fmt: skip
    for widget, words in zip(
        made, ("z1 (z*): return 1.00, advantage +1.73", "moves RR", "greedy: 0.25", "iteration 2"), strict=True
    ):
        data, metadata = widget._repr_mimebundle_()
        assert "application/vnd.jupyter.widget-view+json" in data
        assert base64.b64decode(data["image/png"])[:8] == b"\x89PNG\r\n\x1a\n"
        assert len(data["image/png"]) < 60_000
        assert words in data["text/plain"]
        assert metadata["image/png"]["alt"] == data["text/plain"]


# The browser's arithmetic is the library's

NODE = shutil.which("node")


def random_case(rng: np.random.Generator) -> tuple[list[list[Member]], int, Dials]:
    p, n = rng.integers(1, 5), rng.integers(2, 9)
    values = [lambda: float(rng.integers(0, 2)), lambda: float(rng.normal()), lambda: 0.5][rng.integers(0, 3)]
    groups = []
    for _ in range(p):
        rows = []
        for _ in range(n):
            steps = int(rng.integers(0, 6))
            rows.append(Member(values(), steps, tuple(int(s) for s in rng.integers(0, 3, steps))))
        groups.append(rows)
    over = str(rng.choice(["trajectories", "steps"]))
    scale = str(rng.choice(["std", "none"] if over == "steps" else ["std", "none", "batch"]))
    dials = Dials(
        str(rng.choice(["mean", "leave_one_out", "batch"])), scale, int(rng.integers(0, 2)),
        float(10.0 ** rng.integers(-8, 0)),
        over, float(rng.choice([0, 0.5, 1.7])), float(rng.choice([0.95, 1.0])),
    )  # fmt: skip
    return groups, int(rng.integers(0, p)), dials


def as_json(case: tuple[list[list[Member]], int, Dials]) -> list:
    groups, p, dials = case
    return [[[asdict(m) for m in row] for row in groups], p, asdict(dials)]


@pytest.mark.skipif(not NODE, reason="Node.js is not installed; tests/widgets/test_browser.py compares in Chromium")
def test_the_browser_computes_what_the_library_does(tmp_path):
    cases = [random_case(np.random.default_rng([7, i])) for i in range(600)]
    script = f"{browser_code('maths.js')}\nprocess.stdout.write(JSON.stringify(CASES.map((c) => credit(...c))));"
    (tmp_path / "run.mjs").write_text(f"const CASES={json.dumps([as_json(c) for c in cases])};\n{script}", "utf-8")
    done = subprocess.run([str(NODE), str(tmp_path / "run.mjs")], capture_output=True, text=True, check=True)
    for case, shown in zip(cases, json.loads(done.stdout), strict=True):
        wanted = credit(*case)
        assert shown["member"] == pytest.approx(wanted.member, rel=1e-9, abs=1e-9)
        for mine, theirs in zip(shown["actions"], wanted.actions, strict=True):
            assert mine == pytest.approx(theirs, rel=1e-9, abs=1e-9)


@pytest.mark.skipif(not NODE, reason="Node.js is not installed; tests/widgets/test_browser.py compares what is shown")
def test_the_browser_rounds_as_the_library_does(tmp_path):
    """Halves, too: 0.125 is 0.12 and 0.375 is 0.38, to the even digit."""
    rng = np.random.default_rng(0)
    values = [*(np.arange(-40, 41) / 8), *(np.arange(-40, 41) / 32), 0.025, 0.005, *rng.normal(size=200)]
    code = f"console.log(JSON.stringify({json.dumps(values)}.map((x) => [signed(x), signed(x, 4)])));"
    (tmp_path / "run.mjs").write_text(f"{browser_code('numbers.js')}\n{code}", "utf-8")
    done = subprocess.run([str(NODE), str(tmp_path / "run.mjs")], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[plots.signed(x), plots.signed(x, 4)] for x in values]
    assert [plots.signed(0.125), plots.signed(-0.375)] == ["+0.12", "−0.38"]


@pytest.mark.skipif(not NODE, reason="Node.js is not installed; tests/widgets/test_browser.py shows what was unpacked")
def test_the_browser_unpacks_what_was_packed(run, tmp_path):
    data = widgets.AdvantageExplorer(run).player.data
    assert unpacked(packed(data)) == data
    code = f"console.log(JSON.stringify(await unpack({json.dumps(packed(data))})));"
    (tmp_path / "run.mjs").write_text(f"{browser_code('unpack.js')}\n{code}", "utf-8")
    done = subprocess.run([str(NODE), str(tmp_path / "run.mjs")], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == data


def test_credit_is_the_libraries_functions():
    groups, _, _ = random_case(np.random.default_rng(3))
    returns = [[m.ret for m in row] for row in groups]
    assert credit(groups, 0, Dials(ddof=1)).member == pytest.approx(group_advantage(returns, ddof=1)[0])
    steps = [[max(1, m.steps) for m in row] for row in groups]
    assert credit(groups, 0, Dials(over="steps")).member == pytest.approx(group_advantage_over_steps(returns, steps)[0])
    rewards = [[0.0] * (len(m.states) - 1) + [m.ret] for m in groups[0] if m.states]
    played = [m for m in groups[0] if m.states]
    wanted = gigpo_advantage(rewards, [m.states for m in played], omega=0.7)
    for mine, theirs in zip(credit([played], 0, Dials(omega=0.7)).actions, wanted, strict=True):
        assert mine == pytest.approx(theirs)


def test_shaped_return_counts_boxes():
    record = records()[0]
    record["level"] = "########\n#@$.$. #\n########"
    failed = {"moves": "R", "steps": 1, "segments": [{"end": "budget", "steps": 1, "subgoal": ""}]}
    for group in ("macro", "micro"):
        record[group]["members"] = [{**m, **failed} for m in record[group]["members"]]
    level = level_data(record)  # two boxes, one target reached: ½ × 1/2
    assert level["micros"]["0"][3]["rets"] == {"recorded": 0.0, "success": 0.0, "shaped": 0.25}
