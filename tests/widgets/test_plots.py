"""Figures: the right traces, the numbers of the records, and nothing that a model wrote as markup."""

from __future__ import annotations

import numpy as np
import pytest
from recorded_runs import make_run

from himac_lite.config import TRAIN_PRESETS
from himac_lite.runs.folder import create_run
from himac_lite.widgets import plots


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "first")


def logged(folder, *lines):
    """A run that logged these lines, and nothing else."""
    run = create_run(folder, TRAIN_PRESETS["quick"], {})
    for line in lines:
        run.append_metrics(line)
    return run


def traces(figure):
    return {trace.name: trace for trace in figure.data}


def test_training_curves_have_every_line(run):
    figure = plots.training_curves(run, window=2)
    shown = {trace.name: list(trace.y) for trace in figure.data}
    assert shown == {
        "phase A: sampled blueprints": [0.2, 0.4],
        "phase A: sampled blueprints, mean of 2": pytest.approx([0.2, 0.3]),  # (0.2 + 0.4) / 2
        "phase B: sampled executions": [0.4, 0.8],
        "phase B: sampled executions, mean of 2": pytest.approx([0.4, 0.6]),
        "validation, greedy": [0.25],
        "base model, test": [0.3, 0.3],
        "random policy, test": [0.1, 0.1],
        "trained model, test (95 %)": [0.6],
    }
    assert list(traces(figure)["base model, test"].x) == [0, 2]
    assert list(traces(figure)["trained model, test (95 %)"].error_y.array) == pytest.approx([0.1])
    assert figure.layout.height == plots.HEIGHT
    assert figure.layout.paper_bgcolor == figure.layout.plot_bgcolor == "rgba(0,0,0,0)"


def test_flat_runs_have_no_phase_a(tmp_path):
    flat = logged(tmp_path / "flat", {"iteration": 1, "micro/success": 0.5})
    assert list(traces(plots.training_curves(flat))) == [
        "flat episodes, sampled",
        "flat episodes, sampled, mean of 10",
    ]
    names = {"macro/kl": plots.PHASE_A, "micro/success": f"{plots.PHASE_B}, sampled"}
    over = plots.seed_curves({"flat": [flat]}, names, "success")
    assert [t.name for t in over.data] == ["flat episodes, sampled"]


def test_beside_a_flat_run_the_other_keeps_its_phases(run, tmp_path):
    flat = logged(tmp_path / "flat", {"iteration": 1, "micro/kl": 0.5}, {"iteration": 2, "micro/kl": 1})
    run.append_metrics({"iteration": 3, "micro/kl": 0.5})
    figure = plots.seed_curves({"own": [run], "flat": [flat]}, {"micro/kl": plots.PHASE_B}, "KL")
    assert [t.name for t in figure.data] == ["own: phase B: executions", "flat: flat episodes"]


def test_groups_of_runs_stand_beside_base_and_random_policy(run, tmp_path):
    """Bases of 0.3 and 0.3 are one line; of 0.3 and, a mean of 0.5 and 0.3, 0.4 they are two, named."""
    names = {"macro/success": "A", "validation/success": "greedy"}
    second, third = make_run(tmp_path / "second"), make_run(tmp_path / "third")
    figure = plots.seed_curves({"one": [run], "<b>": [second, third]}, names, "levels solved", against="env_steps")
    shown = {t.name: (list(t.x), list(t.y)) for t in figure.data if t.showlegend is not False}
    assert shown["base model, test"] == ([0, 2000], pytest.approx([0.3, 0.3]))
    assert shown["random policy, test"] == ([0, 2000], pytest.approx([0.1, 0.1]))
    assert "&lt;b&gt; (2 seeds): A" in shown
    second.write_results(second.results | {"base": second.results["base"] | {"success": 0.5}})
    figure = plots.seed_curves({"one": [run], "<b>": [second, third]}, names, "levels solved")
    lines = {t.name: t.y[0] for t in figure.data if "base model" in t.name}
    assert lines == {"one: base model, test": pytest.approx(0.3), "&lt;b&gt;: base model, test": pytest.approx(0.4)}
    # 2 curves of each group and 3 lines: two rows of the legend more than the five that a figure has room for
    assert figure.layout.height == plots.HEIGHT + 2 * 18
    other = plots.seed_curves({"one": [run]}, {"macro/zero_variance": "A"}, "groups without a difference")
    assert [t.name for t in other.data] == ["A"]


def test_an_empty_run_is_a_figure_too(tmp_path):
    assert (
        plots.training_curves(str(logged(tmp_path / "empty").folder)).layout.annotations[0].text
        == "nothing recorded yet"
    )


def test_running_mean():
    # window 3: 1, (1+2)/2, (1+2+6)/3, (2+6+4)/3
    assert plots.running_mean([1, 2, 6, 4], 3) == pytest.approx([1, 1.5, 3, 4])
    with pytest.raises(ValueError, match="at least 1"):
        plots.running_mean([1.0], 0)


def test_advantage_bars_show_sign_return_and_best():
    figure = plots.advantage_bars([1, 0, -0.5], [1.22, -1.22, 0.0], ["<script>", "push " * 20, "c"], best=0)
    (bars,) = figure.data
    assert list(bars.x) == [1.22, -1.22, 0.0]
    assert list(bars.text) == ["+1.22", "−1.22", "0.00"]
    assert list(bars.marker.color) == [plots.POSITIVE, plots.NEGATIVE, plots.TEXT]
    ticks = figure.layout.yaxis.ticktext
    assert ticks[0] == "★ &lt;script&gt;  <i>R</i> 1.00"
    assert ticks[1].startswith("push push push push push pu…  ")
    assert ticks[2] == "c  <i>R</i> −0.50"
    low, high = figure.layout.xaxis.range
    assert low == -high < -1.22  # symmetric, with room for the number beside the bar


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([1, 0], [1.0]), "one length"),
        (([], []), "one length"),
        (([1, 0], [1.0, -1.0], ["a"]), "one length"),
        (([1, 0], [1.0, -1.0], None, 2), "best must be one of 0 … 1"),
    ],
)
def test_advantage_bars_refuse_what_does_not_fit(arguments, words):
    with pytest.raises(ValueError, match=words):
        plots.advantage_bars(*arguments)


def test_signed():
    assert [plots.signed(x) for x in (1.732, -0.577, 0.0, -0.001)] == ["+1.73", "−0.58", "0.00", "0.00"]


def test_colours_of_the_signs_differ_in_lightness_too():
    """Blue and vermilion stay apart for every common colour blindness; both have 3 : 1 on white and on black (#111)."""

    def luminance(colour):
        parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    for colour in (plots.POSITIVE, plots.NEGATIVE, plots.GREEN, plots.TEXT):
        assert 1.05 / (luminance(colour) + 0.05) > 3
        assert (luminance(colour) + 0.05) / (luminance("#111111") + 0.05) > 3
