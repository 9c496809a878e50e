"""What users pass to public functions: a result, or one line that says what is allowed; never another exception."""

from __future__ import annotations

import contextlib
import inspect
import json
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded_runs import make_run, records

import himac_lite
from himac_lite import advantage, from_file, hierarchy, objective, widgets
from himac_lite.config import Train, from_dict, override, validate
from himac_lite.errors import ConfigError, HimacError, RunError
from himac_lite.evaluation import intervals
from himac_lite.tasks import registry
from himac_lite.tasks.sokoban import levels, pixels, render, solver
from himac_lite.tasks.sokoban.binned import generate_bins
from himac_lite.tasks.sokoban.env import SokobanEnv
from himac_lite.tasks.sokoban.rules import board_from_level
from himac_lite.tasks.sokoban.vector import SokobanVectorEnv
from himac_lite.types import Level
from himac_lite.widgets import plots

ONE_PUSH = Level(("#####", "#@$.#", "#####"), "one push", 1, 1)
BOARD = board_from_level(ONE_PUSH)
BT, MASK = torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool)
RETURNS = [[1.0, 0.0, 0.5]]

ODD = [
    None, True, 0, -1, 2.5, float("nan"), float("inf"), 10**30, "x", "", "2", b"x", [], [1], ["warmup/test"], [None],
    [[]], [[1], [2, 3]], {}, {"a": 1}, set(), (1, 2), np.int64(3), np.float64(2.0), np.array([1, 2]),
    np.zeros((2, 2, 2)), object(), Path("nowhere"), len, Level, ONE_PUSH, BT, torch.full((2, 3), 7),
]  # fmt: skip
"""None, wrong types, NumPy's numbers, empty lists, negative numbers, wrong shapes, nan."""


def reset(env):
    return lambda seed=None, options=None: env.reset(seed=seed, options=options)


