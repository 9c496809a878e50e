"""The benchmarks run, compare what they say they compare, and count what a reader can count."""

from __future__ import annotations

import json
from importlib.util import find_spec

import numpy as np
import pytest
from conftest import needs_training

from himac_lite import cli
from himac_lite.bench import Figure, Report, measure, ratio
from himac_lite.errors import ConfigError
from himac_lite.rollout.play import Arena


def test_a_figure_is_the_median_of_counted_runs():
    calls = []
    figure = measure("x", "calls/s", lambda: float(len(calls.append(1) or calls)), runs=3)
    assert len(calls) == 4  # one to warm up
    assert figure.value == sorted(figure.values)[1]
    with pytest.raises(ConfigError, match="--runs"):
        measure("x", "calls/s", lambda: 1.0, runs=0)


def test_a_ratio_pairs_the_runs():
    a, b = Figure("a", "x/s", 6.0, (4.0, 6.0, 9.0)), Figure("b", "x/s", 2.0, (1.0, 2.0, 3.0))
    assert ratio("a / b", a, b) == Figure("a / b", "×", 3.0, (4.0, 3.0, 3.0))
    assert "3" in Report("r", (ratio("a / b", a, b),), "here").text()


@needs_training
@pytest.mark.parametrize("what", ["rollout", "train"])
def test_benchmark_runs(capsys, monkeypatch, what):
    monkeypatch.setattr("himac_lite.bench.rollout.cores", lambda: 1)  # threads that share cores spin
    assert cli.main(["bench", what, "--quick", "--runs", "1", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    figures = {f["name"]: f["value"] for f in report["figures"]}
    assert all(value > 0 for value in figures.values())
    if what == "train":
        shares = [value for name, value in figures.items() if "time in" in name]
        assert sum(shares) == pytest.approx(100)
        assert figures["share of the machine's products"] < 100


@needs_training
def test_worlds_are_measured_beside_each_other_and_the_engine_beside_itself(capsys):
    assert cli.main(["bench", "worlds", "--quick", "--runs", "1", "--json"]) == 0
    figures = {f["name"]: f["value"] for f in json.loads(capsys.readouterr().out)["figures"]}
    assert figures["Sokoban beside WebShop, steps"] == pytest.approx(
        figures["sokoban, random play"] / figures["webshop, random play"]
    )
    if find_spec("alfworld") is None:
        assert np.isnan(figures["ALFWorld"])
        return
    gain = figures["engine quickened beside plain, steps"]
    assert gain == pytest.approx(figures["engine, quickened"] / figures["engine, as it comes"])
    assert gain > 2


def test_real_architectures_are_measured_in_one_table():
    """What a GPU measures with Qwen2.5's sizes, here with a tiny one and without graphs."""
    from himac_lite.bench import qwen

    load = qwen.Load(levels=2, group=2, steps=3, answer=5)
    played = {f.name.removeprefix(f"{qwen.TINY.name}, "): f for f in qwen.rollouts(qwen.TINY, 1, load)}
    for what in ("episodes", "answers"):
        fixed, grown = played[f"{what}: static cache"], played[f"{what}: growing cache"]
        (peer,) = (f for name, f in played.items() if name.startswith(f"{what}: gen") and "memory" not in name)
        assert played[f"{what}: static cache / growing"].value == pytest.approx(fixed.value / grown.value)
        assert played[f"{what}: static cache / generate()"].value == pytest.approx(fixed.value / peer.value)
    assert not [name for name, f in played.items() if np.isnan(f.value)]
    # Two layers of q and o (64·64), k and v (64·32), a gated MLP of 128 and biases of q, k, v: 2 · (8,192 + 4,096 +
    # 24,576 + 128); 1,024 embeddings and 5 norms of 64. Together 139,840 weights of two bytes.
    assert played[f"{qwen.TINY.name}: weights in 4 bit and LoRA"].note == "0.28 MB in 16 bit"
    learnt = {f.name: f.value for f in qwen.updates(qwen.TINY, 1, load)}
    assert 0 < learnt[f"{qwen.TINY.name}, update: share of the products"] < 100


def test_answers_by_generate_are_as_long_as_ours():
    from himac_lite.bench import qwen

    policy, task = qwen.make_policy(qwen.TINY), qwen.SokobanTask(max_steps=3)
    jobs = qwen.load_levels("core/validation")[:2]
    assert policy.chat is not None
    assert qwen.answers(policy, task, jobs, qwen.Load(answer=5)) == 10
    prompts = [policy.prompt(task.start(level), qwen.Role.FLAT) for level in jobs]
    assert qwen.answers_by_generate(policy, prompts, 5) == 10


def test_the_loop_plays_the_same_game_as_the_rollouts():
    """Greedy flat play by `generate()` every turn and by the rollouts: the same moves."""
    from himac_lite.bench import rollout as bench
    from himac_lite.config import Train
    from himac_lite.policy.loading import load_policy
    from himac_lite.runs.training import make_task, resolve_model
    from himac_lite.tasks.sokoban.levels import load_levels

    policy, task, levels = load_policy(resolve_model("sokoban-base")), make_task(Train()), load_levels("core/train")[:6]
    ours = Arena(policy, task, returns=bench.RULE).play_flat(levels)
    assert [e.moves for e in bench.generate_each_turn(policy, task, levels, greedy=True)] == [t.moves for t in ours]
    sampled = bench.generate_each_turn(policy, task, levels)
    assert np.mean([e.steps for e in sampled]) > 0
