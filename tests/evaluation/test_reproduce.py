"""The grid: what is wanted, what is left, rows and tables by hand, and a real one that is tiny."""

from __future__ import annotations

import csv
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import psutil
import pytest
from conftest import TOY_STEPS

from himac_lite import cli, storage
from himac_lite.config import Model, Rollout, Train, Update
from himac_lite.errors import ConfigError, RunError
from himac_lite.evaluation import grid as grid_module
from himac_lite.evaluation import reproduce
from himac_lite.evaluation.reproduce import (
    Cell,
    Kept,
    Row,
    Spent,
    cells,
    compare,
    curve_band,
    read_curve,
    read_rows,
    spent_to,
    summary,
)
from himac_lite.evaluation.rows import WHO, add_row, keep_settings, settings_of
from himac_lite.runs import folder as runs

BINS = {"0-8": {"n": 2, "success": 1.0}}


def row(variant: str, seed: int, solved: str, progress: tuple = (None, None, None), env_steps: int = 100) -> Row:
    """A row by hand: 9 steps a level, base 0.4, random 0.01. progress: of the trained, base and random policy."""
    successes = (solved.count("1") / len(solved), 0.4, 0.01)
    trained, base, random = (
        Kept("himac", success, (0.0, 1.0), len(solved), BINS, 9.0, share)
        for success, share in zip(successes, progress, strict=True)
    )
    return Row(variant, seed, replace(trained, solved=solved), base, random, Spent(env_steps, 200, 1.0, 3))


# ---- the grid ----------------------------------------------------------------------------------------------------


def test_a_grid_goes_seed_by_seed():
    assert [cell.name for cell in cells("efficiency", ["himac", "flat_rloo"], 2)] == [
        "himac-0", "flat_rloo-0", "himac-1", "flat_rloo-1",
    ]  # fmt: skip
    whole = cells("ablations")
    count = {v: sum(c.variant == v for c in whole) for v in {c.variant for c in whole}}
    assert (count["himac"], count["flat_grpo"], count["no_sub_done"], count["prompt_flat"]) == (5, 5, 3, 1)
    # A prompted policy has one seed; a preset that is not of the grid may be asked for.
    assert [cell.name for cell in cells("ablations", ["replan", "prompt_flat"], 2)] == [
        "replan-0", "prompt_flat-0", "replan-1",
    ]  # fmt: skip


def test_a_task_in_words_has_a_grid_of_its_own():
    assert [c.name for c in cells("webshop")][:3] == ["himac-0", "flat_grpo-0", "himac-1"]
    assert len(cells("alfworld")) == 6
    shop, house = (reproduce.settings_for(grid) for grid in ("webshop", "alfworld"))
    assert (shop.test_levels, house.test_levels, house.rollout.max_steps) == ("webshop/test", "household/test", 50)
    assert (house.validate_on, shop.rollout.progress_share) == (48, 1.0)  # as `train --task` has
    assert reproduce.settings_for("efficiency") is reproduce.settings_for("ablations") is reproduce.DEFAULT


def test_a_score_is_shown_where_all_records_have_it():
    rows = [row("himac", 0, "1101", (0.75, 0.5, 0.1)), row("himac", 1, "1111", (1.0, 0.5, 0.1))]
    assert (summary(rows)[0].trained.progress, summary(rows)[0].base.progress) == (0.875, 0.5)
    lines = reproduce.table_text(rows).splitlines()
    assert [line.rsplit("  ", 1)[1] for line in lines[:3]] == ["score % (base)", "87.5 (50.0)", "10.0"]
    assert lines[3:] == ["used-up plans in training; at test: end; end (himac)"]
    assert lines[1].rindex("87.5") == lines[2].rindex("10.0")
    rows.append(row("flat_grpo", 0, "0000"))
    assert summary(rows)[1].trained.progress is None
    assert "score" not in reproduce.table_text(rows)