SINGLE, VECTOR = SokobanEnv([ONE_PUSH]), SokobanVectorEnv(2, levels=[ONE_PUSH])
PUBLIC = {
    himac_lite.load_levels: {"path": "warmup/test"},
    himac_lite.save_levels: {"levels": [ONE_PUSH], "path": "saved.xsb"},
    himac_lite.solve: {"level": ONE_PUSH},
    himac_lite.load_run: {"path": "run"},
    levels.parse_levels: {"text": ONE_PUSH.text},
    levels.canonical_hash: {"level": ONE_PUSH},
    solver.search: {"level": ONE_PUSH},
    solver.optimal_length: {"level": ONE_PUSH},
    generate_bins: {"seed": 0, "bins": {(1, 9): 1}, "size": 5, "boxes": 1, "tries": 20},
    render.to_text: {"board": BOARD},
    render.to_svg: {"board": BOARD},
    pixels.to_rgb: {"board": BOARD},
    SokobanEnv: {"levels": [ONE_PUSH]},
    SokobanVectorEnv: {"num_envs": 2, "levels": [ONE_PUSH], "max_episode_steps": 5},
    reset(SINGLE): {},
    reset(VECTOR): {},
    override: {"config": Train(), "path": "update.lr", "value": "0.1"},
    from_dict: {"data": {}},
    validate: {"config": Train()},
    himac_lite.train: {"config": None, "out": "new", "hierarchy": None, "world": None},
    registry.world: {"which": "sokoban"},
    registry.task_of: {"which": "sokoban", "max_steps": 50, "subgoal_budget": 20},
    registry.load_items: {"which": "sokoban", "source": "warmup/test"},
    registry.for_task: {"config": Train(), "which": "sokoban"},
    from_file.load: {"spec": "no.py:name", "kind": Level},
    hierarchy.Hierarchy: {},
    hierarchy.Ending: {},
    hierarchy.BySegment: {},
    hierarchy.SameState: {},
    hierarchy.preset: {"name": "himac"},
    hierarchy.choose: {"given": "himac", "default": "himac"},
    hierarchy.turns: {"planner": 1, "executor": 1},
    hierarchy.mean_of: {"k": 2},
    hierarchy.fixed_steps: {"steps": 2},
    hierarchy.choose_softmax: {"temperature": 1.0},
    hierarchy.judged_by: {"judge": len},
    hierarchy.mixed: {"share": 0.5},
    hierarchy.subgoal_bonus: {"check": len},
    hierarchy.distance_decrease: {"distance": len},
    advantage.zero_variance: {"return_pn": RETURNS},
    advantage.best: {"return_pg": RETURNS},
    advantage.group_advantage: {"return_pn": RETURNS},
    advantage.group_advantage_over_steps: {"return_pn": RETURNS, "steps_pn": [[1, 1, 2]]},
    advantage.hierarchical_advantage: {"return_pg": RETURNS, "return_pn": RETURNS, "eps": 1e-6, "ddof": 0},
    advantage.same_state_advantage: {"reward_ns": [[1.0], [0.0]], "state_ns": [["a"], ["a"]]},
    advantage.gigpo_advantage: {"reward_ns": [[1.0], [0.0]], "state_ns": [["a"], ["a"]]},
    objective.token_log_probs: {"logits_btv": torch.zeros(2, 3, 5), "ids_bt": torch.zeros(2, 3, dtype=torch.long)},
    objective.entropy: {"logits_btv": torch.zeros(2, 3, 5)},
    objective.ratio: {"logp_bt": BT, "behaviour_bt": BT},
    objective.clipped_surrogate: {"logp_bt": BT, "behaviour_bt": BT, "advantage_bt": BT},
    objective.clip_fraction: {"logp_bt": BT, "behaviour_bt": BT, "advantage_bt": BT, "mask_bt": MASK},
    objective.kl: {"logp_bt": BT, "reference_bt": BT},
    objective.masked_mean: {"x_bt": BT, "mask_bt": MASK},
    objective.policy_loss: {
        "logp_bt": BT, "behaviour_bt": BT, "reference_bt": BT, "advantage_bt": BT, "mask_bt": MASK, "denominator": 6.0,
    },
    intervals.t_interval: {"values": [1.0, 2.0]},
    intervals.two_way_interval: {"solved_sl": [[1, 0]], "rng": np.random.default_rng(0), "draws": 3},
    intervals.sign_flip_test: {"differences": [1.0, 2.0], "rng": np.random.default_rng(0), "draws": 9},
    intervals.steps_to: {"spent": [0.0, 1.0], "success": [0.0, 1.0], "threshold": 0.5},
    widgets.AdvantageExplorer: {"source": "run"},
    widgets.RolloutPlayer: {"record": records()[0]},
    widgets.TrainingDashboard: {"source": "run"},
    widgets.CoEvolutionStrip: {"run": "run"},
    widgets.playback: {"record": records()[0]},
    widgets.recorded_run: {"name": "quickstart"},
    plots.training_curves: {"run": "run"},
    plots.metric_curves: {"metrics": [{"iteration": 1, "a": 1.0}], "names": {"a": "A"}, "title": "t"},
    plots.seed_curves: {"groups": {}, "names": {"a": "A"}, "title": "t"},
    plots.running_mean: {"values": [1.0, 2.0], "window": 2},
    plots.advantage_bars: {"returns": [1.0, 0.0], "advantages": [1.0, -1.0]},
}  # fmt: skip
"""Public function → arguments that are right."""
LONG = {"num_envs", "size", "draws", "tries", "tile"}
"""Arguments for which a large number is right, and only takes long."""


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A folder of its own, with a run: some calls write."""
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "run")


def parameters(function, right):
    named = inspect.signature(function).parameters.values()
    more = [p.name for p in named if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    return [name for name in dict.fromkeys([*right, *more]) if name not in ("say", "progress", "resume")]


def taken_or_refused(function, arguments):
    """Any other exception than a refusal is a fault. The seed of a single environment is refused by Gymnasium."""
    with contextlib.suppress(HimacError, gymnasium.error.Error):
        function(**arguments)


@pytest.mark.parametrize("function", PUBLIC, ids=lambda f: getattr(f, "__qualname__", str(f)))
def test_each_argument_is_taken_or_refused_with_one_line(function):
    right = PUBLIC[function]
    for name in parameters(function, right):
        for value in ODD:
            if not (name in LONG and isinstance(value, int) and value > 1000):
                taken_or_refused(function, right | {name: value})


@settings(max_examples=300)
@given(st.data())
def test_settings_of_any_type_are_taken_or_refused(data):
    """`replace` sets any value; `validate` is what `train` calls before it does anything else."""
    part = data.draw(st.sampled_from(["", "model", "rollout", "update"]))
    old = getattr(Train(), part) if part else Train()
    name = data.draw(st.sampled_from(sorted(vars(old))))
    value = data.draw(st.sampled_from(ODD) | st.integers() | st.floats() | st.text())
    new = replace(old, **{name: value})
    taken_or_refused(validate, {"config": replace(Train(), **{part: new}) if part else new})


@pytest.mark.parametrize("path", ["run", Path("run")], ids=["str", "Path"])
def test_a_path_is_a_str_or_a_path_alike(path):
    assert himac_lite.load_run(path).folder == Path("run")
    assert widgets.AdvantageExplorer(path).record["title"] == "toy 1"
    assert list(widgets.CoEvolutionStrip(path).shown) == [1, 2]
    assert "60 %" in widgets.TrainingDashboard(path).summary.value
    assert [t.name for t in plots.training_curves(path).data][-1] == "trained model, test (95 %)"
    himac_lite.save_levels([ONE_PUSH], "own.xsb")
    file = type(path)("own.xsb")
    assert SokobanEnv(file).levels == registry.load_items("sokoban", file) == [ONE_PUSH]
    assert override(Train(), "train_levels", file).train_levels == "own.xsb"
    assert validate(replace(Train(), train_levels=file)).train_levels == "own.xsb"
    with pytest.raises(RunError, match=r"^run already holds a run; choose another --out"):
        himac_lite.train(Train(), path)


def test_numbers_of_numpy_are_numbers():
    config = validate(replace(Train(), seed=np.int64(3), minutes=np.float32(0.5)))
    assert json.dumps([config.seed, config.minutes]) == "[3, 0.5]"  # what a manifest stores
    assert override(Train(), "update.lr", 1).update.lr == 1.0
    assert SokobanEnv([ONE_PUSH], max_steps=np.int64(3)).reset()[1]["moves"] == 0
    assert advantage.group_advantage(RETURNS, eps=np.float32(1.0)).shape == (1, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SokobanEnv(["warmup/test"]), r"levels has 'warmup/test'; give a split .* or a list of Level$"),
        (lambda: SokobanEnv(iter([1])), r"levels has 1; give a split"),
        (lambda: SokobanEnv([ONE_PUSH], max_steps=None), "^max_steps must be int, not None$"),
        (lambda: SokobanVectorEnv(2, [ONE_PUSH], max_steps=2.5), "^max_steps must be int, not 2.5$"),
        (lambda: SokobanVectorEnv(2, [ONE_PUSH]).reset(seed=-1), "seed must be an integer of at least 0"),
        (lambda: himac_lite.load_levels(None), r"^path must be str \| os.PathLike\[str\], not None$"),
        (lambda: himac_lite.train(None, "x"), "^config must be Train, not None$"),
        (lambda: himac_lite.train(replace(Train(), seed="0"), "x"), "^seed must be int, not '0'$"),
        (lambda: override(Train(), "seed", None), "^seed must be int, not None$"),
        (lambda: advantage.group_advantage(RETURNS, scale="var"), "^scale must be one of std, none, batch, not 'var'$"),
        (lambda: advantage.group_advantage(RETURNS, eps=float("nan")), "^eps must be float, not nan$"),
        (lambda: advantage.best([[1], [2, 3]]), "must be numbers in rows of equal length"),
        (lambda: objective.kl(BT, [[0.0] * 3] * 2), "^reference_bt must be Tensor, not "),
        (
            lambda: objective.token_log_probs(torch.zeros(1, 1, 5), torch.full((1, 1), 5)),
            "^ids_bt must be int64 from 0 to 4$",
        ),
        (lambda: hierarchy.mean_of(0), "at least 1 execution, not 0"),
        (lambda: hierarchy.turns(0, 0), "not both 0"),
        (lambda: hierarchy.choose_softmax(0.0), "temperature must be positive"),
        (lambda: hierarchy.Hierarchy(score=None), "^score must be Scorer, not None$"),
        (lambda: generate_bins(0, {(1, 9): 1}, max_density=2.0), "max_density must lie between 0 and 1; it is 2.0"),
    ],
)
def test_a_refusal_says_what_is_allowed(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


def test_python_itself_names_a_missing_or_unknown_argument():
    with pytest.raises(TypeError, match=r"load_levels\(\) missing 1 required positional argument: 'path'"):
        himac_lite.load_levels()
    with pytest.raises(TypeError, match="unexpected keyword argument 'paths'"):
        himac_lite.load_levels(paths="core/test")
