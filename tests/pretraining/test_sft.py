"""The warm start of every world: a demonstration is, token by token, the rollout that samples what it marks."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hub
import numpy as np
import pytest
from safetensors.torch import load_file
from transformers import AutoTokenizer

from himac_lite import cli
from himac_lite.errors import ConfigError
from himac_lite.policy.chat import chat_of
from himac_lite.policy.decoding import Stream
from himac_lite.policy.model import Policy
from himac_lite.pretraining import Solution, alfworld, sft, webshop
from himac_lite.pretraining.driver import recipe_of
from himac_lite.rollout.play import Arena
from himac_lite.storage import data_dir
from himac_lite.tasks.alfworld.task import AlfworldTask, GameFile
from himac_lite.tasks.registry import load_items
from himac_lite.tasks.sokoban.task import SokobanTask
from himac_lite.tasks.webshop.task import LiveGoal, WebShopTask
from himac_lite.types import End

engine = pytest.mark.skipif(
    find_spec("alfworld") is None, reason="ALFWorld is not installed: pip install 'himac-lite[alfworld]'"
)


class Replay(Policy):
    """Samples the tokens that sequences mark as the model's own, one sequence a prompt, and nothing else."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(None, tokenizer, name="replay", chat=chat_of(tokenizer, "replay"))
        self.sequences: list[Any] = []

    def act_as(self, role: Any) -> None:
        """One adapter, if any."""

    def decode(self, prompts: Any, react: Any, **keywords: Any) -> list[Stream]:
        streams = []
        for row in range(len(prompts)):
            stream, sequence = Stream(), self.sequences.pop(0)
            for token, own in zip(sequence.ids, sequence.action_mask, strict=True):
                if own:
                    forced = react(row, token)
                    stream.ids += [token, *(forced or ())]
                    stream.sampled += [True, *(False for _ in forced or ())]
                    stream.logp += [0.0] * (1 + len(forced or ()))
            streams.append(stream)
        return streams


def tokenizers(task: str) -> dict[str, Any]:
    own = AutoTokenizer.from_pretrained(data_dir() / "models" / f"{task}-base")
    return {"own": own, "plain": hub.make_tokenizer("qwen2.5", template=False), "chat": hub.make_tokenizer("llama3")}


def same(one: Any, other: Any) -> None:
    for name in ("role", "prompt_len", "ids", "action_mask", "end"):
        assert getattr(one, name) == getattr(other, name), name


def replays(task: Any, item: Any, solution: Solution, policy: Replay) -> None:
    arena, flat = Arena(policy, task), sft.flat_sequence(policy, task, item, solution)
    policy.sequences = [flat]
    (played,) = arena.play_flat([item])
    assert played.success
    same(played.segments[0], flat)

    plan = sft.plan_sequence(policy, task, item, solution)
    policy.sequences = [plan]
    (((written, blueprint),),) = arena.blueprints([item], 1)
    same(written, plan)
    assert blueprint.subgoals == solution.blueprint.subgoals == task.oracle(item).subgoals

    segments = [
        sft.segment_sequence(policy, task, item, solution, SimpleNamespace(integers=lambda n, k=k: k))
        for k in range(len(solution.parts))
    ]
    policy.sequences = list(segments)
    (played,) = arena.execute([(item, blueprint)])
    assert played.success
    assert len(played.segments) == len(segments) > 1
    for one, other in zip(played.segments, segments, strict=True):
        same(one, other)
    assert [s.end for s in segments] == [*[End.SUB_DONE] * (len(segments) - 1), End.SUCCESS]


@pytest.mark.parametrize("kind", ["own", "plain", "chat"])
@pytest.mark.parametrize(("name", "task", "source"), [
    ("sokoban", SokobanTask(), "core/train"),
    ("webshop", WebShopTask(max_action_tokens=200), "webshop/train"),  # these tokenizers know few of its words
    pytest.param("alfworld", AlfworldTask(max_action_tokens=200), "household/train", marks=engine),
])  # fmt: skip
def test_demonstrations_are_the_rollouts_that_sample_them(name: str, task: Any, source: str, kind: str):
    policy, rng = Replay(tokenizers(name)[kind]), np.random.default_rng(0)
    items = [item for item in load_items(name, source)[:20] if len(task.oracle(item).subgoals) > 1][:3]
    for item in items:
        replays(task, item, recipe_of(name).solution(item, rng, "expert"), policy)


