"""The whole path of a hub's model on one made here: warm start, load in 4 bit, train, save, load, merge, evaluate."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hub
import numpy as np
import pytest
import torch

from himac_lite import cli
from himac_lite.policy.chat import messages
from himac_lite.policy.loading import LoraSettings, load_policy
from himac_lite.pretraining import sft, sokoban
from himac_lite.rollout.evaluate import evaluate
from himac_lite.rollout.play import Arena
from himac_lite.runs import folder as runs
from himac_lite.runs import training
from himac_lite.tasks.sokoban.levels import load_levels
from himac_lite.tasks.sokoban.task import SokobanTask
from himac_lite.types import Role, Sampling

LEVEL = "; right\n; moves 1, pushes 1\n#####\n#@$.#\n#####\n"
PLAN = "push the box at (1,2) right to (1,3)"
STEPS = 100


def command(*argv: Any, settings: tuple[str, ...] = ()) -> int:
    return cli.main([*map(str, argv), *(a for s in settings for a in ("--set", s))])


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Folders of the whole path, in the order in which a person makes them: base, warm start, run."""
    folder = tmp_path_factory.mktemp("path")
    base, levels = hub.make_hub(folder / "base", "qwen2.5"), folder / "one.xsb"
    levels.write_text(LEVEL, "utf-8")
    warm = ("batch=3", "lr=1e-2", "model.rank=8", "model.alpha=16", "save_every=40")
    args = ("sft", "--model", base, "--levels", levels, "--steps", STEPS, "--out", folder / "warm", "--validate", 0)
    assert command(*args, settings=warm) == 0
    settings = (
        f"validation_levels={levels}", f"test_levels={levels}", "validate_every=0", "probe_levels=0",
        "rollout.temperature=1.0", "rollout.levels=2", "rollout.group=6",
        "rollout.max_steps=1", "rollout.subgoal_budget=1", "checkpoint_every=1",
        "update.groups_per_step=1", "model.rank=8", "model.alpha=16", "update.lr=1e-3",
        "model.checkpointing=true", "update.micro_tokens=0",
    )  # fmt: skip
    args = ("train", "--model", base, "--adapter", folder / "warm", "--levels", levels, "--iterations", 2)
    assert command(*args, "--out", folder / "run", settings=settings) == 0
    return SimpleNamespace(folder=folder, base=base, levels=str(levels), warm=folder / "warm", run=folder / "run")


def test_a_warm_start_teaches_both_formats(path: Any):
    done = json.loads((path.warm / "sft.json").read_text())
    assert done["losses"][-1] < 0.3  # nats a token; a uniform guess is ln 893 = 6.8
    assert not (path.warm / sft.STATE).exists()
    policy = load_policy(str(path.base), start=path.warm)
    task, levels = SokobanTask(max_steps=4), load_levels(path.levels)
    planned = evaluate(policy, task, levels, "himac")
    assert planned.blueprint_valid == 1
    assert planned.success == 1
    assert evaluate(policy, task, levels, "flat").success == 1
    with policy.as_it_began():
        assert evaluate(policy, task, levels, "himac").success == 1  # it is the warm start that training began with
    cold = load_policy(str(path.base))
    assert evaluate(cold, task, levels, "himac").blueprint_valid == 0


def test_training_changes_the_adapter_and_is_scored_against_its_start(path: Any):
    run = runs.load_run(path.run)
    lines = run.metrics()
    assert [line["iteration"] for line in lines] == [1, 2]
    assert any(line.get("macro/grad_norm", 0) + line.get("micro/grad_norm", 0) > 0 for line in lines)
    assert run.results["base"]["success"] == 1
    assert run.results["mode"] == "himac"
    trained, warm = training.load_trained(run), load_policy(str(path.base), start=path.warm)
    assert any(not torch.equal(a, b) for a, b in zip(trained.trainable(), warm.trainable(), strict=True))
    assert trained.start is not None
    assert all(torch.equal(a, b) for a, b in zip(trained.start, warm.trainable(), strict=True))
    # The KL term holds to the warm start: the reference is the warm policy, whatever has been learnt since.
    task, levels = SokobanTask(max_steps=4), load_levels(path.levels)
    batch = [s for t in Arena(warm, task).play_flat(levels * 2, greedy()) for s in t.segments]
    reference = trained.log_probs(batch, reference=True)
    own = warm.log_probs(batch)
    torch.testing.assert_close(reference.logp[own.mask], own.logp[own.mask].detach(), rtol=0, atol=1e-4)


