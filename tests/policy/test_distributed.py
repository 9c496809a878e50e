"""Several processes as one: the same adapter, one writer, and a run that a lost process leaves resumable."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from himac_lite import cli
from himac_lite.coevolution import Learner, adapt, credit_actions, iterate, optimizers_for
from himac_lite.config import Rollout, Train, Update
from himac_lite.hierarchy import preset
from himac_lite.policy import model
from himac_lite.policy.distributed import ALONE, Team, shares, team
from himac_lite.policy.update import accumulate
from himac_lite.rollout.play import Arena
from himac_lite.rollout.rules import ReturnRule
from himac_lite.runs import folder as runs
from himac_lite.tasks.sokoban.task import SokobanTask
from himac_lite.types import Sampling

ROOT = Path(__file__).resolve().parents[2]
TASK = SokobanTask(max_steps=3, subgoal_budget=3)


# ---- shares ------------------------------------------------------------------------------------------------------


def test_equal_keys_stay_together_and_ranks_get_about_as_many():
    # a: 0 1 2, b: 3, c: 4 5. Rank 0 takes a; b and c go to rank 1, which has fewer.
    assert shares(["a", "a", "a", "b", "c", "c"], 2) == [[0, 1, 2], [3, 4, 5]]
    assert shares("abab", 2) == [[0, 2], [1, 3]]
    assert shares("aa", 3) == [[0, 1], [], []]
    assert shares("aba", 1) == [[0, 1, 2]]  # alone a process keeps the order, and with it the random numbers


def test_alone_everything_stays_as_it_is():
    assert team() == ALONE
    assert ALONE.gather(7) == [7]
    assert ALONE.spread([1, 2, 3], lambda own: [10 * i for i in own]) == [10, 20, 30]
    p = torch.nn.Parameter(torch.ones(2))
    p.grad = torch.tensor([0.1, 0.2])
    kept = p.grad
    ALONE.sum_gradients([p])
    assert p.grad is kept


# ---- two ranks, as threads of this process ------------------------------------------------------------------------


@dataclass
class _Arena:
    """What the ranks lay down, round after round."""

    size: int
    values: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.values, self.barrier = [None] * self.size, threading.Barrier(self.size, timeout=1800)


@dataclass(frozen=True)
class ThreadTeam(Team):
    """A team of threads: the same exchanges, without a network."""

    table: Any = None

    def gather(self, value: Any) -> list[Any]:
        self.table.values[self.rank] = value
        self.table.barrier.wait()
        out = list(self.table.values)
        self.table.barrier.wait()
        return out

    def added(self, tensor: torch.Tensor) -> torch.Tensor:
        return torch.stack(self.gather(tensor)).sum(0)


def as_team(size: int, work: Callable[[Team], Any]) -> list[Any]:
    table, out = _Arena(size), [None] * size

    def one(rank: int) -> None:
        try:
            out[rank] = work(ThreadTeam(rank, size, table))
        except BaseException:
            table.barrier.abort()
            raise

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return out


def test_spread_and_sums_of_three_ranks():
    def work(crew: Team) -> Any:
        p, idle = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1))
        p.grad = torch.tensor([1.0, crew.rank])
        crew.sum_gradients([p, idle])
        squares = crew.spread([0, 1, 2, 3, 4], lambda own: [i * i for i in own])
        return squares, p.grad, crew.agree(f"rank {crew.rank}"), crew.least(5 - crew.rank), crew.writes

    done = as_team(3, work)
    assert [d[0] for d in done] == [[0, 1, 4, 9, 16]] * 3
    assert all(torch.equal(d[1], torch.tensor([3.0, 3.0])) for d in done)
    assert [d[2:] for d in done] == [("rank 0", 3, True), ("rank 0", 3, False), ("rank 0", 3, False)]


@pytest.mark.parametrize("variant", ["himac", "flat_grpo"])
def test_two_ranks_make_the_adapter_of_one(new_policy: Any, toy_levels: Any, variant: str, monkeypatch: Any):
    """Bit for bit. (A difference of 1e-9 in a gradient that should be zero would be one of 1e-4 after AdamW.)"""
    real = model.Policy.decode  # with more than one batch a rollout
    monkeypatch.setattr(model.Policy, "decode", lambda self, *a, **kw: real(self, *a, **{**kw, "max_rows": 8}))
    config = Train(
        rollout=Rollout(levels=4, group=6, max_steps=3, subgoal_budget=3, progress_share=0.5),
        update=Update(groups_per_step=1, micro_tokens=256),
    )

    def work(policy: Any, crew: Team) -> Any:
        policy.team = crew
        optimizers = optimizers_for(policy.trainable(), preset(variant), config.update.lr)
        learner = Learner(policy, optimizers, TASK, preset(variant), config)
        steps = [
            iterate(learner, toy_levels, np.random.SeedSequence([0, i]))
            for i in range(2)
        ]  # fmt: skip
        return [p.detach().clone() for p in policy.trainable()], steps

    ready = [new_policy(), new_policy(), new_policy()]
    alone, begun = work(ready[2], ALONE), [p.detach().clone() for p in new_policy().trainable()]
    for adapter, steps in as_team(2, lambda crew: work(ready[crew.rank], crew)):
        for step, wanted in zip(steps, alone[1], strict=True):
            assert [t.moves for g in step.micro for t in g.trajectories] == [
                t.moves for g in wanted.micro for t in g.trajectories
            ]
            assert step.metrics == wanted.metrics
            assert (step.env_steps, step.tokens) == (wanted.env_steps, wanted.tokens)
        assert all(torch.equal(p, q) for p, q in zip(adapter, alone[0], strict=True))
    assert max(float((p - q).abs().max()) for p, q in zip(alone[0], begun, strict=True)) > 1e-4  # something was learnt


def test_reduced_lora_gradients_are_those_of_one_process(new_policy: Any, toy_levels: Any):
    """The path of CUDA (no twin, rows by prompt, gradients reduced) on the same batch: the same gradient."""
    sampling = Sampling(1.0, np.random.default_rng(0))
    groups = adapt(Arena(new_policy(), TASK, returns=ReturnRule(0.5), sampling=sampling), toy_levels, 6)
    advantages = np.array([[t.ret for t in g.trajectories] for g in groups])
    items = [item for group in credit_actions(groups, advantages - advantages.mean(1, keepdims=True)) for item in group]
    settings = Update(beta=0.0, micro_tokens=256)

    def work(policy: Any, crew: Team) -> Any:
        policy.team, policy.twin = crew, None
        policy.peft_model.train()
        totals: dict[str, float] = {}
        accumulate(policy, items, settings, 1.0, totals)
        return [p.grad for p in policy.trainable()], totals

    ready = [new_policy() for _ in range(3)]
    wanted, sums = work(ready[2], ALONE)
    for found, totals in as_team(2, lambda crew: work(ready[crew.rank], crew)):
        assert totals == pytest.approx(sums, rel=1e-5)
        for p, q in zip(found, wanted, strict=True):
            assert (p - q).norm() <= 1e-5 * q.norm()


# ---- two processes, as accelerate starts them ----------------------------------------------------------------------


def launch(*argv: str, processes: int = 2, port: int = 29511) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes)]
    command += [
        "--num_machines",
        "1",
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
        "--main_process_port",
        str(port),
    ]
    return subprocess.Popen(
        [*command, "-m", "himac_lite", "train", *argv], env=env, cwd=ROOT, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip


def arguments(model: Path, levels: str, out: Path, iterations: int) -> list[str]:
    settings = [
        f"validation_levels={levels}", f"test_levels={levels}", "rollout.levels=4", "rollout.group=6",
        "rollout.max_steps=3", "rollout.subgoal_budget=3", "rollout.progress_share=0.5", "update.groups_per_step=1",
        "checkpoint_every=1", "probe_levels=0", "validate_every=1", "validate_on=4", "update.micro_tokens=256",
        "update.lr_floor=1", "model.rank=4", "model.alpha=8",
    ]  # fmt: skip
    argv = ["--model", str(model), "--levels", levels, "--iterations", str(iterations), "--out", str(out)]
    return [*argv, *(a for s in settings for a in ("--set", s))]


def adapter(run: Path) -> dict[str, torch.Tensor]:
    checkpoint = runs.load_run(run).latest_checkpoint()
    assert checkpoint is not None
    return load_file(checkpoint.folder / "adapter_model.safetensors")


@pytest.mark.slow
def test_accelerate_makes_the_same_run_with_one_writer_and_a_lost_rank_leaves_it_resumable(
    tiny_model: Path, toy_file: str, tmp_path: Path
):
    from himac_lite import cli

    assert cli.main(["train", *arguments(tiny_model, toy_file, tmp_path / "one", 3), "--json"]) == 0
    both = launch(*arguments(tiny_model, toy_file, tmp_path / "two", 3), "--json")
    text, _ = both.communicate(timeout=900)
    assert both.returncode == 0, text
    printed = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert len(printed) == 1  # one writer, on the screen too
    one, two = adapter(tmp_path / "one"), adapter(tmp_path / "two")
    assert one.keys() == two.keys()
    assert all(torch.equal(p, two[name]) for name, p in one.items())
    lines = [runs.load_run(tmp_path / name).metrics() for name in ("one", "two")]
    assert [line["iteration"] for line in lines[1]] == [0, 1, 2, 3]
    for mine, theirs in zip(*lines, strict=True):
        same = {k: v for k, v in mine.items() if k != "seconds"}
        assert {k: v for k, v in theirs.items() if k != "seconds"} == same

    # A rank is killed after the first checkpoint: the launcher ends, and the run goes on in one process.
    lost = launch(*arguments(tiny_model, toy_file, tmp_path / "lost", 3), port=29512)
    checkpoint, begun = tmp_path / "lost" / "checkpoints" / "000001", time.monotonic()
    while not checkpoint.exists() and time.monotonic() - begun < 600:
        assert lost.poll() is None
        time.sleep(0.05)
    children = Path(f"/proc/{lost.pid}/task/{lost.pid}/children").read_text().split()
    ranks = [int(pid) for pid in children if b"himac_lite" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(ranks[-1], signal.SIGKILL)
    lost.communicate(timeout=300)
    assert lost.returncode != 0
    assert not (tmp_path / "lost" / "results.json").exists()
    assert cli.main(["train", "--resume", str(tmp_path / "lost"), "--json"]) == 0
    resumed = adapter(tmp_path / "lost")
    assert all(torch.equal(p, resumed[name]) for name, p in one.items())


def test_a_rank_that_does_not_write_writes_nothing(tmp_path: Path):
    run = runs.ReadOnlyRun(tmp_path)
    run.append_metrics({"iteration": 1})
    run.record(1, [])
    run.write_results({})
    run.save_checkpoint(1, {}, lambda folder: None, 1)
    run.rewind(0)
    assert list(tmp_path.iterdir()) == []
    assert replace(ALONE, rank=1, size=2).writes is False


# ---- what the environment says --------------------------------------------------------------------------------------


LAUNCHED = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        *(
            ("WORLD_SIZE", value, "WORLD_SIZE in the environment must be a whole number")
            for value in ("0", "-1", "two")
        ),
        ("WORLD_SIZE", "1.5", "from 1 to 2147483647, not '1.5': unset it"),
        ("RANK", "2", "RANK in the environment must be a whole number from 0 to 1, not '2'"),
        ("LOCAL_RANK", "first", "LOCAL_RANK in the environment must be a whole number from 0 to 1, not 'first'"),
        ("MASTER_PORT", "65536", "MASTER_PORT in the environment must be a whole number from 1 to 65535"),
        *((name, "", f"WORLD_SIZE is set, but {name} is not") for name in LAUNCHED if name != "WORLD_SIZE"),
    ],
)
def test_an_environment_that_no_launcher_makes_is_one_line(monkeypatch, tmp_path, capsys, name, value, words):
    monkeypatch.chdir(tmp_path)
    for known, usual in {**LAUNCHED, name: value}.items():
        monkeypatch.setenv(known, usual)
    assert cli.main(["train", "--out", "run"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert "accelerate launch" in line
    assert not Path("run").exists()


@pytest.mark.parametrize("value", ["", " ", "1"])
def test_an_empty_world_size_is_none(monkeypatch, value):
    monkeypatch.setenv("WORLD_SIZE", value)
    monkeypatch.setenv("RANK", "")
    assert team() is ALONE
