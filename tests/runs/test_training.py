"""Whole runs of a real tiny model: interrupted and gone on with, damaged, refused; and the scores at the end."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pytest
import torch
from conftest import TOY_STEPS, one_line
from safetensors.torch import load_file

from himac_lite import cli
from himac_lite.config import Model, Rollout, Train, Update
from himac_lite.errors import ConfigError, LevelError, ModelError, RunError
from himac_lite.evaluation.rows import row_of_run
from himac_lite.evaluation.scores import score_run
from himac_lite.hierarchy import PRESETS, Fallback, Hierarchy, Rules, fixed_steps, reached_by_world, turns
from himac_lite.policy import adapter as saving
from himac_lite.rollout.evaluate import evaluate
from himac_lite.runs import training
from himac_lite.runs.export import conversations
from himac_lite.runs.folder import Run, load_run
from himac_lite.runs.training import base_score, draw_levels, load_for, load_trained, make_task, resolve_model, train
from himac_lite.tasks.sokoban.goals import one_cell_at_a_time
from himac_lite.tasks.sokoban.levels import load_levels, save_levels
from himac_lite.types import Blueprint, Level
from himac_lite.widgets import AdvantageExplorer


@pytest.fixture
def config(tiny_model: Path, toy_file: str) -> Train:
    """4 iterations of 4 × 8 episodes, a checkpoint after 2 and 4, validation after 0, 2 and 4."""
    return toy_config(tiny_model, toy_file)


def toy_config(model: Path, levels: str) -> Train:
    return Train(
        train_levels=levels, validation_levels=levels, test_levels=levels, iterations=4, seed=3, record_levels=2,
        probe_levels=1, probe_every=2,
        validate_every=2, validate_on=3, checkpoint_every=2, keep_checkpoints=2,
        model=Model(str(model), rank=4, alpha=8),
        rollout=Rollout(min_length=0, levels=4, group=8, max_steps=TOY_STEPS, subgoal_budget=TOY_STEPS),
        update=Update(groups_per_step=1, epochs=1, lr=3e-3, minibatches=2),
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, toy_file: str) -> Run:
    """The run that nothing disturbed."""
    return train(toy_config(tiny_model, toy_file), tmp_path_factory.mktemp("whole") / "run")


def digest(file: Path) -> str:
    """Of a file's bytes: comparing long bytes themselves, a failing assertion takes minutes to explain itself."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def adapter(run: Run, iteration: int) -> str:
    return digest(run.folder / "checkpoints" / f"{iteration:06d}" / "adapter_model.safetensors")


def timeless(line: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name != "seconds"}


def same(run: Run, other: Run) -> None:
    """Byte for byte the same weights, optimizer and records; the same metrics and scores but for the seconds."""
    assert run.recorded_iterations() == other.recorded_iterations() == [0, 1, 2, 3, 4]
    files = [f"rollouts/{i:06d}.jsonl" for i in (0, 1, 2, 3, 4)]
    files += [f"checkpoints/000004/{name}.safetensors" for name in ("adapter_model", "optimizer")]
    for file in files:
        assert digest(run.folder / file) == digest(other.folder / file), file
    assert [timeless(m) for m in run.metrics()] == [timeless(m) for m in other.metrics()]
    assert timeless(run.results) == timeless(other.results)
    assert not [f for f in run.folder.rglob("*") if "tmp" in f.name]


def interrupt_after(iteration: int) -> Callable[[int, int, Mapping[str, Any]], None]:
    def progress(done: int, total: int, line: Mapping[str, Any]) -> None:
        if done == iteration:
            raise KeyboardInterrupt

    return progress


# ---- a run -------------------------------------------------------------------------------------------------------


