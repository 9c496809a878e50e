"""Checkpoints: each byte sealed, the best stays, a stranger's folder leads nowhere, one process writes at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from himac_lite import storage
from himac_lite.config import Train
from himac_lite.errors import RunError
from himac_lite.runs.folder import Run, create_run, load_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return create_run(tmp_path / "run", Train(), {})


def save(run: Run, iteration: int, validation: float | None = None, keep: int = 2) -> Path:
    state = {} if validation is None else {"validation": validation}
    run.save_checkpoint(iteration, state, lambda f: (f / "weights").write_text(f"of {iteration}"), keep)  # type: ignore[arg-type,return-value]
    return run.folder / "checkpoints" / f"{iteration:06d}"


def names(run: Run) -> list[int]:
    return sorted(int(f.name) for f in (run.folder / "checkpoints").iterdir())


# ---- the last and the best


def test_the_last_ones_and_the_best_are_kept(run):
    for i, score in enumerate([0.2, 0.5, 0.4, 0.5, 0.1, None, 0.3], start=1):
        save(run, i, score)
    assert names(run) == [4, 6, 7]  # of the two best the later
    assert run.latest_checkpoint().iteration == 7
    assert run.best_checkpoint().iteration == 4
    save(run, 8, 0.9)
    save(run, 9)
    assert names(run) == [8, 9]  # the best is among the last


def test_without_a_validation_curve_there_is_no_best(run):
    save(run, 1)
    assert run.best_checkpoint() is None


@pytest.mark.parametrize("score", ["0.9", None, [1], float("nan"), float("inf")])
def test_a_score_that_is_no_number_does_not_count(run, score):
    save(run, 1, 0.1)
    save(run, 2, score)
    assert run.best_checkpoint().iteration == 1


def test_a_damaged_best_gives_way_to_the_next(run):
    save(run, 1, 0.9)
    save(run, 2, 0.5)
    (run.folder / "checkpoints/000001/weights").write_text("of 9")
    heard: list[str] = []
    assert run.best_checkpoint(heard.append).iteration == 2
    assert "000001 is damaged: weights does not match its hash" in heard[0]
    assert "000002 is intact and used instead" in heard[1]


# ---- damage


def test_any_changed_byte_of_any_file_is_seen_and_said(run):
    save(run, 1)
    folder = save(run, 2)
    for file in sorted(folder.iterdir()):
        data = file.read_bytes()
        for at in range(len(data)):
            file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            heard: list[str] = []
            assert run.latest_checkpoint(heard.append).iteration == 1, (file.name, at)
            assert str(folder) in heard[0]
        file.write_bytes(data)
    heard = []
    assert run.latest_checkpoint(heard.append).iteration == 2
    assert heard == []


def test_when_none_is_intact_it_is_said(run):
    (save(run, 1) / "weights").unlink()
    heard: list[str] = []
    assert run.latest_checkpoint(heard.append) is None
    assert heard[-1] == "no checkpoint is intact"


def test_a_checkpoint_of_another_iteration_or_run_is_none(run, tmp_path):
    save(run, 1)
    (run.folder / "checkpoints/000001").rename(run.folder / "checkpoints/000005")
    assert run.latest_checkpoint() is None
    other = create_run(tmp_path / "other", Train(), {})
    save(other, 5)
    (other.folder / "checkpoints/000005").rename(run.folder / "checkpoints/000006")
    assert run.latest_checkpoint() is None


def test_a_run_of_an_earlier_version_is_gone_on_with(run):
    save(run, 1)
    manifest = run.manifest
    del manifest["checkpoints"]
    (run.folder / "manifest.json").write_text(json.dumps(manifest))
    assert run.latest_checkpoint().iteration == 1
    save(run, 2)
    assert sorted(run.manifest["checkpoints"]) == ["000001", "000002"]
    (run.folder / "checkpoints/000002/weights").unlink()
    assert run.latest_checkpoint().iteration == 1


# ---- a stranger's folder


def reseal(run: Run, folder: Path, change: Callable[[dict], None]) -> None:
    """Change a state as its author could: with the right hash in the manifest."""
    state = json.loads((folder / "state.json").read_text())
    change(state)
    (folder / "state.json").write_text(json.dumps(state))
    manifest = run.manifest
    manifest["checkpoints"][folder.name] = storage.sha256(folder / "state.json")
    (run.folder / "manifest.json").write_text(json.dumps(manifest))


ELSEWHERE = ["../../../secret", "/etc/hostname", "a/../b", "..\\x", "C:x", "", ".", "..", "\0", "x" * 300]


@pytest.mark.parametrize("name", ELSEWHERE)
def test_names_that_lead_out_of_the_folder_are_refused(run, tmp_path, name):
    folder = save(run, 1)
    (tmp_path / "secret").write_text("s")
    reseal(run, folder, lambda state: state["sha256"].update({name: storage.sha256(tmp_path / "secret")}))
    heard: list[str] = []
    assert run.latest_checkpoint(heard.append) is None
    assert "which is not a file of this folder" in heard[0]


@pytest.mark.parametrize("change", [
    lambda s: s.update(iteration=True), lambda s: s.update(iteration="1"), lambda s: s.update(sha256={}),
    lambda s: s.update(sha256=["weights"]), lambda s: s.update(sha256={"weights": None}), lambda s: s.clear(),
])  # fmt: skip
def test_a_state_of_another_shape_is_refused(run, change):
    reseal(run, save(run, 1), change)
    assert run.latest_checkpoint() is None


def test_files_in_folders_are_sealed_too(run, tmp_path):
    """An adapter a role: the executor's lies in a folder of its own."""

    def save_two(folder: Path) -> None:
        (folder / "weights").write_text("planner")
        (folder / "executor").mkdir()
        (folder / "executor" / "weights").write_text("executor")

    run.save_checkpoint(1, {}, save_two, 1)
    assert set(run.latest_checkpoint().state["sha256"]) == {"weights", "executor/weights"}
    inner = run.folder / "checkpoints/000001/executor"
    (inner / "weights").write_text("Executor")
    assert run.latest_checkpoint() is None
    (inner / "weights").write_text("executor")
    inner.rename(tmp_path / "elsewhere")
    inner.symlink_to(tmp_path / "elsewhere")
    assert run.latest_checkpoint() is None