def test_unknown_names_are_refused():
    for ask in (cells, reproduce.settings_for):
        with pytest.raises(ConfigError, match="unknown grid 'all'; choose one of ablations, efficiency"):
            ask("all")
    with pytest.raises(ConfigError, match="unknown variant 'himack'; choose from himac, "):
        cells("ablations", ["himack"])


# ---- rows --------------------------------------------------------------------------------------------------------


def test_rows_are_written_and_read(tmp_path):
    rows = [row("himac", 1, "1101"), row("himac", 0, "1111"), row("flat_grpo", 0, "0011")]
    reproduce.write_rows(tmp_path, rows, {"himac-0": [{"iteration": 1, "env_steps": 5}]})
    back = read_rows(tmp_path)
    assert [(r.variant, r.seed) for r in back] == [("flat_grpo", 0), ("himac", 0), ("himac", 1)]
    assert back[2] == rows[0]
    assert read_curve(tmp_path, back[1]) == [{"iteration": 1, "env_steps": 5}]
    assert read_curve(tmp_path, back[0]) == []
    with (tmp_path / "rows.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [t["success"] for t in table] == ["0.5", "1.0", "0.75"]
    assert table[0]["success_0-8"] == "1.0"
    for needed in ("variant", "seed", "success", "env_steps", "tokens", "minutes"):
        assert needed in table[0]
    assert (table[0]["base_success"], table[0]["test_steps"]) == ("0.4", "9.0")


@pytest.mark.parametrize(("variant", "mode", "base_mode"), [
    ("himac", "himac", "himac"), ("flat_grpo", "flat", "flat"), ("prompt_flat", "prompted", "flat"),
    ("prompt_retry_8", "prompted", "himac"),
])  # fmt: skip
def test_rows_of_version_0_1_are_read(variant, mode, base_mode, tmp_path):
    flat = {
        "variant": variant, "seed": 3, "success": 0.8, "low": 0.490162, "high": 0.943318, "n": 10, "by_length": BINS,
        "env_steps": 100, "tokens": 200, "minutes": 1.5, "iterations": 3, "mode": mode, "base_success": 0.0,
        "random_success": 0.5, "test_steps": 9.25,
    }  # fmt: skip
    more = {
        "solved": "1111111100", "commit": "c", "machine": "m", "base_by_length": {}, "random_by_length": BINS,
        "score": 0.9, "base_score": 0.2, "random_score": 0.1, "of_another_version": 1,
    }  # fmt: skip
    (tmp_path / "rows.jsonl").write_text(json.dumps(flat) + "\n" + json.dumps({**flat, **more}))
    old, new = read_rows(tmp_path)
    assert (new.name, new.commit, new.machine) == (f"{variant}-3", "c", "m")
    assert new.spent == old.spent == Spent(100, 200, 1.5, 3)
    # Wilson's intervals by hand: 8 of 10 and 0 of 10 as in test_evaluate.py; of 5 of 10 the centre is 0.5, and half is
    # 1.96 √(0.025 + 3.8416/400) / 1.38416 = 0.26341.
    assert new.trained == Kept(mode, 0.8, ANY, 10, BINS, 9.25, 0.9, "1111111100")
    assert new.base == Kept(base_mode, 0.0, ANY, 10, {}, None, 0.2)
    assert new.random == Kept("random", 0.5, ANY, 10, BINS, None, 0.1)
    assert new.trained.ci95 == pytest.approx((0.49016, 0.94332), abs=1e-5)
    assert new.base.ci95 == pytest.approx((0.0, 0.27754), abs=1e-5)
    assert new.random.ci95 == pytest.approx((0.5 - 0.26341, 0.5 + 0.26341), abs=1e-5)
    assert old.trained == replace(new.trained, mean_progress=None, solved="")
    assert (old.base.by_length, old.random.by_length, old.base.mean_progress) == ({}, {}, None)
    reproduce.write_rows(tmp_path, [old, new])
    assert '"spent"' in (tmp_path / "rows.jsonl").read_text()
    assert read_rows(tmp_path) == [old, new]


def test_a_broken_line_is_named(tmp_path):
    reproduce.write_rows(tmp_path, [row("himac", 0, "1")])
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"variant": "himac"}\n')
    with pytest.raises(RunError, match=r"rows.jsonl, line 2: 'mode' is missing"):
        read_rows(tmp_path)
    reproduce.write_rows(tmp_path, [row("himac", 0, "1")])
    text = (tmp_path / "rows.jsonl").read_text()
    for broken in ('["spent"]', text.replace('"n"', '"m"'), text.replace("[0.0, 1.0]", "5"), text[:-9], "7"):
        (tmp_path / "rows.jsonl").write_text(text + broken)
        with pytest.raises(RunError, match=r"rows.jsonl, line 2: "):
            read_rows(tmp_path)
    (tmp_path / "rows.jsonl").write_text(text, "utf-16")
    with pytest.raises(RunError, match=r"cannot read .*rows.jsonl: 'utf-8' codec"):
        read_rows(tmp_path)