def test_roles_take_turns_and_items_are_drawn_from_the_generator():
    policy, recipe = Replay(tokenizers("webshop")["own"]), recipe_of("webshop")
    items = load_items("webshop", "webshop/train")[:50]

    def made(seed: int) -> list[Any]:
        return sft.demonstrations(policy, WebShopTask(), recipe, items, 9, np.random.default_rng(seed))

    first = made(0)
    assert [s.role for s in first] == [*sft.ROLES] * 3
    assert first == made(0) != made(1)


def test_a_subgoal_without_actions_is_no_segment():
    """Where a search finds nothing there is nothing to open."""
    item, policy = load_items("webshop", "webshop/train")[0], Replay(tokenizers("webshop")["own"])
    solution = webshop.solution(item, np.random.default_rng(0))
    (goal, _), (second, actions), *rest = solution.parts
    cut = Solution(((goal, ()), (second, actions), *rest), solution.flat)
    first = SimpleNamespace(integers=lambda n: 0)
    assert second.text in policy.text(sft.segment_sequence(policy, WebShopTask(), item, cut, first).ids)


def test_a_walkthrough_is_cut_at_its_subgoals(tmp_path: Path):
    commands = ["go to cabinet 1", "open cabinet 1", "take mug 1 from cabinet 1", "go to sinkbasin 1",
                "clean mug 1 with sinkbasin 1", "go to desk 1", "move mug 1 to desk 1"]  # fmt: skip
    file = tmp_path / "game.tw-pddl"
    file.write_text(json.dumps({"walkthrough": commands}), "utf-8")
    solution = alfworld.solution(GameFile(file, "game"), np.random.default_rng(0))
    assert [(goal.text, actions) for goal, actions in solution.parts] == [
        ("find and take a mug", tuple(commands[:3])),
        ("clean the mug with the sinkbasin", tuple(commands[3:5])),
        ("put the mug on the desk", tuple(commands[5:])),
    ]
    assert solution.flat == tuple(commands)


def test_what_nobody_can_demonstrate_is_refused_in_one_line(tmp_path: Path):
    file, rng = tmp_path / "game.tw-pddl", np.random.default_rng(0)
    file.write_text("{}", "utf-8")
    live, game = LiveGoal("http://x", 1, "a mug"), GameFile(file, "game without a walkthrough")
    known = load_items("webshop", "webshop/train")[:1]
    for task, items, solve in (
        (WebShopTask(), [*known, live], webshop.solution), (AlfworldTask(), [game], alfworld.solution)
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=items[-1].title) as error:
            sft.refuse_unsolved(task, items, print)
        assert "choose other --levels" in str(error.value)
        with pytest.raises(ConfigError, match="no script can"):
            solve(items[-1], rng)
    sft.refuse_unsolved(WebShopTask(), known, print)


def test_a_level_without_a_solution_is_refused_by_the_command(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
):
    levels = tmp_path / "none.xsb"
    levels.write_text("; stuck\n#####\n#$@.#\n#####\n", "utf-8")
    options = ["--model", str(tiny_model), "--out", str(tmp_path / "warm")]
    assert cli.main(["sft", "--levels", str(levels), *options]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("himac-lite: ")]
    assert "no expert can demonstrate" in line


def test_a_chat_model_is_warmed_up_for_the_shop(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    base, out = hub.make_hub(tmp_path / "base", "qwen2.5"), tmp_path / "warm"
    sets = [a for s in ("batch=3", "model.rank=4", "lr=1e-2") for a in ("--set", s)]
    argv = ["sft", "--task", "webshop", "--model", str(base), "--steps", "3", "--validate", "1", "--out", str(out)]
    assert cli.main([*argv, *sets, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert {"himac", "flat", "loss", "out"} <= set(printed)
    made = json.loads((out / "sft.json").read_text("utf-8"))
    assert (made["config"]["task"], made["config"]["levels"]) == ("webshop", "webshop/train")
    assert any(t.any() for name, t in load_file(out / "adapter_model.safetensors").items() if "lora_B" in name)


@pytest.mark.parametrize(("levels", "family"), [
    ("core/train", "core"), ("warmup/train", "warmup"), ("alfworld/train", "alfworld"), ("http://x:3000#0-9", ""),
    (__file__, ""),
])  # fmt: skip
def test_validation_is_on_the_same_family(levels: str, family: str):
    from himac_lite.cli.sft import _family

    assert _family(levels) == family