def test_links_are_not_followed(run, tmp_path):
    folder, outside = save(run, 1), tmp_path / "outside"
    (folder / "weights").rename(outside)
    (folder / "weights").symlink_to(outside)  # the same bytes
    assert run.latest_checkpoint() is None
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert run.latest_checkpoint() is None
    run.rewind(0)
    assert (tmp_path / "elsewhere" / "state.json").exists()
    assert outside.exists()


@pytest.mark.parametrize("name", ["manifest.json", "metrics.jsonl", "rollouts", "checkpoints", "results.json"])
def test_a_run_whose_parts_are_links_is_read_and_not_gone_on_with(run, tmp_path, name):
    inside, outside = run.folder / name, tmp_path / name
    if name == "results.json":
        run.write_results({"a": 1})
    inside.rename(outside)
    inside.symlink_to(outside)
    before = outside.read_bytes() if outside.is_file() else None
    assert load_run(run.folder).metrics() == []
    with pytest.raises(RunError, match="symbolic link"):
        run.rewind(0)
    assert before is None or outside.read_bytes() == before


def test_a_link_beside_a_file_is_not_written_through(run, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("mine")
    for name in (".metrics.jsonl.tmp", ".results.json.tmp"):
        (run.folder / name).symlink_to(secret)
    run.write_results({"a": 1})
    run.rewind(0)
    assert secret.read_text() == "mine"
    assert not list(run.folder.rglob("*.tmp"))


# ---- half done, and one at a time


def test_what_a_killed_process_left_is_cleared_away_and_nothing_else(run):
    save(run, 1)
    for left in ("checkpoints/.000002.tmp", "checkpoints/.000000.old"):
        (run.folder / left).mkdir()
        (run.folder / left / "weights").write_text("half")
    (run.folder / "rollouts/.000002.jsonl.tmp").write_text("half")
    (run.folder / ".manifest.json.tmp").write_text("half")
    (run.folder / "notes.tmp").write_text("mine")
    run.rewind(1)
    assert [f.name for f in (run.folder / "checkpoints").iterdir()] == ["000001"]
    assert list((run.folder / "rollouts").iterdir()) == []
    assert [f.name for f in run.folder.rglob("*.tmp")] == ["notes.tmp"]


def test_only_the_newest_rollouts_are_kept_if_so_wished(run):
    for i in range(6):
        run.record(i, [{"i": i}])
    assert run.recorded_iterations() == [0, 1, 2, 3, 4, 5]
    run.record(6, [{"i": 6}], keep=3)
    assert run.recorded_iterations() == [4, 5, 6]


def test_two_processes_do_not_train_one_run(run):
    pytest.importorskip("fcntl")
    code = (
        "import sys, pathlib; from himac_lite import storage\n"
        f"with storage.locked(pathlib.Path({str(run.folder)!r})): print('held', flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    other = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2], **pipes)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RunError, match="another process is training"), storage.locked(run.folder):
            pass
    finally:
        other.kill()  # SIGKILL: the system gives the lock back
        other.wait()
    with storage.locked(run.folder):
        assert (run.folder / ".lock").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no such files here")
def test_only_ordinary_files_are_read(run):
    for name in ("manifest.json", "metrics.jsonl"):
        (run.folder / name).unlink()
    os.mkfifo(run.folder / "metrics.jsonl")  # reading it would wait for ever
    (run.folder / "manifest.json").symlink_to("/dev/zero")  # and this would never end
    with pytest.raises(RunError, match="not an ordinary file"):
        run.metrics()
    with pytest.raises(RunError, match="not an ordinary file"):
        _ = run.manifest