def test_a_setting_of_another_version_is_no_difference(tmp_path):
    old = {"iterations": 2, "update.lr": 1e-3, "gone": 1}
    keep_settings(tmp_path, old, begun=False)
    keep_settings(tmp_path, {"iterations": 2, "update.lr": 1e-3, "new": 5}, begun=True)
    with pytest.raises(RunError, match=r"holds rows with update.lr=0.001, not 0.002"):
        keep_settings(tmp_path, {"iterations": 2, "update.lr": 2e-3}, begun=True)
    keep_settings(tmp_path, {"iterations": 3}, begun=False)  # nothing to compare with yet: it begins anew
    assert json.loads((tmp_path / "settings.json").read_text()) == {"iterations": 3}


def test_bookkeeping_is_no_setting(settings):
    one = settings_of(settings, {"train": "a"}, "b")
    assert one == settings_of(replace(settings, seed=3, variant="flat_grpo", record_levels=9), {"train": "a"}, "b")
    assert one != settings_of(replace(settings, rollout=replace(settings.rollout, group=5)), {"train": "a"}, "b")
    assert (one["sha256 of train levels"], one["sha256 of the model"]) == ("a", "b")


# ---- tables ------------------------------------------------------------------------------------------------------


def test_a_summary_by_hand():
    rows = [row("himac", 0, "1111"), row("himac", 1, "1100"), row("flat_grpo", 0, "1000")]
    himac, flat = summary(rows)
    assert (himac.variant, himac.seeds, himac.trained.success) == ("himac", 2, 0.75)
    # 1 and ½: s = ½/√2·√2 … mean ¾, s = 0.35355, t_1 = 12.706: half 12.706 · 0.35355/√2 = 3.1765
    assert himac.over_seeds == pytest.approx((0.75 - 3.1765, 0.75 + 3.1765))
    assert himac.over_both is not None
    assert 0.25 <= himac.over_both[0] <= 0.75 <= himac.over_both[1] <= 1.0
    assert (himac.base.success, himac.random.success, himac.trained.by_length) == (0.4, 0.01, {"0-8": 1.0})
    assert (himac.spent, himac.trained.steps) == (Spent(100, 200, 1.0, 3), 9.0)
    assert flat.over_seeds[0] == -float("inf")
    assert flat.mode == "himac"
    bins = [{"0-8": {"n": 2, "success": s / 2}, "9+": {"n": 1, "success": 1.0}} for s in (0, 1)]
    del bins[0]["9+"]
    told = [row("a", s, "11") for s in (0, 1)]
    told = [replace(r, random=replace(r.random, by_length=b)) for r, b in zip(told, bins, strict=True)]
    assert summary(told)[0].random.by_length == {"0-8": 0.25, "9+": 1.0}


def test_a_comparison_by_hand():
    rows = [row("a", 0, "1111"), row("a", 1, "1110"), row("b", 0, "1100"), row("b", 2, "1000")]
    found = compare(rows, "a", "b")
    assert found.difference == pytest.approx(7 / 8 - 3 / 8)
    # Levels: a 1, 1, 1, ½; b 1, ½, 0, 0: differences 0, ½, 1, ½; |±½ ± 1 ± ½| ≥ 2 in 2 of 8
    assert found.p_levels == 0.25
    assert (found.seeds, found.p_seeds) == (1, 1.0)  # seed 0 alone is common: it cannot say anything
    assert found.interval is not None


