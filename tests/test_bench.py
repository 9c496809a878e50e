"""The benchmarks run, compare what they say they compare, and count what a reader can count."""

from __future__ import annotations

import json

import numpy as np
import pytest

from himac_lite import cli
from himac_lite.bench import Figure, Report, measure, ratio
from himac_lite.errors import ConfigError


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


@pytest.mark.parametrize("what", ["rollout", "train"])
def test_benchmark_runs(capsys, what):
    assert cli.main(["bench", what, "--quick", "--runs", "1", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    figures = {f["name"]: f["value"] for f in report["figures"]}
    assert all(value > 0 for value in figures.values())
    if what == "train":
        shares = [value for name, value in figures.items() if "time in" in name]
        assert sum(shares) == pytest.approx(100)
        assert figures["share of the machine's products"] < 100


def test_the_loop_plays_the_same_game_as_the_rollouts():
    """Greedy flat play by `generate()` every turn and by the rollouts: the same moves."""
    from himac_lite.bench import rollout as bench
    from himac_lite.config import Train
    from himac_lite.loading import load_policy
    from himac_lite.rollout import GREEDY, play_flat
    from himac_lite.sokoban.levels import load_levels
    from himac_lite.training import make_task, resolve_model

    policy, task, levels = load_policy(resolve_model("sokoban-base")), make_task(Train()), load_levels("core/train")[:6]
    ours = play_flat(policy, task, levels, GREEDY, bench.RULE)
    assert [e.moves for e in bench.generate_each_turn(policy, task, levels, greedy=True)] == [t.moves for t in ours]
    sampled = bench.generate_each_turn(policy, task, levels)
    assert np.mean([e.steps for e in sampled]) > 0