def test_a_run_leaves_what_it_should(whole, config):
    assert load_run(whole.folder).config == config
    lines = whole.metrics()
    assert [m["iteration"] for m in lines] == [0, 1, 2, 3, 4]
    assert [m["iteration"] for m in lines if "validation/success" in m] == [0, 2, 4]
    assert {m["validation/n"] for m in lines if "validation/n" in m} == {3}
    assert all(math.isfinite(v) for m in lines for v in m.values())
    assert [f.name for f in sorted((whole.folder / "checkpoints").iterdir())] == ["000002", "000004"]
    # It learnt from both roles, in every iteration, and the weights went on changing.
    for line in lines[1:]:
        assert line["macro/zero_variance"] < 1
        assert line["micro/zero_variance"] < 1
        assert {"macro/loss", "macro/kl", "micro/loss", "micro/grad_norm"} <= set(line)
    assert adapter(whole, 2) != adapter(whole, 4)
    # Environment steps and tokens add up: means over 32 episodes of each phase.
    for before, line in pairwise(lines):
        spent = 32 * (line["macro/steps"] + line["micro/steps"])
        assert line["env_steps"] - before.get("env_steps", 0) == pytest.approx(spent, abs=1e-3)
        assert line["tokens"] > before.get("tokens", 0)
    record = whole.rollouts(3)
    assert len(record) == 2  # record_levels
    assert [len(r["macro"]["members"]) for r in record] == [8, 8]
    for r in record:
        best = max(m["return"] for m in r["macro"]["members"])
        assert r["macro"]["members"][r["macro"]["best"]]["return"] == best
        assert r["micro"]["blueprint"] == r["macro"]["members"][r["macro"]["best"]]["blueprint"]


def test_the_scores_at_the_end(whole, config, new_policy, toy_levels):
    results = whole.results
    task = make_task(config)
    assert results["trained"]["success"] == evaluate(load_trained(whole), task, toy_levels, "himac").success
    assert results["base"]["success"] == evaluate(new_policy(), task, toy_levels, "himac").success
    assert results["random"]["success"] == evaluate(None, task, toy_levels, "random", seed=3).success
    assert [results[who]["n"] for who in ("trained", "base", "random")] == [4, 4, 4]
    assert (results["iterations"], results["levels"], results["mode"]) == (4, config.test_levels, "himac")
    assert results["env_steps"] == whole.metrics()[-1]["env_steps"]


def test_learning_works(config, tmp_path):
    """Sampled success of both phases rises. (Greedy success says little on 4 levels.)"""
    settings = Update(groups_per_step=1, epochs=1, lr=2e-3, minibatches=2)
    config = replace(config, seed=2, iterations=30, checkpoint_every=30, validate_every=0, update=settings)
    lines = train(config, tmp_path / "run").metrics()
    for phase in ("macro", "micro"):
        first, last = (np.mean([m[f"{phase}/success"] for m in part]) for part in (lines[:5], lines[-5:]))
        # Measured with seeds 0 to 5: macro rises by 0.16, 0.14, 0.19, 0.15, 0.00, 0.21; micro by 0.10 to 0.18.
        assert last > first + 0.06, phase


def test_a_run_depends_on_its_seed(config, whole, tmp_path):
    again = train(config, tmp_path / "again")
    same(again, whole)
    other = train(replace(config, seed=4), tmp_path / "other")
    assert adapter(other, 4) != adapter(whole, 4)


@pytest.mark.parametrize("variant", ["flat_grpo", "joint_update", "random_blueprint"])
def test_the_other_variants_run_and_resume(config, tmp_path, variant):
    config = replace(config, variant=variant, iterations=2, checkpoint_every=1, validate_every=1)
    straight = train(config, tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "broken", progress=interrupt_after(1))
    resumed = train(config, tmp_path / "broken", resume=True)
    assert adapter(straight, 2) == adapter(resumed, 2)
    assert [timeless(m) for m in straight.metrics()] == [timeless(m) for m in resumed.metrics()]
    assert straight.results["mode"] == ("flat" if variant == "flat_grpo" else "himac")
    assert ("macro" in straight.rollouts(1)[0]) == (variant != "flat_grpo")


def test_a_variant_of_your_own(config, tmp_path):
    seen: list[tuple[int, ...]] = []

    def signs(return_pn: np.ndarray) -> np.ndarray:
        seen.append(return_pn.shape)
        return np.where(return_pn > 0, 1.0, -1.0)

    config = replace(config, iterations=1, probe_levels=0, rollout=replace(config.rollout, levels=2))
    run = train(config, tmp_path / "run", hierarchy=Hierarchy(macro_advantage=signs, micro_advantage=signs))
    assert seen == [(2, 8), (2, 8)]
    advantages = {m["advantage"] for m in run.rollouts(1)[0]["macro"]["members"]}
    assert advantages <= {1.0, -1.0}


