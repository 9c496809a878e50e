"""Run folders: what is written is whole or not there, and a damaged or torn run can still be read and gone on with."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import needs_training, one_line, planned
from recorded_runs import RESULTS

from himac_lite.config import Rollout, Train, as_dict
from himac_lite.errors import ConfigError, RunError
from himac_lite.runs.folder import Run, create_run, levels_hash, load_run
from himac_lite.runs.records import macro_record, micro_record, sequence_record, trajectory_record
from himac_lite.types import Blueprint, End, Group, Invalid, Level, Role, SubGoal, TokenSequence, Trajectory

LEVEL = Level(("#####", "#@$.#", "#####"), "one push", 1, 1)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return create_run(
        tmp_path / "run", Train(seed=7, rollout=Rollout(min_length=0, group=4)), {"train": [LEVEL], "test": [LEVEL] * 2}
    )


def saver(text: str = "weights") -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        (folder / "adapter.bin").write_text(text)
        (folder / "more.bin").write_text(text * 2)

    return save


def tree(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


# ---- create, write, read -----------------------------------------------------------------------------------------


@needs_training
def test_a_new_run_says_what_it_is(run):
    assert run.config == Train(seed=7, rollout=Rollout(min_length=0, group=4))
    manifest = load_run(run.folder).manifest
    assert manifest["config"]["rollout"]["group"] == 4
    assert manifest["levels"] == {
        "train": {"n": 1, "sha256": levels_hash([LEVEL])},
        "test": {"n": 2, "sha256": levels_hash([LEVEL] * 2)},
    }
    assert {"torch", "transformers", "peft", "bitsandbytes", "numpy", "python"} <= set(manifest["versions"])
    assert all(manifest["versions"][name] for name in ("torch", "numpy", "python"))
    assert manifest["machine"]["cpus"] == os.cpu_count()
    assert (run.metrics(), run.results, run.recorded_iterations(), run.latest_checkpoint()) == ([], {}, [], None)


def test_the_hash_of_levels_depends_on_every_cell_and_the_order():
    other = Level(("#####", "#.$@#", "#####"))
    hashes = {levels_hash(x) for x in ([LEVEL], [other], [LEVEL, other], [other, LEVEL], [LEVEL, LEVEL])}
    assert len(hashes) == 5
    assert levels_hash([LEVEL]) == levels_hash([Level(LEVEL.rows, "another title")])


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ({"trained": {}}, "trained: 'success' should be int or float"),
        ({"random": None}, "random should be an object"),
        ({"base": RESULTS["base"] | {"ci95": [0.1]}}, "base: 'ci95' should be two numbers"),
        ({"base": RESULTS["base"] | {"by_length": {"0-8": 1}}}, "base, optimal length '0-8' should be an object"),
        ({"tokens": "many"}, "the results: 'tokens' should be int"),
    ],
)  # fmt: skip
def test_final_scores_without_what_tables_show_are_refused(run, edit, said):
    run.write_results(RESULTS | edit)
    with pytest.raises(RunError) as error:
        _ = run.results
    assert said in one_line(error)
    assert "results.json" in str(error.value)


def test_metrics_records_results_and_checkpoints_come_back(run):
    run.append_metrics({"iteration": 1, "loss": 0.25})
    run.append_metrics({"iteration": 2, "loss": 0.125})
    run.record(2, [{"level": "x"}, {"level": "y"}])
    run.record(11, [])
    run.save_checkpoint(2, {"env_steps": 30}, saver(), keep=2)
    run.write_results(RESULTS)
    again = load_run(run.folder)
    assert again.metrics() == [{"iteration": 1, "loss": 0.25}, {"iteration": 2, "loss": 0.125}]
    assert again.recorded_iterations() == [2]  # nothing was recorded in iteration 11
    assert again.rollouts(2) == [{"level": "x"}, {"level": "y"}]
    assert again.rollouts(3) == []
    assert again.results == RESULTS
    checkpoint = again.latest_checkpoint()
    assert (checkpoint.iteration, checkpoint.state["env_steps"]) == (2, 30)
    assert (checkpoint.folder / "adapter.bin").read_text() == "weights"
    assert not [f for f in run.folder.rglob("*") if "tmp" in f.name]


def test_metrics_as_a_table(run, monkeypatch):
    pandas = pytest.importorskip("pandas")
    run.append_metrics({"iteration": 1, "loss": 0.25})
    run.append_metrics({"iteration": 2, "loss": 0.125, "validation/success": 0.5})
    table = run.table()
    assert isinstance(table, pandas.DataFrame)
    assert table["loss"].tolist() == [0.25, 0.125]
    assert table["validation/success"].isna().tolist() == [True, False]


def test_a_table_without_pandas_says_what_to_install(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)  # importing it now raises ModuleNotFoundError
    with pytest.raises(ConfigError, match="pip install pandas"):
        run.table()


def test_a_folder_with_a_run_is_refused_and_left_alone(run):
    run.append_metrics({"iteration": 1})
    before = tree(run.folder)
    with pytest.raises(RunError) as error:
        create_run(run.folder, Train(), {})
    assert str(run.folder) in one_line(error)
    assert "--resume" in one_line(error)
    assert tree(run.folder) == before


def test_an_empty_folder_may_become_a_run(tmp_path):
    (tmp_path / "run").mkdir()
    assert create_run(tmp_path / "run", Train(), {}).config == Train()


# ---- what is no run ----------------------------------------------------------------------------------------------


def test_what_is_no_run_is_named(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(RunError) as error:
            load_run(folder)
        assert str(folder) in one_line(error)
        assert "manifest.json" in one_line(error)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cannot read"),
        ('{"format": 1, "config', "cannot read"),
        ("[1, 2]", "JSON object"),
        ('{"format": 99}', "format 99"),
        ("{}", "format None"),
    ],
)
def test_a_damaged_manifest_is_named(run, text, said):
    (run.folder / "manifest.json").write_text(text)
    with pytest.raises(RunError) as error:
        load_run(run.folder)
    assert said in one_line(error)
    assert str(run.folder) in one_line(error)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m.pop("config"), "no 'config'"),
        (lambda m: m["config"].pop("model"), "model"),
        (lambda m: m["config"].update(speed=3), "speed"),
        (lambda m: m["config"]["update"].update(lr=-1.0), "update.lr"),
        (lambda m: m["config"].update(iterations="many"), "configuration"),
        (lambda m: m.update(config=[1]), "configuration"),
    ],
)
def test_a_configuration_that_cannot_be_read_is_named(run, change, said):
    manifest = json.loads((run.folder / "manifest.json").read_text())
    change(manifest)
    (run.folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunError) as error:
        _ = load_run(run.folder).config
    assert said in one_line(error)
    assert "manifest.json" in one_line(error)


# ---- torn and damaged --------------------------------------------------------------------------------------------


def test_a_torn_last_line_is_left_out_and_written_over(run):
    run.append_metrics({"iteration": 1})
    run.append_metrics({"iteration": 2})
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 3, "macro/los')
    assert [m["iteration"] for m in run.metrics()] == [1, 2]
    run.rewind(2)  # as every resumed run does
    run.append_metrics({"iteration": 3})
    assert [m["iteration"] for m in run.metrics()] == [1, 2, 3]


def test_rewinding_forgets_what_came_later_and_nothing_else(run):
    for i in range(5):
        run.append_metrics({"iteration": i})
        run.record(i, [{"i": i}])
    run.save_checkpoint(2, {}, saver(), keep=3)
    run.save_checkpoint(4, {}, saver(), keep=3)
    run.write_results({"iterations": 4})
    run.rewind(3)
    assert [m["iteration"] for m in run.metrics()] == [0, 1, 2, 3]
    assert run.recorded_iterations() == [0, 1, 2, 3]
    assert [f.name for f in (run.folder / "checkpoints").iterdir()] == ["000002"]
    assert run.results == {}  # scores of weights that are no longer there


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: (f / "adapter.bin").write_text("weightz"),
        lambda f: (f / "more.bin").write_text("weights"),  # cut short
        lambda f: (f / "more.bin").unlink(),
        lambda f: (f / "state.json").unlink(),
        lambda f: (f / "state.json").write_text('{"iteration": 4, "sha'),
        lambda f: (f / "state.json").write_text("[]"),
        lambda f: (f / "state.json").write_text('{"iteration": 4}'),
        lambda f: (f / "state.json").write_text('{"iteration": null, "sha256": {}}'),
        lambda f: (f / "state.json").write_bytes(b"\xff\xfe\x00"),
    ],
)
def test_a_damaged_newest_checkpoint_is_skipped(run, damage):
    run.save_checkpoint(2, {"env_steps": 20}, saver(), keep=2)
    run.save_checkpoint(4, {"env_steps": 40}, saver(), keep=2)
    assert run.latest_checkpoint().iteration == 4
    damage(run.folder / "checkpoints" / "000004")
    checkpoint = run.latest_checkpoint()
    assert (checkpoint.iteration, checkpoint.state["env_steps"]) == (2, 20)
    damage(run.folder / "checkpoints" / "000002")
    assert run.latest_checkpoint() is None


def test_a_damaged_checkpoint_does_not_push_out_an_intact_one(run):
    """A run of which only damaged checkpoints are left starts anew; what it then saves must stay."""
    run.save_checkpoint(9, {}, saver(), keep=1)
    (run.folder / "checkpoints" / "000009" / "adapter.bin").write_text("")
    assert run.latest_checkpoint() is None
    run.rewind(0)
    run.save_checkpoint(5, {}, saver(), keep=1)
    assert run.latest_checkpoint().iteration == 5


def test_an_unfinished_checkpoint_is_no_checkpoint(run):
    run.save_checkpoint(2, {}, saver(), keep=2)
    saver()(_folder(run.folder / "checkpoints" / ".000004.tmp"))
    assert run.latest_checkpoint().iteration == 2
    run.save_checkpoint(4, {}, saver("new"), keep=2)  # what lay there is no hindrance
    assert run.latest_checkpoint().iteration == 4
    assert not (run.folder / "checkpoints" / ".000004.tmp").exists()


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_old_checkpoints_go_and_a_checkpoint_may_be_written_again(run):
    for i in (2, 4, 6, 8):
        run.save_checkpoint(i, {}, saver(), keep=2)
    assert sorted(f.name for f in (run.folder / "checkpoints").iterdir()) == ["000006", "000008"]
    run.save_checkpoint(8, {"again": True}, saver("other"), keep=2)
    assert run.latest_checkpoint().state["again"] is True
    assert (run.latest_checkpoint().folder / "adapter.bin").read_text() == "other"


# ---- what cannot be written --------------------------------------------------------------------------------------


def actions(run: Run) -> dict[str, Callable[[], None]]:
    return {
        "metrics": lambda: run.append_metrics({"iteration": 2, "text": "x" * 100_000}),
        "record": lambda: run.record(1, [{"text": "x" * 100_000}]),
        "results": lambda: run.write_results({"text": "x" * 100_000}),
        "checkpoint": lambda: run.save_checkpoint(1, {}, saver("x" * 100_000), keep=1),
        "state": lambda: run.save_checkpoint(1, {"text": "x" * 100_000}, saver("x"), keep=1),
        "rewind": lambda: run.rewind(1),
    }


@pytest.mark.parametrize("what", ["metrics", "record", "results", "checkpoint", "state", "rewind"])
def test_a_full_disk_is_one_line_and_what_was_there_is_kept(run, what, file_limit):
    """The system itself refuses to write more than 10,000 bytes to a file."""
    run.append_metrics({"iteration": 1, "text": "y" * (20_000 if what == "rewind" else 10)})
    run.record(1, [{"text": "before"}])
    run.save_checkpoint(1, {"env_steps": 1}, saver("before"), keep=1)
    run.write_results(RESULTS)
    before = tree(run.folder)
    with file_limit(10_000), pytest.raises(RunError) as error:
        actions(run)[what]()
    assert str(run.folder) in one_line(error)
    assert "too large" in one_line(error)
    assert "kept" in one_line(error)
    after = tree(run.folder)
    if what == "metrics":  # a torn line is all that may be left, and is not read
        assert after.pop("metrics.jsonl").startswith(before.pop("metrics.jsonl"))
    assert after == before
    assert [m["iteration"] for m in run.metrics()] == [1]
    assert run.rollouts(1) == [{"text": "before"}]
    assert run.latest_checkpoint().iteration == 1
    assert run.results == RESULTS


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError) as error:
        create_run(tmp_path / "file" / "run", Train(), {})
    assert str(tmp_path / "file" / "run") in one_line(error)


@pytest.mark.parametrize(("number", "said"), [(28, "No space left on device"), (30, "Read-only file system")])
def test_no_run_is_begun_where_nothing_can_be_written(tmp_path, monkeypatch, number, said):
    def refuse(*args: Any, **kwargs: Any) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(RunError) as error:
            create_run(tmp_path / "run", Train(), {})
    assert said in one_line(error)
    assert str(tmp_path / "run") in one_line(error)
    with pytest.raises(RunError):
        load_run(tmp_path / "run")  # half a run is no run …
    assert create_run(tmp_path / "run", Train(), {}).config == Train()  # … and is no hindrance


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_named(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(RunError) as error:
            create_run(tmp_path / "run", Train(), {})
    finally:
        tmp_path.chmod(0o700)
    assert str(tmp_path / "run") in one_line(error)


# ---- records -----------------------------------------------------------------------------------------------------

GOAL = "push the box at (1,2) right to (1,3)"
PLAN = TokenSequence(
    Role.PLANNER, (9, 9, 5, 6), 2, (False, False, True, True), (0.0, 0.0, -0.123456, -2.0), End.PLAN, GOAL
)
SEGMENT = TokenSequence(Role.EXECUTOR, (9, 7, 8), 1, (False, True, False), (0.0, -0.5, 0.0), End.SUCCESS, "right")
DONE = Trajectory(Blueprint(GOAL, (SubGoal(GOAL),)), (SEGMENT,), "R", 1.0, True, 1, (1,))
FAILED = Trajectory(Blueprint("what?", (), Invalid.SYNTAX), (), "", 0.0, False, 0, ())


def decode(ids: list[int]) -> str:
    return f"<{ids[0]}>"


def test_records_hold_what_a_widget_shows():
    assert sequence_record(PLAN, decode) == {"tokens": ["<5>", "<6>"], "sampled": [1, 1], "logp": [-0.1235, -2.0]}
    record = macro_record(planned(LEVEL, (PLAN, PLAN), (DONE, FAILED)), [1.0, -1.0], 0, decode)
    assert record == {
        "best": 0,
        "members": [
            {
                "blueprint": GOAL, "invalid": None, "return": 1.0, "success": True, "steps": 1, "moves": "R",
                "advantage": 1.0, "segments": [{"end": "success", "steps": 1, "subgoal": GOAL}],
                "tokens": ["<5>", "<6>"], "sampled": [1, 1], "logp": [-0.1235, -2.0],
            },
            {
                # An invalid blueprint is logged with its reason.
                "blueprint": "what?", "invalid": "SYNTAX", "return": 0.0, "success": False, "steps": 0, "moves": "",
                "advantage": -1.0, "segments": [], "tokens": ["<5>", "<6>"], "sampled": [1, 1], "logp": [-0.1235, -2.0],
            },
        ],
    }  # fmt: skip
    micro = micro_record(Group(LEVEL, (DONE,)), [0.5], decode)
    assert micro["blueprint"] == GOAL
    assert micro["members"][0]["sequences"] == [{"tokens": ["<7>", "<8>"], "sampled": [1, 0], "logp": [-0.5, 0.0]}]
    flat = Trajectory(None, (SEGMENT,), "R", 1.0, True, 1, (1,))
    assert micro_record(Group(LEVEL, (flat,)), [0.0], decode)["blueprint"] is None
    assert trajectory_record(flat, 0.0)["segments"] == [{"end": "success", "steps": 1, "subgoal": ""}]
    json.dumps([record, micro])


def test_the_manifest_holds_the_whole_configuration(run):
    assert run.manifest["config"] == json.loads(json.dumps(as_dict(run.config)))