def test_without_outcomes_only_seeds_are_compared():
    rows = [row("a", 0, "11"), row("a", 1, "11"), row("b", 0, "00"), row("b", 1, "00")]
    rows = [replace(r, trained=replace(r.trained, solved="")) for r in rows]
    found = compare(rows, "a", "b")
    assert (found.interval, found.p_levels) == (None, None)
    assert found.p_seeds == 0.5  # two pairs of one sign: 2 of 4
    assert summary(rows)[0].over_both is None


CURVES = [
    [
        {"iteration": 0, "validation/success": 0.4},
        {"iteration": 1, "env_steps": 50},
        {"iteration": 2, "env_steps": 100, "validation/success": 0.6},
    ],
    [{"iteration": 0, "validation/success": 0.4}, {"iteration": 2, "env_steps": 200, "validation/success": 0.8}],
]


def test_curves_of_several_seeds():
    x, low, mean, high = curve_band(CURVES, points=3)
    assert x == [0, 50, 100]
    assert mean == pytest.approx([0.4, 0.5, 0.6])  # the second seed: 0.4, 0.5, 0.6 on its way to 0.8 at 200
    assert low == pytest.approx(mean)
    assert high == pytest.approx(mean)
    half, more = spent_to(CURVES, [0.5, 0.7])
    assert half == pytest.approx([50.0, 50.0])
    assert more == [None, pytest.approx(150.0)]
    assert curve_band([[]]) == ([], [], [], [])


def test_a_curve_has_a_band_from_three_seeds_on():
    _, low, mean, high = curve_band(CURVES[:1], points=2)
    assert low == mean == high == pytest.approx([0.4, 0.6])
    ends = [[{"iteration": 1, "env_steps": 9, "validation/success": y}] for y in (0.5, 0.6, 0.7)]
    _, low, mean, high = curve_band(ends[:2], points=1)
    assert low == mean == high == pytest.approx([0.55])
    # s = 0.1, t_2 = 4.303: half 4.303 · 0.1 / √3 = 0.2484
    assert [end[0] for end in curve_band(ends, points=1)[1:]] == pytest.approx(
        [0.6 - 0.2484, 0.6, 0.6 + 0.2484], abs=1e-4
    )


# ---- for real ----------------------------------------------------------------------------------------------------


@pytest.fixture
def settings(tiny_model: Path, toy_file: str) -> Train:
    return Train(
        train_levels=toy_file, validation_levels=toy_file, test_levels=toy_file, iterations=2, validate_every=1,
        record_levels=0, probe_levels=0, checkpoint_every=1, keep_checkpoints=1,
        model=Model(path=str(tiny_model), rank=4, alpha=8),
        rollout=Rollout(min_length=0, levels=4, group=4, max_steps=TOY_STEPS, subgoal_budget=TOY_STEPS),
        update=Update(groups_per_step=1),
    )  # fmt: skip


def timeless(rows: list[Row]) -> list[Row]:
    return [replace(r, spent=replace(r.spent, minutes=0.0)) for r in rows]


TINY = [Cell("himac", 0), Cell("flat_grpo", 0), Cell("prompt_best_of_8", 0)]


