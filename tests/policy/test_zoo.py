"""Any causal language model computes exactly, or every command refuses it in one line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import zoo
from zoo import error_line

from himac_lite import cli
from himac_lite.errors import ModelError
from himac_lite.policy import decoding, loading
from himac_lite.policy.loading import load_policy
from himac_lite.policy.model import Policy
from himac_lite.rollout.play import Arena
from himac_lite.runs.export import export_model
from himac_lite.types import Sampling

ROOT = Path(__file__).resolve().parents[2]
ROWS = re.finditer(
    r"^\| (.+?) \| (?:(works), \S+|(refused: .+)) \|$", (ROOT / "docs/models.md").read_text("utf-8"), re.M
)
VERDICTS = {row[1]: row[2] or row[3] for row in ROWS}
WORK = [name for name in zoo.NAMES if VERDICTS[name] == "works"]
REFUSED = [name for name in zoo.NAMES if VERDICTS[name] != "works"]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = zoo.make(tmp_path_factory.mktemp("zoo") / "model", name)
        return made[name]

    return folder


def test_the_documented_table_is_whole():
    assert set(zoo.WORK) <= set(WORK)
    assert set(VERDICTS) >= set(zoo.NAMES)


@pytest.mark.parametrize("name", WORK)
def test_a_model_of_the_zoo_computes_exactly(folder_of: Any, tmp_path: Path, name: str):
    from transformers import AutoModelForCausalLM

    policy = zoo.load(folder_of(name))
    batch = zoo.played(policy)
    assert len({s.ids[: s.prompt_len] for s in batch}) == 4 < len(batch)
    assert len({len(s.ids) for s in batch}) > 2
    assert max(len(s.ids) for s in batch) > 2 * zoo.WINDOW
    assert zoo.difference(policy, batch) <= 1e-4
    assert zoo.difference(zoo.load(folder_of(name), checkpointing=True), batch) <= 1e-4  # in train mode

    scores = policy.log_probs(batch)
    policy.pull_back(torch.autograd.grad(scores.logp[scores.mask].sum(), policy.leaves()))
    with_gradient = {
        n for m in (policy.peft_model, policy.twin, policy.reference) for n, p in m.named_parameters()
        if p.grad is not None
    }  # fmt: skip
    assert with_gradient == {n for n, _ in policy.named_trainable()}
    assert all(bool(p.grad.any()) for p in policy.trainable())

    ids = torch.tensor([batch[0].ids])
    policy.peft_model.save_pretrained(tmp_path / "adapter")
    again = load_policy(str(folder_of(name)), adapter=tmp_path / "adapter", device="cpu")
    with torch.no_grad():
        assert torch.equal(again.computing()(ids).logits, policy.computing()(ids).logits)

    export_model(policy, tmp_path / "merged", "", "float32")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32).eval()
    for ((plan, _),) in Arena(policy, zoo.TASK).blueprints(zoo.LEVELS[:2], 1, Sampling(0.0)):
        written = list(plan.ids[: plan.prompt_len])
        with torch.no_grad():
            for _ in range(min(24, len(plan.ids) - plan.prompt_len)):
                written.append(int(plain(torch.tensor([written])).logits[0, -1].argmax()))
        assert tuple(written) == plan.ids[: len(written)]


@pytest.mark.parametrize("name", REFUSED)
def test_other_models_are_refused_by_every_command_in_one_line(
    folder_of: Any, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
):
    folder = str(folder_of(name))
    commands = [
        ("memory", "--model", folder), ("train", "--model", folder, "--out", tmp_path / "run", "--iterations", 1),
        ("sft", "--model", folder, "--out", tmp_path / "warm", "--levels", "warmup/train"),
        ("evaluate", folder, "--limit", 1),
    ]  # fmt: skip
    capsys.readouterr()
    for argv in commands:
        assert cli.main([*map(str, argv)]) == 2
        line = error_line(capsys)
        assert VERDICTS[name].removeprefix("refused: ") in line, argv
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "warm").exists()


# The proof itself: it finds what the code in its way would have prevented.


@pytest.mark.parametrize("name", ["BERT", "LFM2", "Mamba"])
def test_the_proof_refuses_kinds_that_nobody_has_listed(folder_of: Any, monkeypatch: Any, name: str):
    monkeypatch.setattr(loading, "refuse_kind", lambda *_: None)
    with pytest.raises(ModelError, match=r"cannot be used|cannot load") as error:
        zoo.load(folder_of(name))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["Mistral, sliding window", "Gemma 3", "Phi-3, sliding window"])
def test_the_proof_sees_a_window_that_is_measured_in_columns(folder_of: Any, monkeypatch: Any, name: str):
    monkeypatch.setattr(decoding, "attention_of", lambda model, mask, columns: mask)
    with pytest.raises(ModelError, match="log-probabilities of decoding in a batch and of one forward pass differ by"):
        zoo.load(folder_of(name))


@pytest.mark.parametrize("name", ["OPT", "GPT-2", "GPT-NeoX"])
def test_the_proof_sees_dropout(folder_of: Any, monkeypatch: Any, name: str):
    monkeypatch.setattr(loading, "without_dropout", lambda config: None)
    with pytest.raises(ModelError, match="differ by"):
        zoo.load(folder_of(name))


def test_the_proof_leaves_the_window_as_it_was(folder_of: Any):
    policy = zoo.load(folder_of("Mistral, sliding window"))
    models = (policy.twin, policy.reference, policy.peft_model.get_base_model())
    assert {m.config.sliding_window for m in models} == {zoo.WINDOW}


def test_static_decoding_keeps_the_window(folder_of: Any):
    policy = zoo.load(folder_of("Gemma 3"), static_cache="on")
    batch = zoo.played(policy)
    assert policy.static is not None
    assert not policy.static.refused
    assert zoo.difference(policy, batch) <= 1e-4


# Positions, tokenizers, folders


def test_a_sequence_longer_than_the_positions_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = zoo.make(tmp_path / "short", "GPT-2", positions=256)
    capsys.readouterr()
    assert cli.main(["evaluate", str(folder), "--limit", "1"]) == 2
    assert "has positions for 256 tokens" in error_line(capsys)
    assert cli.main(["memory", "--model", str(folder)]) == 2
    assert "has positions for 256 tokens" in error_line(capsys)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused_when_it_uses_them(folder_of: Any, tmp_path: Path):
    import shutil

    from transformers import AutoTokenizer

    shutil.copytree(folder_of("Llama"), tmp_path / "more")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "more")
    tokenizer.add_tokens(["<extra>"])
    tokenizer.save_pretrained(tmp_path / "more")
    policy = zoo.load(tmp_path / "more")  # an unused token does no harm
    assert zoo.difference(policy, zoo.played(policy)) <= 1e-4
    with pytest.raises(ModelError, match="'<extra>' as number"):
        policy.encode("a <extra>")
    tokenizer.add_special_tokens({"pad_token": "<extra>"})
    tokenizer.save_pretrained(tmp_path / "more")
    with pytest.raises(ModelError, match="does not fit its model"):
        zoo.load(tmp_path / "more")


def test_a_folder_without_a_tokenizer_and_an_adapters_folder_are_named(
    folder_of: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    import shutil

    shutil.copytree(folder_of("Llama"), tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*", "chat*"))
    policy: Policy = zoo.load(folder_of("Llama"))
    policy.peft_model.save_pretrained(tmp_path / "warm")
    capsys.readouterr()
    for folder, said in (("bare", "has no tokenizer"), ("warm", "is an adapter and not a model")):
        for argv in (("evaluate", tmp_path / folder), ("memory", "--model", tmp_path / folder)):
            assert cli.main([*map(str, argv)]) == 2
            assert said in error_line(capsys)
