"""docs/cookbook.md and notebook 09: variants and a task outside the package, in few lines, that really train."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import TOY_STEPS
from iterations import one_iteration

from himac_lite import cli
from himac_lite.config import TRAIN_PRESETS, Model, Pretrain, Rollout, Train, Update
from himac_lite.hierarchy import Hierarchy
from himac_lite.policy.loading import LoraSettings, load_policy
from himac_lite.runs.folder import load_run
from himac_lite.tasks.text import written_plan
from himac_lite.types import Role, SubGoal

ROOT = Path(__file__).resolve().parents[2]
COOKBOOK = (ROOT / "docs" / "cookbook.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(?!# \w+\.py)(.*?)^```$", COOKBOOK, re.M | re.S)
FILES = dict(re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", COOKBOOK, re.M | re.S))
COMMANDS = [line for block in re.findall(r"^```bash\n(.*?)^```$", COOKBOOK, re.M | re.S) for line in block.splitlines()]
AXES = re.findall(r"^## (\d+)\. ", COOKBOOK, re.M)
MASTER = (ROOT / "notebooks" / "src" / "09_your_own_hierarchy.py").read_text("utf-8")
CELLS = dict(re.findall(r"^# %%\n# VARIANT (\w+)\n(.*?)(?=^# %%)", MASTER, re.M | re.S))


def recipes() -> list[tuple[str, Hierarchy]]:
    """Every value that the page names `variant`, in order; the page is one program."""
    names: dict[str, Any] = {}
    out = []
    for number, block in enumerate(BLOCKS):
        parts = re.split(r"^(?=variant = )", block, flags=re.M)
        for part in parts:
            exec(compile(part, f"cookbook.md, block {number + 1}", "exec"), names)
            if part.startswith("variant = "):
                out.append((" ".join(part.split())[10:70], names["variant"]))
    return out


def test_the_cookbook_has_a_recipe_for_each_axis():
    assert [int(number) for number in AXES] == list(range(1, 15))
    told = {name for _, variant in recipes() for name in changed(variant)}
    assert told == set(Hierarchy.__dataclass_fields__) - {"micro_advantage"}


def changed(variant: Hierarchy) -> list[str]:
    return [n for n in Hierarchy.__dataclass_fields__ if getattr(variant, n) != getattr(Hierarchy(), n)]


@pytest.mark.parametrize(("text", "variant"), recipes(), ids=lambda v: v if isinstance(v, str) else "")
def test_every_recipe_trains(tiny_model, toy_levels, text, variant):
    policy = load_policy(str(tiny_model), LoraSettings(4, 8, each_role=variant.sharing == "each"), device="cpu")
    step = one_iteration(policy, toy_levels, variant, seed=6)
    assert step.env_steps > 0
    assert all(math.isfinite(v) for v in step.metrics.values())


# ---- files of the user's own -------------------------------------------------------------------------------------


@pytest.fixture
def toy_options(tiny_model: Path, toy_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Options that make a command of the page small, in a folder with the page's files."""
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        Path(name).write_text(text, "utf-8")
    small = (
        "rollout.levels=2",
        "rollout.group=4",
        f"rollout.max_steps={TOY_STEPS}",
        "probe_levels=0",
        "validate_every=0",
    )
    return [part for setting in small for part in ("--set", setting)]


def commands(start: str) -> list[list[str]]:
    """The page's commands with these words."""
    return [c.split()[1:] for c in COMMANDS if c.startswith("himac-lite ") and start in c]