def greedy() -> Sampling:
    return Sampling(0.0)


def test_the_adapter_opens_with_plain_peft(path: Any):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    checkpoint = runs.load_run(path.run).latest_checkpoint()
    assert checkpoint is not None
    base = AutoModelForCausalLM.from_pretrained(path.base, dtype=torch.float32)
    plain = PeftModel.from_pretrained(base, str(checkpoint.folder)).eval()
    policy = load_policy(str(path.base), adapter=checkpoint.folder, four_bit=False, device="cpu")
    ids = torch.tensor([policy.prompt(SokobanTask().start(load_levels(path.levels)[0]), Role.FLAT)])
    with torch.no_grad():
        torch.testing.assert_close(plain(ids).logits, policy.computing()(ids).logits, rtol=0, atol=1e-4)


def test_merged_weights_compute_what_was_trained(path: Any, capsys: pytest.CaptureFixture[str]):
    out = path.folder / "merged"
    assert command("export", path.run, "--out", out, "--dtype", "float32", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"out": str(out), "iteration": 2, "dtype": "float32"}
    merged, trained = load_policy(str(out), four_bit=False), training.load_trained(runs.load_run(path.run))
    ids = torch.tensor([trained.prompt(SokobanTask().start(load_levels(path.levels)[0]), Role.PLANNER)])
    with torch.no_grad():
        torch.testing.assert_close(
            merged.computing()(ids).logits, trained.computing()(ids).logits, rtol=0, atol=1e-4
        )  # fmt: skip
    assert merged.chat is not None  # the template went with it
    assert command("evaluate", out, "--levels", path.levels, "--json") == 0
    assert json.loads(capsys.readouterr().out)["n"] == 1
    card = (out / "README.md").read_text()
    assert "2 iterations of 2 levels × 6 rollouts" in card
    assert "float32" in card
    assert str(path.folder) not in card  # no path of this machine
    assert "rollouts of one.xsb" in card
    assert "| trained | 100.0 % |" in card or "| trained | 0.0 % |" in card
    assert command("export", path.run, "--out", out) == 2
    assert "exists; choose another --out" in capsys.readouterr().err