def test_rules_live_shares_and_the_state_of_each_phase_survive_a_resume(config, tmp_path, monkeypatch):
    shares: list[tuple[float, float]] = []
    scored: list[Fallback] = []
    real = training.evaluate

    def spend(macro_live: float, micro_live: float) -> float:
        shares.append((macro_live, micro_live))
        return 0.5

    def watched(*given: Any, rules: Rules = Rules(), **more: Any) -> Any:
        scored.append(rules.fallback)
        return real(*given, rules=rules, **more)

    monkeypatch.setattr(training, "evaluate", watched)
    own = Hierarchy(
        exhausted="abort", reached=reached_by_world, midway=1.0, spend=spend, optimizer="per_phase",
        at_test=Fallback("replan", "abort", reached_by_world),
    )  # fmt: skip
    config = replace(config, checkpoint_every=1, validate_every=1)
    straight = train(config, tmp_path / "straight", hierarchy=own)
    seen = list(shares)
    lines = straight.metrics()
    first = [1 - lines[1][f"{level}/zero_variance"] for level in ("macro", "micro")]
    assert seen[0] == pytest.approx(tuple(first))
    assert len(seen) == 3  # not known yet in the first iteration
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "broken", progress=interrupt_after(1), hierarchy=own)
    resumed = train(config, tmp_path / "broken", resume=True, hierarchy=own)
    assert shares == seen * 2
    same(resumed, straight)
    saved = load_file(resumed.folder / "checkpoints/000004/optimizer.safetensors")
    weights = len(load_file(resumed.folder / "checkpoints/000004/adapter_model.safetensors"))
    assert {int(key.split(".")[0]) // weights for key in saved} == {0, 2}  # macro and micro, each with its own
    rules = {"training": "end, missed: abort", "test": "replan, missed: abort"}
    assert straight.manifest["rules"] == straight.results["rules"] == row_of_run(straight).rules == rules
    assert set(scored) == {own.at_test, Fallback()}  # the random policy has no plan


def test_iterations_of_one_role_are_recorded_and_shown(config, tmp_path):
    """Iteration 1 is the planner's alone, 2 the executor's, which plays both groups. Probes (of 0 and 2) come last."""
    config = replace(config, iterations=2)
    run = train(config, tmp_path / "run", hierarchy=Hierarchy(schedule=turns(planner=1, executor=1)))
    groups = [[record.keys() & {"macro", "micro"} for record in run.rollouts(i)] for i in (0, 1, 2)]
    assert groups == [[{"macro", "micro"}], [{"macro"}] * 2, [{"macro", "micro"}] * 3]
    explorer = AdvantageExplorer(run.rollouts(1))
    assert list(explorer.advantages) == ["macro"]
    assert explorer.groups.data["levels"][0]["micros"] == {str(run.rollouts(1)[0]["macro"]["best"]): []}
    roles = [row["role"] for row in conversations(run, make_task(config)) if row["iteration"] == 1]
    assert roles == ["planner"] * 16


NOTHING = """
from dataclasses import replace
from himac_lite.hierarchy import Hierarchy, fixed_steps

def nothing(blueprint):
    return replace(blueprint, subgoals=())

told_nothing = Hierarchy(form=nothing)  # an executor without sub-goals does nothing

def one_step():
    return Hierarchy(end=fixed_steps(1))
"""


@pytest.fixture
def short(config: Train) -> Train:
    return replace(config, iterations=1, probe_levels=0, validate_every=0)


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The line of a command that must end with exit code 2."""
    assert cli.main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    return err.strip().splitlines()[-1]


def test_a_run_of_a_variant_from_a_file_asks_for_it_again(short, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my.py").write_text(NOTHING)
    run = train(short, "mine", hierarchy="my.py:told_nothing")
    assert [run.results[who]["success"] for who in ("trained", "base")] == [0, 0]
    assert (run.variant, run.config.variant) == ("told_nothing", "told_nothing")
    assert run.manifest["hierarchy"] == {
        "file": "my.py", "sha256": digest(Path("my.py")), "name": "told_nothing", "value": "form=nothing",
    }  # fmt: skip
    assert run.manifest["world"] is None
    evaluated = ("evaluate", "mine", "--levels", short.test_levels, "--json")
    for argv in (evaluated, ("train", "--resume", "mine")):
        said = refused(capsys, *argv)
        assert said == (
            "himac-lite: mine was begun with 'told_nothing' of 'my.py', which a manifest cannot restore; "
            "add --variant FILE.py:NAME (in Python: hierarchy=)"
        )
    assert cli.main([*evaluated, "--mode", "flat"]) == 0  # no blueprint is executed, so its form does not matter
    assert json.loads(capsys.readouterr().out)["base_success"] > 0
    for other in ("himac", "my.py:one_step"):
        for argv in (evaluated, ("train", "--resume", "mine")):
            assert "was begun with 'told_nothing' of 'my.py', not with " in refused(capsys, *argv, "--variant", other)
    assert cli.main([*evaluated, "--variant", "my.py:told_nothing"]) == 0
    out, err = capsys.readouterr()
    assert (json.loads(out)["success"], "has changed" in err) == (0, False)
    assert train(short, run.folder, resume=True, hierarchy="my.py:told_nothing").results["trained"]["success"] == 0

    with Path("my.py").open("a") as file:
        file.write("# one more line")
    assert cli.main([*evaluated, "--variant", "my.py:told_nothing"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["success"] == 0
    assert "himac-lite: my.py has changed since mine began\n" in err
    said = refused(capsys, "train", "--resume", "mine", "--variant", "my.py:told_nothing")
    assert said == "himac-lite: my.py has changed since mine began; restore it, or start a new run"


def test_a_run_of_a_variant_given_as_a_value_asks_for_it_again(short, tmp_path, capsys):
    def nothing(blueprint: Blueprint) -> Blueprint:
        return replace(blueprint, subgoals=())

    mine, levels = Hierarchy(form=nothing), load_levels(short.test_levels)
    run = train(short, tmp_path / "mine", hierarchy=mine)
    assert run.variant == "mine"  # the folder's name
    words = f"form={nothing.__qualname__}"
    assert run.manifest["hierarchy"] == {"value": words}
    assert score_run(run, levels, hierarchy=mine)["trained"].as_dict() == run.results["trained"] | {"ci95": ANY}
    with pytest.raises(RunError, match="add --variant"):
        score_run(run, levels)
    for other in (Hierarchy(form=one_cell_at_a_time), "himac"):
        with pytest.raises(RunError) as error:
            train(short, run.folder, resume=True, hierarchy=other)
        assert f"begun with a value of its own ({words!r}), not with " in one_line(error)
    assert train(short, run.folder, resume=True, hierarchy=mine).results["trained"] == run.results["trained"]
    (tmp_path / "steps.py").write_text(NOTHING)  # a value may stand in a file later
    known = train(short, tmp_path / "known", hierarchy=Hierarchy(end=fixed_steps(1)))
    argv = ["evaluate", str(known.folder), "--levels", short.test_levels, "--json"]
    assert cli.main([*argv, "--variant", f"{tmp_path}/steps.py:one_step"]) == 0
    again = json.loads(capsys.readouterr().out)
    for name in ("success", "mean_steps", "solved"):
        assert again[name] == known.results["trained"][name]
    assert again["base_success"] == known.results["base"]["success"]
    # One step per sub-goal: the two levels that need a walk before the second push are out of reach.
    played = score_run(known, levels, hierarchy=Hierarchy(end=fixed_steps(1)))["base"]
    assert played.mean_steps < evaluate(load_for(short), make_task(short), levels).mean_steps


def test_a_run_of_a_preset_is_not_scored_as_another_variant(whole, config, capsys):
    argv = ("evaluate", str(whole.folder), "--levels", config.test_levels, "--variant", "replan")
    assert refused(capsys, *argv).endswith("was begun with 'himac', not with 'replan'")
    with pytest.raises(RunError, match="begun with 'himac', not with 'flat_grpo'"):
        train(config, whole.folder, resume=True, hierarchy="flat_grpo")


@pytest.mark.parametrize("own", [{"form": "own:nothing", "depth": 3}, {}, [1], "os.system"])
def test_a_run_of_version_0_1_with_its_own_hierarchy_asks_for_it(whole, config, tmp_path, own):
    """Version 0.1 wrote the axes of such a hierarchy; nothing is restored from them."""
    run = Run(tmp_path / "run")
    shutil.copytree(whole.folder, run.folder)
    manifest = {k: v for k, v in whole.manifest.items() if k not in ("world", "base_sha256")}
    (run.folder / "manifest.json").write_text(json.dumps(manifest | {"hierarchy": own}))
    levels = load_levels(config.test_levels)
    with pytest.raises(RunError, match=r"add --variant FILE\.py:NAME") as error:
        score_run(load_run(run.folder), levels)
    assert ("form, depth" in one_line(error)) == (isinstance(own, dict) and bool(own))
    scored = score_run(load_run(run.folder), levels, hierarchy=Hierarchy(end=fixed_steps(1)))
    assert scored["trained"].n == 4


def test_another_base_model_is_reported_and_not_trained_further(short, tiny_model, tmp_path, capsys):
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    short = replace(short, model=replace(short.model, path=str(model)))
    run = train(short, tmp_path / "run")
    weights = model / "model.safetensors"
    assert run.manifest["base_sha256"] == digest(weights)
    load_trained(run)
    assert capsys.readouterr().out == ""
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    said = f"was begun with another {model}: SHA-256 {run.manifest['base_sha256'][:12]}, here {digest(weights)[:12]}"
    assert cli.main(["evaluate", str(run.folder), "--levels", short.test_levels, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["n"] == 4
    assert said in err
    assert cli.main(["export", str(run.folder), "--out", str(tmp_path / "out")]) == 0
    assert said in capsys.readouterr().err
    with pytest.raises(RunError) as error:
        train(replace(short, iterations=2), run.folder, resume=True)
    assert said in one_line(error)
    manifest = run.manifest
    del manifest["base_sha256"]  # as version 0.1 wrote it
    (run.folder / "manifest.json").write_text(json.dumps(manifest))
    load_trained(load_run(run.folder))
    assert capsys.readouterr().out == ""


# ---- interrupted and gone on with --------------------------------------------------------------------------------


def test_interrupted_after_two_iterations_and_resumed(config, whole, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", progress=interrupt_after(2))
    broken = load_run(tmp_path / "run")
    assert broken.latest_checkpoint().iteration == 2
    assert broken.results == {}
    same(train(config, tmp_path / "run", resume=True), whole)


def test_interrupted_between_checkpoints(config, whole, tmp_path):
    """Iteration 3 was logged and recorded, but not saved: it is made again."""
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", progress=interrupt_after(3))
    broken = load_run(tmp_path / "run")
    assert [m["iteration"] for m in broken.metrics()] == [0, 1, 2, 3]
    assert broken.latest_checkpoint().iteration == 2
    same(train(config, tmp_path / "run", resume=True), whole)


def test_interrupted_before_the_first_checkpoint(config, whole, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", progress=interrupt_after(1))
    assert load_run(tmp_path / "run").latest_checkpoint() is None
    same(train(config, tmp_path / "run", resume=True), whole)


@pytest.mark.parametrize("where", ["learn", "append_metrics", "record", "save_file", "write_results"])
def test_interrupted_in_the_middle(config, whole, tmp_path, monkeypatch, where):
    """Ctrl-C at an awkward moment of iteration 3 or 4 (or while the scores are written) leaves a run that goes on."""
    place: Any = {"learn": training.iterate.__globals__, "save_file": vars(saving)}.get(where)
    real = place[where] if place else getattr(Run, where)
    calls = 0
    fatal = {"learn": 6, "append_metrics": 4, "record": 4, "save_file": 2, "write_results": 1}[where]

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == fatal:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        if place:
            patch.setitem(place, where, interrupted)
        else:
            patch.setattr(Run, where, interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "run")
    assert calls == fatal
    broken = load_run(tmp_path / "run")
    assert broken.latest_checkpoint().iteration == (4 if where == "write_results" else 2)
    assert not [f for f in broken.folder.rglob("*") if "tmp" in f.name]
    same(train(config, tmp_path / "run", resume=True), whole)


@pytest.fixture
def constant(config: Train) -> Train:
    """With a learning rate that does not know the budget, more of which then changes nothing of what was learnt."""
    return replace(config, validate_every=0, update=replace(config.update, lr_floor=1.0))


def test_going_on_further_than_was_planned(constant, tmp_path):
    straight = train(constant, tmp_path / "straight")
    first = train(replace(constant, iterations=2), tmp_path / "run")
    assert first.results["iterations"] == 2
    with pytest.raises(KeyboardInterrupt):
        train(constant, tmp_path / "run", resume=True, progress=interrupt_after(3))
    assert load_run(tmp_path / "run").results == {}  # the scores of iteration 2 are not those of an unfinished run
    same(train(constant, tmp_path / "run", resume=True), straight)


def test_only_the_budget_of_a_resumed_run_may_change(config, whole):
    for other in ({"seed": 99}, {"variant": "flat_grpo"}, {"update": replace(config.update, lr=0.5)}):
        with pytest.raises(ConfigError, match="only the budget of a run may change") as error:
            train(replace(config, iterations=9, **other), whole.folder, resume=True)
        assert ", ".join(other).replace("update", "update.lr") in one_line(error)


@pytest.mark.parametrize(("option", "value"), [("--iterations", "2"), ("--env-steps", "2"), ("--minutes", "1e-9")])
def test_a_new_budget_replaces_the_one_that_is_spent(constant, tmp_path, capsys, option, value):
    run = train(replace(constant, iterations=1), tmp_path / "run")
    spent = run.results["env_steps"]
    value = str(spent + 1) if option == "--env-steps" else value
    assert cli.main(["train", "--resume", str(run.folder), option, value]) == 0
    done = 1 if option == "--minutes" else 2  # that many minutes had passed already
    assert [line["iteration"] for line in run.metrics()] == [*range(1, done + 1)]
    said = "has spent its budget" in capsys.readouterr().err
    assert (said, run.results["iterations"]) == (done == 1, done)
    if done == 2:  # the next resume knows the new budget
        limit = getattr(run.config, option[2:].replace("-", "_"))
        assert (limit, run.config.seed) == (int(value), constant.seed)
        assert cli.main(["train", "--resume", str(run.folder)]) == 0
        assert "has spent its budget, " in (err := capsys.readouterr().err)
        assert "--iterations N, --minutes M or --env-steps N" in err


def test_a_smaller_budget_ends_an_unfinished_run(constant, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(replace(constant, checkpoint_every=1), tmp_path / "run", progress=interrupt_after(2))
    said: list[str] = []
    config = replace(load_run(tmp_path / "run").config, iterations=1)
    run = train(config, tmp_path / "run", resume=True, say=said.append)
    assert "has spent its budget, 2 of 1 iterations; a larger one continues it" in said[0]
    assert run.results["trained"]["n"] == 4  # scored, because it had no scores


def test_the_learning_rate_falls_with_the_budget_and_goes_on_where_it_was(config, tmp_path, monkeypatch):
    rates: list[float] = []
    real = training.iterate

    def watched(learner: Any, *rest: Any) -> Any:
        rates.append(learner.optimizers["macro"].param_groups[0]["lr"])
        return real(learner, *rest)

    monkeypatch.setattr(training, "iterate", watched)
    config = replace(
        config, validate_every=0, checkpoint_every=1, update=replace(config.update, lr=0.004, lr_floor=0.3)
    )
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", progress=interrupt_after(2))
    train(config, tmp_path / "run", resume=True)
    # 4 iterations: 1, ¾, ½ of the rate, and for the last not ¼ but the floor.
    assert rates == pytest.approx([0.004, 0.003, 0.002, 0.0012])


def test_a_finished_run_resumed_stays_as_it_is(config, whole, tmp_path):
    shutil.copytree(whole.folder, tmp_path / "run")
    same(train(config, tmp_path / "run", resume=True), whole)
    (tmp_path / "run" / "results.json").unlink()  # killed while it was scored
    same(train(config, tmp_path / "run", resume=True), whole)


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone", "optimizer", "state"])
def test_a_damaged_newest_checkpoint_costs_only_what_came_after_the_one_before(config, whole, tmp_path, damage):
    shutil.copytree(whole.folder, tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints" / "000004"
    file = folder / "adapter_model.safetensors"
    data = bytearray(file.read_bytes())
    if damage == "cut":
        file.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        data[-1] ^= 1  # one bit
        file.write_bytes(data)
    elif damage == "gone":
        shutil.rmtree(folder)
    elif damage == "optimizer":
        (folder / "optimizer.safetensors").write_bytes(b"")
    else:
        (folder / "state.json").write_text("{")
    run = load_run(tmp_path / "run")
    assert run.latest_checkpoint().iteration == 2
    done: list[int] = []
    same(train(config, run.folder, resume=True, progress=lambda i, n, line: done.append(i)), whole)
    assert done == [3, 4]


def test_all_checkpoints_damaged(config, whole, tmp_path):
    shutil.copytree(whole.folder, tmp_path / "run")
    for file in (tmp_path / "run" / "checkpoints").glob("*/adapter_model.safetensors"):
        file.write_bytes(b"")
    with pytest.raises(RunError) as error:
        load_trained(load_run(tmp_path / "run"))
    assert str(tmp_path / "run") in one_line(error)
    same(train(config, tmp_path / "run", resume=True), whole)


def test_torn_metrics(config, whole, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", progress=interrupt_after(2))
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 3, "env_st')
    same(train(config, tmp_path / "run", resume=True), whole)


# ---- refused -----------------------------------------------------------------------------------------------------


def test_an_existing_run_is_refused(config, whole):
    before = {f: digest(f) for f in whole.folder.rglob("*") if f.is_file()}
    for model in (config.model, Model("/no/such/model")):  # at once, not after a model was loaded
        with pytest.raises(RunError) as error:
            train(replace(config, model=model), whole.folder)
        assert str(whole.folder) in one_line(error)
    assert {f: digest(f) for f in whole.folder.rglob("*") if f.is_file()} == before


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        ({"variant": "hierarchical"}, ConfigError, "'hierarchical'"),
        ({"iterations": -1}, ConfigError, "iterations"),
        ({"rollout": Rollout(min_length=4)}, ConfigError, "4 optimal moves"),
        ({"train_levels": "nowhere.xsb"}, LevelError, "nowhere.xsb"),
        ({"test_levels": "core/tests"}, LevelError, "core/tests"),
        ({"model": Model(path="/no/such/model")}, ModelError, "/no/such/model"),
    ],
)
def test_what_cannot_be_run_is_named_and_nothing_is_written(config, tmp_path, change, kind, said):
    with pytest.raises(kind) as error:
        train(replace(config, **change), tmp_path / "run")
    assert said in one_line(error)
    assert not (tmp_path / "run").exists()


def test_an_unknown_variant_lists_the_known(config, tmp_path):
    with pytest.raises(ConfigError) as error:
        train(replace(config, variant="hierarchical"), tmp_path / "run")
    assert all(name in one_line(error) for name in PRESETS)


def test_what_is_no_run_cannot_be_resumed(config, tmp_path):
    with pytest.raises(RunError) as error:
        train(config, tmp_path / "nothing", resume=True)
    assert str(tmp_path / "nothing") in one_line(error)


def test_a_full_disk_in_the_middle_is_one_line_and_the_run_goes_on_later(config, whole, tmp_path, file_limit):
    """The checkpoint of iteration 4 does not fit: the system itself refuses the bytes."""
    size = (whole.folder / "checkpoints/000002/adapter_model.safetensors").stat().st_size
    limit = file_limit(size // 2)

    def progress(done: int, total: int, line: Mapping[str, Any]) -> None:
        if done == 3:
            limit.__enter__()

    try:
        with pytest.raises(RunError) as error:
            train(config, tmp_path / "run", progress=progress)
    finally:
        limit.__exit__(None, None, None)
    assert str(tmp_path / "run") in one_line(error)
    assert "kept" in one_line(error)
    broken = load_run(tmp_path / "run")
    assert broken.latest_checkpoint().iteration == 2
    assert [m["iteration"] for m in broken.metrics()] == [0, 1, 2, 3, 4]
    assert sorted(f.name for f in (broken.folder / "checkpoints").iterdir()) == ["000002"]
    same(train(config, tmp_path / "run", resume=True), whole)


# ---- the base model beside the trained one -----------------------------------------------------------------------


def shake(policy: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, p in policy.named_trainable():
            p.add_(0.3 * torch.randn(p.shape, generator=generator))
    policy.changed()


@pytest.mark.parametrize("mode", ["himac", "flat"])
def test_the_base_score_does_not_depend_on_training_and_leaves_no_trace(policy, new_policy, toy_levels, config, mode):
    task = make_task(config)
    base = evaluate(new_policy(), task, toy_levels, mode)
    assert base_score(policy, task, toy_levels, mode) == base
    shake(policy)
    kept = [p.detach().clone() for p in policy.trainable()]
    trained = evaluate(policy, task, toy_levels, mode)
    assert trained != base  # the adapter does something
    assert base_score(policy, task, toy_levels, mode) == base
    assert all(torch.equal(p, q) for p, q in zip(policy.trainable(), kept, strict=True))
    assert evaluate(policy, task, toy_levels, mode) == trained


def test_an_interrupted_base_score_restores_the_adapter(policy, toy_levels, config, monkeypatch):
    task = make_task(config)
    shake(policy)
    kept = [p.detach().clone() for p in policy.trainable()]
    trained = evaluate(policy, task, toy_levels, "flat")

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "evaluate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            base_score(policy, task, toy_levels, "flat")
    assert all(torch.equal(p, q) for p, q in zip(policy.trainable(), kept, strict=True))
    assert evaluate(policy, task, toy_levels, "flat") == trained


# ---- budgets and levels ------------------------------------------------------------------------------------------


def test_short_levels_are_left_out_of_training_only(config, tmp_path):
    config = replace(config, iterations=1, record_levels=4, rollout=replace(config.rollout, min_length=3))
    run = train(config, tmp_path / "run")
    assert {r["optimal_moves"] for r in run.rollouts(1)} == {3}
    assert (run.manifest["levels"]["train"]["n"], run.manifest["levels"]["test"]["n"]) == (2, 4)
    assert run.results["trained"]["n"] == 4


def test_budgets(config, tmp_path):
    by_steps = train(replace(config, env_steps=1, validate_every=0), tmp_path / "steps")
    assert [m["iteration"] for m in by_steps.metrics()] == [1]
    assert by_steps.latest_checkpoint().iteration == 1  # the last iteration is always saved
    by_time = train(replace(config, minutes=1e-9, validate_every=0), tmp_path / "time")
    assert len(by_time.metrics()) <= 1
    nothing = train(replace(config, iterations=0), tmp_path / "nothing")
    assert [m["iteration"] for m in nothing.metrics()] == [0]
    assert nothing.results["trained"] == nothing.results["base"]
    limited = train(replace(config, iterations=0, test_limit=2), tmp_path / "limited")
    assert limited.results["trained"]["n"] == 2


def test_every_level_is_drawn_once_before_any_is_drawn_again():
    levels = [Level((str(i),)) for i in range(10)]
    config = Train(seed=1, rollout=Rollout(min_length=0, levels=4))
    drawn = [int(lv.rows[0]) for i in range(10) for lv in draw_levels(levels, config, i)]
    assert len(drawn) == 40
    epochs = [drawn[i : i + 10] for i in range(0, 40, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4  # in a new order every time
    assert draw_levels(levels, config, 3) == draw_levels(levels, config, 3)
    assert draw_levels(levels, replace(config, seed=2), 0) != draw_levels(levels, config, 0)
    # More levels an iteration than there are.
    many = draw_levels(levels[:3], replace(config, rollout=Rollout(min_length=0, levels=7)), 0)
    assert sorted(int(lv.rows[0]) for lv in many[:3]) == [0, 1, 2]
    assert len(many) == 7


def test_shipped_models_go_by_name(tmp_path, monkeypatch, tiny_model):
    monkeypatch.setattr("himac_lite.storage.data_dir", lambda: tmp_path)
    assert resolve_model("tiny") == "tiny"
    shutil.copytree(tiny_model, tmp_path / "models" / "tiny")
    assert resolve_model("tiny") == str(tmp_path / "models" / "tiny")
    assert resolve_model(str(tiny_model)) == str(tiny_model)


def test_loading_a_run_whose_model_is_gone(config, whole, tmp_path):
    shutil.copytree(whole.folder, tmp_path / "run")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    manifest["config"]["model"]["path"] = str(tmp_path / "gone")
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunError) as error:
        load_trained(load_run(tmp_path / "run"))
    assert str(tmp_path / "gone") in one_line(error)
    assert str(tmp_path / "run") in one_line(error)


def test_resuming_refuses_levels_that_have_changed(config: Train, toy_file: str, tmp_path: Path):
    mine = tmp_path / "mine.xsb"
    levels = load_levels(toy_file)
    save_levels(levels, mine)
    config = replace(config, train_levels=str(mine), iterations=1, validate_every=0)
    train(config, tmp_path / "run")
    save_levels(levels[1:], mine)
    with pytest.raises(RunError, match="has changed since"):
        train(replace(config, iterations=2), tmp_path / "run", resume=True)