def test_a_grid_is_made_once(settings, tmp_path, monkeypatch):
    out, scratch, said = tmp_path / "rows", tmp_path / "runs", []
    rows, left = reproduce.reproduce(TINY, out, scratch, settings=settings, say=said.append)
    assert left == []
    assert [line.partition(":")[0] for line in said] == ["himac-0", "flat_grpo-0", "prompt_best_of_8-0"]
    assert said[-1].endswith("0 of 3 left")
    assert {r.variant for r in rows} == {"himac", "flat_grpo", "prompt_best_of_8"}
    himac = next(r for r in rows if r.variant == "himac")
    run = runs.load_run(scratch / "himac-0")
    for who in WHO:
        score, result = getattr(himac, who), run.results[who]
        assert score.success == result["success"] == score.solved.count("1") / 4
        assert (score.n, score.mean_progress, score.mean_steps) == (4, result["mean_progress"], result["mean_steps"])
        assert (list(score.ci95), score.by_length, score.mode) == (
            result["ci95"], result["by_length"], "random" if who == "random" else "himac"
        )  # fmt: skip
    assert himac.spent.env_steps == run.metrics()[-1]["env_steps"] > 0
    best = next(r for r in rows if r.variant == "prompt_best_of_8")
    assert best.spent == Spent(0, 0, best.spent.minutes, 0)
    assert (best.trained.mode, best.base.mode, best.trained.n) == ("prompted", "himac", 4)
    # Eight attempts a level are paid for, and the best counts; the base has one, of at most TOY_STEPS steps.
    assert best.trained.mean_steps > TOY_STEPS >= best.base.mean_steps
    assert best.trained.success >= best.base.success
    assert [line["iteration"] for line in read_curve(out, himac)] == [0, 1, 2]
    # Again: nothing is trained, from the rows alone, even without the run folders.
    monkeypatch.setattr(grid_module, "train", None)
    again, left = reproduce.reproduce(TINY, out, tmp_path / "elsewhere", settings=settings, say=said.append)
    assert (again, left, len(said)) == (rows, [], 3)
    # Other settings would not be comparable.
    with pytest.raises(RunError, match="holds rows with iterations=2, not 3; choose another --out"):
        reproduce.reproduce(TINY, out, scratch, settings=replace(settings, iterations=3))
    assert json.loads((out / "settings.json").read_text())["rollout.group"] == 4


def test_a_grid_goes_on_where_it_stopped(settings, tmp_path, monkeypatch):
    out, scratch = tmp_path / "rows", tmp_path / "runs"
    rows, left = reproduce.reproduce(TINY[:1], out, scratch, settings=settings, minutes=0.0)
    assert (rows, left) == ([], TINY[:1])
    # The deadline passes during the first iteration: it is the last of this call.
    times = iter([0.0, 0.0] + [1e9] * 1000)
    monkeypatch.setattr(grid_module.time, "time", lambda: next(times))
    rows, left = reproduce.reproduce(TINY[:1], out, scratch, settings=settings, minutes=1.0)
    assert (rows, left) == ([], TINY[:1])
    assert [line["iteration"] for line in runs.load_run(scratch / "himac-0").metrics()] == [0, 1]
    monkeypatch.undo()
    rows, left = reproduce.reproduce(TINY[:1], out, scratch, settings=settings)
    whole, _ = reproduce.reproduce(TINY[:1], tmp_path / "rows2", tmp_path / "runs2", settings=settings)
    assert left == []
    assert timeless(rows) == timeless(whole)  # as if it had not stopped


def test_one_at_a_time_in_one_place(settings, tmp_path):
    scratch = tmp_path / "runs"
    scratch.mkdir()
    with storage.locked(scratch), pytest.raises(RunError, match="runs"):
        reproduce.reproduce([], tmp_path / "rows", scratch, settings=settings)
    assert reproduce.reproduce([], tmp_path / "rows", scratch, settings=settings) == ([], [])


def test_several_processes_may_fill_one_table(settings, tmp_path):
    def meanwhile(line: str) -> None:
        reproduce.write_rows(tmp_path / "rows", [*read_rows(tmp_path / "rows"), row("other", len(said), "1")])
        said.append(line)

    said: list[str] = []
    reproduce.reproduce(TINY, tmp_path / "rows", tmp_path / "runs", settings=settings, say=meanwhile)
    assert sum(r.variant == "other" for r in read_rows(tmp_path / "rows")) == len(said) == 3


def test_rows_of_the_same_moment_are_all_kept(tmp_path):
    """Without the lock the eight threads read the same table, and the last to write it wins."""
    wanted = [row("himac", seed, "1") for seed in range(64)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda new: add_row(tmp_path, new, [{"iteration": 0}]), wanted))
    assert sorted(r.seed for r in read_rows(tmp_path)) == list(range(64))
    assert len(list((tmp_path / "curves").iterdir())) == 64