def test_a_variant_in_a_file_is_trained_scored_and_resumed(toy_options, tiny_model, toy_file, capsys):
    assert len([line for line in FILES["mine.py"].splitlines() if line.strip()]) <= 20
    train, resume = commands("train --variant")[0], commands("train --resume")[0]
    model = ["--model", str(tiny_model), "--levels", toy_file, "--iterations", "1"]
    levels = ["--set", f"test_levels={toy_file}", "--set", f"validation_levels={toy_file}"]
    assert cli.main([*train, *model, *levels, *toy_options]) == 0
    assert load_run("runs/mine").manifest["hierarchy"]["value"].startswith("form=first_two, exhausted='replan', ")
    assert cli.main([*commands("evaluate runs/mine")[0], "--levels", toy_file]) == 0
    assert cli.main([*resume, "--iterations", "2"]) == 0
    assert [line["iteration"] for line in load_run("runs/mine").metrics()] == [1, 2]
    capsys.readouterr()

    (grid,) = commands("reproduce")
    small = ["--env-steps", "1", "--set", f"train_levels={toy_file}", "--set", f"model.path={tiny_model}"]
    small += ["--set", "rollout.min_length=0", *levels, *toy_options]
    assert cli.main([*grid[:-3], "1", *grid[-2:], *small, "--workers", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["left"] == []
    kept = json.loads(Path("data/runs/mine/settings.json").read_text())
    assert {k for k in kept if "file" in k} == {"sha256 of the file of cautious"}
    rows = [json.loads(line)["variant"] for line in Path("data/runs/mine/rows.jsonl").read_text().splitlines()]
    assert rows == ["cautious", "himac"]
    with Path("mine.py").open("a") as file:
        file.write("# changed")
    assert cli.main([*grid, *small]) == 2  # rows of both versions are not one table's
    assert "sha256 of the file of cautious" in capsys.readouterr().err


@pytest.fixture(scope="module")
def counter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that has read a few plans and segments of the page's counting task."""
    import torch

    from himac_lite.pretraining.driver import make_model
    from himac_lite.pretraining.tokenizers import build_text_tokenizer

    names: dict[str, Any] = {}
    exec(FILES["counting.py"], names)
    task, texts = names["CountingTask"](20, 4), []
    for item in names["load"]("1-6"):
        texts.append(task.start(item).prompt(Role.PLANNER) + task.oracle(item).text + task.end)
        episode = task.start(item)
        for goal in task.oracle(item).subgoals:
            texts.append(episode.prompt(Role.EXECUTOR, goal) + task.actions[0] + episode.act(0) + task.sub_done)
    tokenizer = build_text_tokenizer(texts * 2, 400)
    model = make_model(Pretrain(width=64, layers=2, heads=2), tokenizer)
    encoded = tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")
    labels = encoded.input_ids.masked_fill(encoded.attention_mask == 0, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        model(input_ids=encoded.input_ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    folder = tmp_path_factory.mktemp("counter") / "model"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_task_in_a_file_is_trained_scored_and_resumed(toy_options, counter, capsys, monkeypatch):
    (train,), (scored,) = commands("train --task"), commands("evaluate runs/counting")
    monkeypatch.setitem(TRAIN_PRESETS, "colab", Train(iterations=1, rollout=Rollout(levels=6, group=8)))
    options = ["--model", str(counter), "--set", "validate_every=1", "--set", "checkpoint_every=1"]
    assert cli.main([*train, *options]) == 0
    run = load_run("runs/counting")
    assert (run.config.task, run.config.test_levels, run.config.rollout.subgoal_budget) == ("counting", "7-9", 4)
    assert {k: run.manifest["world"][k] for k in ("file", "name", "value")} == {
        "file": "counting.py", "name": "counting", "value": "counting",
    }  # fmt: skip
    line = run.metrics()[-1]
    assert line["macro/blueprint_valid"] > 0.2
    assert line["micro/success"] > 0
    record = run.rollouts(1)[0]["micro"]["members"][0]
    assert record["moves"].split("\n")[0] in (" up", " down")
    capsys.readouterr()
    assert cli.main([*scored, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n"] == 3
    for argv in (["evaluate", "runs/counting"], ["train", "--resume", "runs/counting"]):
        assert cli.main(argv) == 2
        assert "add --task FILE.py:NAME" in capsys.readouterr().err
    assert cli.main(["export", "runs/counting", "--rollouts", "--out", "x.jsonl"]) == 2
    assert "rollouts of counting cannot be " in capsys.readouterr().err
    assert cli.main(["train", "--resume", "runs/counting", "--task", "counting.py:counting", "--iterations", "2"]) == 0
    grid = ["reproduce", "ablations", "--variants", "himac,prompt_blueprint", "--seeds", "1", "--env-steps", "1"]
    small = ["--set", "rollout.levels=2", "--set", "rollout.group=4", "--set", f"model.path={counter}"]
    assert cli.main([*grid, *small, "--task", "counting.py:counting", "--workers", "2"]) == 0
    kept = json.loads(Path("data/runs/counting/settings.json").read_text())
    assert kept["sha256 of the file of the task"] == run.manifest["world"]["sha256"]


def test_the_counting_task_is_what_it_says():
    names: dict[str, Any] = {}
    exec(FILES["counting.py"], names)
    assert len([line for line in FILES["counting.py"].splitlines() if line.strip()]) <= 50
    task, (item,) = names["CountingTask"](20, 4), names["load"]("3-3")
    episode = task.start(item)
    assert episode.prompt(Role.EXECUTOR, SubGoal("reach 1")) == "<act>\ncount to 3, now 0\nSub-goal: reach 1\n>"
    assert [episode.act(action) for action in (1, 0)] == ["\nnow -1\n>", "\nnow 0\n>"]
    assert (episode.progress, episode.over) == (0, False)
    assert [episode.act(0) for _ in range(3)][-1] == "\nnow 3\n>"
    assert (episode.progress, episode.success, episode.steps) == (1, True, 5)
    assert task.oracle(item) == written_plan(["reach 1", "reach 2", "reach 3"])


def test_the_callback_writes_every_metric(tiny_model, toy_file, tmp_path, monkeypatch):
    """TensorBoard itself is not needed: a writer that keeps what it is given."""

    class SummaryWriter:
        def __init__(self, folder: str) -> None:
            self.folder, self.written = folder, []

        def add_scalar(self, name: str, value: float, global_step: int) -> None:
            self.written.append((name, float(value), global_step))

    module: Any = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.chdir(tmp_path)
    quick = Train(
        train_levels=toy_file, validation_levels=toy_file, test_levels=toy_file, iterations=2, validate_every=0,
        probe_levels=0, model=Model(str(tiny_model), rank=4, alpha=8), update=Update(groups_per_step=1),
        rollout=Rollout(min_length=0, levels=2, group=4, max_steps=TOY_STEPS),
    )  # fmt: skip
    monkeypatch.setitem(TRAIN_PRESETS, "quick", quick)
    names: dict[str, Any] = {}
    exec(FILES["tensorboard.py"], names)
    lines = load_run("runs/watched").metrics()  # the page gives the folder as a str
    assert [line["iteration"] for line in lines] == [1, 2]
    expected = [(name, value, line["env_steps"]) for line in lines for name, value in line.items()]
    assert names["writer"].written == expected


def test_notebook_09_builds_three_variants_in_twenty_lines_each():
    assert list(CELLS) == ["never_stuck", "sceptical", "parting"]
    for name, cell in CELLS.items():
        lines = [line for line in cell.splitlines() if line.strip()]
        assert len(lines) <= 20, name
        assert f"{name} = Hierarchy(" in cell


@pytest.mark.parametrize("name", CELLS)
def test_each_variant_of_notebook_09_stands_alone_outside_the_package(policy, toy_levels, tmp_path, monkeypatch, name):
    """A file of one's own, imported from somewhere else: the library's files are not touched and not needed."""
    (tmp_path / "mine_out_here.py").write_text(CELLS[name], "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "mine_out_here", raising=False)
    module = __import__("mine_out_here")
    variant = getattr(module, name)
    assert changed(variant)
    step = one_iteration(policy, toy_levels, variant, seed=6)
    assert step.env_steps > 0
    assert all(math.isfinite(v) for v in step.metrics.values())
    if name == "parting":  # what is common to all executions is left out of the credit
        for group, row in zip(step.micro, step.micro_adv_pn, strict=True):
            shares = module.where_they_part(group, row, 0.0)
            assert [len(s) for s in shares] == [len(t.segments) for t in group.trajectories]