def test_rollouts_become_conversations_that_the_template_renders(path: Any, tmp_path: Path):
    file, run = tmp_path / "rollouts.jsonl", runs.load_run(path.run)
    assert command("export", path.run, "--rollouts", "--out", file) == 0
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert {row["role"] for row in rows} == {"planner", "executor"}
    assert {tuple(row) for row in rows} == {("messages", "role", "return", "advantage", "success", "iteration")}
    policy = load_policy(str(path.base))
    task = SokobanTask()
    said = task.start(load_levels(path.levels)[0]).describe(Role.PLANNER)
    for row in rows:
        roles = [m["role"] for m in row["messages"]]
        assert roles == (["system"] + ["user", "assistant"] * ((len(roles) - 1) // 2))
        assert all(m["content"] for m in row["messages"]) or row["role"] == "planner"
        text = policy.tokenizer.apply_chat_template(row["messages"], tokenize=False)
        if row["role"] == "planner":
            assert row["messages"][:2] == messages(said)
            assert text.startswith(policy.chat.opening(said) + row["messages"][2]["content"])
    # The same blueprints and moves as were recorded, member by member.
    record = run.rollouts(1)[0]
    plans = [m["blueprint"].strip("\n") for m in record["macro"]["members"]]
    assert [r["messages"][2]["content"] for r in rows if r["role"] == "planner" and r["iteration"] == 1][:6] == plans
    assert PLAN in plans
    moved = [m["moves"] for m in record["micro"]["members"]]
    names = {"u": "up", "d": "down", "l": "left", "r": "right"}
    executed = [r for r in rows if r["role"] == "executor" and r["iteration"] == 1][: len(moved)]
    for row, moves in zip(executed, moved, strict=True):
        answers = [m["content"] for m in row["messages"] if m["role"] == "assistant"]
        assert [a for a in answers if a != "<sub_done>"] == [names[m.lower()] for m in moves]

    pairs = tmp_path / "pairs.jsonl"
    assert command("export", path.run, "--rollouts", "--format", "prompt-completion", "--solved", "--out", pairs) == 0
    split = [json.loads(line) for line in pairs.read_text("utf-8").splitlines()]
    assert split
    for row in split:
        assert row["success"]
        assert [m["role"] for m in row["completion"]] == ["assistant"]
        assert row["prompt"][-1]["role"] == "user"
    answers = sum(m["role"] == "assistant" for r in rows if r["success"] for m in r["messages"])
    assert len(split) == answers


# ---- the warm start in detail ------------------------------------------------------------------------------------


def test_demonstrations_are_in_the_turns_of_a_rollout(path: Any):
    """A demonstration of the level's one solution is, token by token, the rollout that the warm policy plays."""
    policy, task, level = (
        load_policy(str(path.base), start=path.warm),
        SokobanTask(max_steps=4),
        *load_levels(path.levels),
    )
    (flat,) = Arena(policy, task).play_flat([level], greedy())
    solution = sokoban.solution(level, np.random.default_rng(0))
    shown = sft.flat_sequence(policy, task, level, solution)
    assert (shown.ids, shown.action_mask, shown.prompt_len) == tuple(
        getattr(flat.segments[0], name) for name in ("ids", "action_mask", "prompt_len")
    )
    plan = sft.plan_sequence(policy, task, level, solution)
    assert policy.text(plan.ids[plan.prompt_len :]) == PLAN + "<|im_end|>"
    assert all(plan.action_mask[plan.prompt_len :])


def test_a_segment_that_does_not_solve_ends_with_sub_done(path: Any, toy_levels: Any):
    policy, task = load_policy(str(path.base)), SokobanTask()
    solution = sokoban.solution(toy_levels[2], np.random.default_rng(0))
    made = {
        policy.text(s.ids[s.prompt_len :]): sum(s.action_mask)
        for seed in range(6)
        for s in [sft.segment_sequence(policy, task, toy_levels[2], solution, np.random.default_rng(seed))]
    }
    turn = policy.chat.reply("pushed (1,2)")
    first = [text for text in made if text.startswith(f"left{turn}")]
    assert [policy.text(policy.encode("<sub_done>", prompt=False)[:1]) for _ in first] == [t[-1] for t in first] != []
    assert made[first[0]] == 2
    assert any(not text.endswith(first[0][-1]) for text in made)  # the one that solves ends with its last move


def test_an_interrupted_warm_start_ends_with_the_same_weights(path: Any, tmp_path: Path):
    from himac_lite.config import Model, Sft
    from himac_lite.errors import RunError

    config = Sft(steps=4, batch=3, save_every=2, lr=1e-3, model=Model(str(path.base), rank=4, alpha=8))
    task, levels = SokobanTask(), load_levels(path.levels)

    def fresh() -> Any:
        return load_policy(str(path.base), LoraSettings(4, 8))

    class Stop(Exception): ...

    def whole(out: Path, stop: bool) -> Any:
        policy = fresh()
        if stop:
            kept = sft.step
            calls = iter(range(9))

            def step(*args: Any) -> float:
                if next(calls) == 3:
                    raise Stop
                return kept(*args)

            sft.step = step
            try:
                with pytest.raises(Stop):
                    sft.fine_tune(policy, task, levels, config, out, lambda _: None)
            finally:
                sft.step = kept
            policy = fresh()
        sft.fine_tune(policy, task, levels, config, out, lambda _: None)
        return policy

    one, other = whole(tmp_path / "a", False), whole(tmp_path / "b", True)
    assert all(torch.equal(p, q) for p, q in zip(one.trainable(), other.trainable(), strict=True))
    with pytest.raises(RunError, match="finished adapter"):
        sft.fine_tune(fresh(), task, levels, config, tmp_path / "a", lambda _: None)