def test_a_cell_that_fails_does_not_stop_the_others(settings, tmp_path):
    scratch, said = tmp_path / "runs", []
    runs.create_run(scratch / "himac-0", replace(settings, iterations=7), {})
    with pytest.raises(RunError, match="himac-0 was started with other settings"):
        reproduce.reproduce(TINY[::2], tmp_path / "rows", scratch, settings=settings, say=said.append)
    assert [r.variant for r in read_rows(tmp_path / "rows")] == ["prompt_best_of_8"]


def die(_: Any) -> None:
    """What a machine does to a worker that is short of memory."""
    psutil.Process().kill()


def test_a_killed_worker_is_a_message(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(grid_module, "_settle", die)  # a worker's first act
    with pytest.raises(RunError, match="a worker was killed"):
        reproduce.reproduce(TINY, tmp_path / "rows", tmp_path / "runs", settings=settings, workers=2)
    assert read_rows(tmp_path / "rows") == []


@pytest.mark.slow
def test_any_number_of_workers_makes_the_same_rows(settings, tmp_path):
    made = []
    for workers in (1, 2):
        out = tmp_path / f"rows{workers}"
        rows, _ = reproduce.reproduce(TINY, out, tmp_path / f"runs{workers}", settings=settings, workers=workers)
        made.append(timeless(rows))
    assert made[0] == made[1]


def test_the_command_lists_and_refuses(tmp_path, capsys):
    reproduce.write_rows(tmp_path, [row("himac", 0, "1101"), row("himac", 1, "1111")])
    argv = ["reproduce", "ablations", "--out", str(tmp_path), "--variants", "himac,flat_grpo", "--seeds", "2", "--list"]
    assert cli.main(argv) == 0
    out = capsys.readouterr().out
    assert "himac" in out
    assert "87.5" in out
    assert "2 runs are left: flat_grpo-0, flat_grpo-1; the same command without --list trains them" in out
    assert "random policy                   1.0" in out
    assert cli.main([*argv, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["left"] == ["flat_grpo-0", "flat_grpo-1"]
    reproduce.write_rows(tmp_path, [row("himac", 0, "1101"), row("himac", 1, "1111"), row("flat_grpo", 1, "0001")])
    assert cli.main(argv) == 0
    # 7/8 − 1/4; levels: ½·(1+1) − 0, 1 − 0, ½ − 0, 1 − 1: differences 1, 1, ½, 0, all of one sign: 2 of 8
    assert "himac − flat_grpo           +62.5 points" in (out := capsys.readouterr().out)
    assert "p over levels 0.2500, over seeds 1.000, pairs: 1" in out
    assert cli.main([*argv[:2], "--workers", "0"]) == 2
    assert "--workers must be at least 1, not 0" in capsys.readouterr().err
    assert cli.main([*argv[:2], "--set", "seed=3"]) == 2
    assert "all runs share" in capsys.readouterr().err


@pytest.mark.parametrize("grid", ["ablations", "efficiency", "webshop", "alfworld"])
def test_the_shipped_rows_are_found_from_any_folder(tmp_path, monkeypatch, capsys, grid):
    from himac_lite.storage import data_dir

    monkeypatch.chdir(tmp_path)
    here, shipped = (folder / ("reproduce" if grid in ("ablations", "efficiency") else grid) for folder in
                     (Path("data/runs"), data_dir() / "runs"))  # fmt: skip
    assert cli.main(["reproduce", grid, "--list"]) == 0
    table = capsys.readouterr().out
    assert table.startswith(f"{shipped}:\nvariant ")
    assert cli.main(["reproduce", grid, "--list", "--out", str(here)]) == 0  # a folder that is named is the only one
    assert capsys.readouterr().out.startswith(f"no such row in {here} yet")
    reproduce.write_rows(here, [row("himac", 0, "1101")])  # own rows come first
    assert cli.main(["reproduce", grid, "--list"]) == 0
    assert capsys.readouterr().out.startswith(f"{here}:\n")
    monkeypatch.setattr("himac_lite.storage.data_dir", lambda: tmp_path / "nowhere")
    shutil.rmtree("data")
    assert cli.main(["reproduce", grid, "--list"]) == 0
    assert capsys.readouterr().out.startswith(f"no such row in {here} or {tmp_path / 'nowhere'}")


def test_records_of_single_runs_make_rows_too():
    from himac_lite.storage import data_dir

    rows = reproduce.rows_of_runs(data_dir() / "runs" / "core")
    assert {(r.variant, r.seed) for r in rows} == {(v, s) for v in ("himac", "flat_grpo") for s in range(3)}
    assert all(r.trained.success > r.base.success > r.random.success and r.trained.n == 512 for r in rows)
    assert all(set(r.trained.by_length) == set(r.base.by_length) == set(r.random.by_length) for r in rows)
    assert "himac" in reproduce.table_text(rows)
    assert read_curve(data_dir() / "runs" / "core", rows[0])[-1]["env_steps"] == rows[0].spent.env_steps


LINES = [
    {"iteration": 0, "validation/success": 0.4},
    {"iteration": 2, "env_steps": 50, "tokens": 60, "validation/success": 0.6, "micro/zero_variance": 0.4},
    {"iteration": 4, "env_steps": 100, "tokens": 130, "validation/success": 0.9, "micro/zero_variance": 0.2},
]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], ["The grid has not been run.", "ablations 6 of 23", "flat_grpo +5.3", "not run yet: random_blueprint"]),
        (
            [row("prompt_flat", 0, "1010", env_steps=0)],
            [
                "ablations 1 of 23 himac-0, random_blueprint-0",
                "prompt_flat 1 50.0 – 0.0–100.0 40.0 random policy – 1.0",
                "prompt_flat not trained – – 9",
                "Nothing to compare yet",
                "This needs a row of HiMAC and one of flat GRPO.",
                "random_blueprint 2.4 2.6 not run yet",
            ],
        ),
        (
            [row("himac", s, "1111") for s in range(2)] + [row("flat_grpo", 0, "0111"), row("no_sub_done", 0, "1100")],
            [
                "ablations 4 of 23",
                "himac 2 100.0 100.0–100.0 100.0–100.0 40.0 flat_grpo 1 75.0 – ",
                "himac 100 200 1 9",
                "no_sub_done +50.0 +0.0 to +100.0 0.5000 1.000 1",
                # From (50 steps, 60 tokens, 60 %) to (100, 130, 90 %): 65 % is a sixth of the way.
                "himac 65% 58 72 2 of 2",
                "flat GRPO ends at 90.0% after 100 steps",
                "himac 100% 2 of 2 flat_grpo 100% 1 of 1",
                "no_sub_done 3.9 4.3 50.0",
                "no_sub_done − flat_grpo -25.0 undecided",
                "groups that taught something planner executor himac – 70%",
                "not run yet: random_blueprint, joint_update",
            ],
        ),
    ],
    ids=["core", "prompted", "part"],
)
def test_notebook_08_draws_what_there_is_and_says_what_is_missing(rows, words, tmp_path, monkeypatch, capsys):
    from notebook_runs import ROOT, run_in_process

    from himac_lite.storage import data_dir

    place = tmp_path / "runs" / "reproduce"
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "core").symlink_to(data_dir() / "runs" / "core")
    if rows:
        trained = [r for r in rows if not r.variant.startswith("prompt")]
        reproduce.write_rows(place, rows, {f"{r.variant}-{r.seed}": LINES for r in trained})
    monkeypatch.setattr("himac_lite.storage.data_dir", lambda: tmp_path)
    run_in_process(ROOT / "notebooks" / "solutions" / "08_reproduce.ipynb")
    out = " ".join(capsys.readouterr().out.split())  # columns of a table are as wide as their longest cell
    for word in words:
        assert word in out, word
