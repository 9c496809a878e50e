"""The promises of docs/reliability.md in the small: kills, full disks, hostile strings, the same in every process."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TOY_STEPS, one_line

from himac_lite.coevolution import adapt
from himac_lite.config import Model, Rollout, Train, Update
from himac_lite.errors import RunError
from himac_lite.hierarchy import Hierarchy
from himac_lite.hierarchy.credit import credit_actions
from himac_lite.policy.update import learn
from himac_lite.rollout.play import Arena
from himac_lite.runs import health, training
from himac_lite.runs.folder import load_run
from himac_lite.runs.training import load_trained, train
from himac_lite.types import Sampling

ROOT = Path(__file__).parents[1]
COMMANDS = ROOT / "tests" / "reliability"


def command(name: str, *argv: str, **environment: str) -> str:
    """What a documented command prints; it must end well."""
    done = subprocess.run(
        [sys.executable, str(COMMANDS / name), *argv], capture_output=True, text=True, cwd=ROOT, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def config(tiny_model: Path, toy_file: str) -> Train:
    return Train(
        train_levels=toy_file, validation_levels=toy_file, test_levels=toy_file, iterations=2, seed=3, record_levels=1,
        probe_levels=0, validate_every=1, validate_on=4, checkpoint_every=1,
        model=Model(str(tiny_model), rank=4, alpha=8),
        rollout=Rollout(min_length=0, levels=4, group=4, max_steps=TOY_STEPS, subgoal_budget=TOY_STEPS),
        update=Update(groups_per_step=1, epochs=1, lr=3e-3, minibatches=2),
    )  # fmt: skip


# ---- kills, and what is the same everywhere


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_run_killed_at_five_points_ends_as_if_nothing_had_been():
    assert "5 of 5 points ended as the undisturbed run" in command("kill.py", "--points", "5", "--seed", "1")


def test_levels_prompts_seeds_and_samples_are_the_same_in_every_process():
    with ThreadPoolExecutor() as side_by_side:
        printed = side_by_side.map(lambda seed: command("same.py", PYTHONHASHSEED=seed), ("1", "2"))
    one, other = map(json.loads, printed)
    assert len(one) == 11
    assert one == other


def test_what_is_one_edit_away_from_valid_is_refused_in_one_line():
    """The full length: docs/reliability.md."""
    assert " 0 faults" in command("edits.py", "--examples", "150")


def test_ten_thousand_hostile_strings():
    printed = command("strings.py", "--strings", "10000", "--seed", "1")
    assert "no exception" in printed
    for reason in ("valid", "SYNTAX", "GEOMETRY", "EMPTY", "TOO_LONG", "UNFINISHED"):
        assert f" {reason}" in printed  # every answer is reached


# ---- a full disk and a read-only folder, as the system has them


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """`mounted("size=64k")`: a file system of its own in memory; skipped where mounting is not permitted."""
    places: list[Path] = []

    def mount(options: str) -> Path:
        place = tmp_path / f"disk{len(places)}"
        place.mkdir()
        argv = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
        except OSError:
            pytest.skip("no mount command")
        if done.returncode:
            pytest.skip(f"mounting is not permitted: {done.stderr.strip()}")
        places.append(place)
        return place

    yield mount
    for place in places:
        subprocess.run(["umount", "-l", str(place)], check=False)


def test_a_disk_that_fills_up_stops_the_run_and_room_lets_it_go_on(config, tmp_path, mounted):
    whole = train(config, tmp_path / "whole")
    disk = mounted("size=4m")
    filler = disk / "filler"

    def fill(done: int, total: int, line: Any) -> None:
        """After the first checkpoint: all but a few pages."""
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        with filler.open("r+b") as file:
            file.truncate(max(0, filler.stat().st_size - 3 * 4096))

    with pytest.raises(RunError) as error:
        train(config, disk / "run", progress=fill)
    assert "No space left on device" in one_line(error)
    assert "what was written before is kept" in one_line(error)
    assert load_run(disk / "run").latest_checkpoint().iteration == 1
    with pytest.raises(RunError, match="No space left on device"):
        train(config, disk / "run", resume=True)  # still full
    assert load_run(disk / "run").latest_checkpoint().iteration == 1
    filler.unlink()
    again = train(config, disk / "run", resume=True)
    for name in ("adapter_model.safetensors", "optimizer.safetensors"):
        ours, theirs = (r.folder / "checkpoints/000002" / name for r in (again, whole))
        assert ours.read_bytes() == theirs.read_bytes()


def test_a_disk_that_becomes_read_only_stops_the_run(config, mounted):
    disk = mounted("size=64m")

    def freeze(done: int, total: int, line: Any) -> None:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)

    with pytest.raises(RunError, match=r"[Rr]ead-only") as error:
        train(config, disk / "run", progress=freeze)
    assert str(disk / "run") in one_line(error)
    assert load_trained(load_run(disk / "run")).trainable()  # reading goes on
    for resume in (True, False):
        with pytest.raises(RunError, match=r"[Rr]ead-only") as error:
            train(config, disk / ("run" if resume else "new"), resume=resume)
        one_line(error)


# ---- the best checkpoint, and what is said of a damaged one


def test_best_and_damage_are_known_to_the_whole_run(config, tmp_path, monkeypatch):
    scores = iter([0.9, 0.1, 0.5, 0.2])
    monkeypatch.setattr(
        training.Training, "validation", lambda _: {"validation/success": next(scores), "validation/n": 4}
    )
    config = replace(config, iterations=3, keep_checkpoints=1)
    run = train(config, tmp_path / "run")
    # Points of the curve: 0.9 for the base, then 0.1, 0.5, 0.2: the second iteration's is the best checkpoint.
    assert [f.name for f in sorted((run.folder / "checkpoints").iterdir())] == ["000002", "000003"]
    best, last = load_trained(run, "best"), load_trained(run)
    assert not all(torch.equal(p, q) for p, q in zip(best.trainable(), last.trainable(), strict=True))
    (run.folder / "checkpoints/000003/optimizer.safetensors").write_bytes(b"")
    heard: list[str] = []
    monkeypatch.setattr(training.Training, "validation", lambda _: {"validation/success": 0.2, "validation/n": 4})
    train(config, run.folder, resume=True, say=heard.append)
    assert "000003 is damaged: optimizer.safetensors does not match its hash" in heard[0]
    assert "checkpoint 000002 is intact and used instead" in heard[1]


def test_a_run_without_a_validation_curve_has_no_best(config, tmp_path):
    run = train(replace(config, iterations=1, validate_every=0), tmp_path / "run")
    with pytest.raises(RunError, match="say last"):
        load_trained(run, "best")


# ---- numbers


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_the_group_and_keeps_the_weights(policy, toy_levels, config, bad):
    task, sampling = training.make_task(config), Sampling(1.0, np.random.default_rng(0))
    groups = adapt(Arena(policy, task, sampling=sampling), toy_levels, 2)
    advantage = np.array([[1.0, -1.0]] * 4)
    advantage[2] = [bad, -1.0]
    credited = credit_actions(groups, advantage)
    before = [p.detach().clone() for p in policy.trainable()]
    optimizer = torch.optim.AdamW(policy.trainable(), lr=1e-2)
    one_step = Update(minibatches=1, groups_per_step=1, epochs=1, beta=0.0)
    with pytest.raises(RunError) as error:
        learn(policy, optimizer, credited, one_step, 1.0, np.random.default_rng(0))
    assert "'left and right'" in one_line(error)  # the third level
    assert "flat" in one_line(error)
    assert "not applied" in one_line(error)
    assert all(torch.equal(p, q) for p, q in zip(policy.trainable(), before, strict=True))
    assert all(p.grad is None for p in policy.trainable())
    assert not optimizer.state


def test_a_group_without_a_title_is_named_by_its_board(policy, toy_levels, config):
    task, sampling = training.make_task(config), Sampling(1.0, np.random.default_rng(0))
    (group,) = adapt(Arena(policy, task, sampling=sampling), [replace(toy_levels[0], title="")], 2)
    items = credit_actions([group], np.array([[1.0, -1.0]]))[0]
    assert {item.level for item in items} == {"'#####|#@$.#|#####'"}


def test_a_run_that_meets_nan_keeps_its_last_checkpoint(config, tmp_path):
    calls = 0

    def poisoned(return_pn: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        return np.full(return_pn.shape, 1e300 if calls == 2 else 0.5)  # infinite in float32

    variant = Hierarchy(depth=1, micro_advantage=poisoned)
    with pytest.raises(RunError, match="not finite"):
        train(replace(config, variant="flat_grpo"), tmp_path / "run", hierarchy=variant)
    run = load_run(tmp_path / "run")
    assert [line["iteration"] for line in run.metrics()] == [0, 1]
    assert run.latest_checkpoint().iteration == 1
    assert all(bool(p.isfinite().all()) for p in load_trained(run).trainable())


def test_a_run_in_which_nothing_differs_says_so_and_what_to_change(config, tmp_path):
    """The reward of a failure is that of a success: all groups are equal."""
    heard: list[str] = []
    config = replace(config, iterations=5, warn_after=2, validate_every=0, rollout=replace(config.rollout, max_steps=1))
    levels = tmp_path / "long.xsb"
    levels.write_text("; too long for one step\n; moves 3, pushes 2\n#######\n#.$@$.#\n#######\n")
    config = replace(config, train_levels=str(levels), validation_levels=str(levels), test_levels=str(levels))
    run = train(config, tmp_path / "run", say=heard.append)
    assert [line["health/no_signal"] for line in run.metrics()] == [1, 2, 3, 4, 5]
    said = [text for text in heard if "equal returns" in text]
    assert [text.partition(":")[0] for text in said] == ["iteration 2", "iteration 4"]
    assert "no episode succeeds: train on easier levels" in said[0]
    from himac_lite.widgets import TrainingDashboard

    assert "⚠ for 5 iterations all groups had equal returns" in TrainingDashboard(run).summary.value


def test_the_counts_go_on_where_a_killed_run_was(config, tmp_path, monkeypatch):
    monkeypatch.setattr(health, "LOW_ENTROPY", 100.0)  # every entropy is lower
    config = replace(config, iterations=3, validate_every=0)

    def stop(done: int, total: int, line: Any) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", progress=stop)
    run = train(config, tmp_path / "run", resume=True)
    assert [line["health/low_entropy"] for line in run.metrics()] == [1, 2, 3]
