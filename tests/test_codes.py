"""Spelling actions in any tokenizer, and a whole iteration with a model that is not ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from himac_lite import cli
from himac_lite.codes import Codes, spell
from himac_lite.errors import ModelError
from himac_lite.tasks.sokoban import SokobanTask

WORDS = {"\n": 1, "up": 2, "down": 3, "left": 4, "right": 5, "<sub_done>": 6, "wards": 7, "<end>": 8}


def encode(text: str) -> list[int]:
    """Longest word first; 0 is unknown."""
    ids = []
    while text:
        word = next((w for w in sorted(WORDS, key=len, reverse=True) if text.startswith(w)), text[0])
        ids.append(WORDS.get(word, 0))
        text = text[len(word) :]
    return ids


def spelled(eos: int | None = 9, **changes: Any) -> Codes:
    return spell(encode, SokobanTask(**changes), 0, eos, "toy")


def test_what_is_common_is_written_and_the_next_token_is_the_choice():
    # "\nup" is 1 2, "\ndown" is 1 3 …: the line break (1) is written for the model. <sub_done> has a token of its own.
    codes = spelled()
    assert codes == Codes((1,), {2: (0, ()), 3: (1, ()), 4: (2, ()), 5: (3, ())}, 6, 8)


def test_sub_done_without_a_token_of_its_own_is_spelled_on_a_line():
    # "\ndown wards" would be 1 3 7; "\nwardsup" is 1 7 2: the choice is 7.
    assert spelled(sub_done="wardsup").sub_done == 7


def test_what_follows_the_choice_is_forced():
    assert spelled(actions=("\nupwards", "\ndown")).actions == {2: (0, (7,)), 3: (1, ())}


def test_the_end_of_a_blueprint_falls_back_to_the_end_of_text():
    assert spelled(sub_done="\n<sub_done>", end="<fin>").end == 9
    with pytest.raises(ModelError, match="neither '<fin>' nor"):
        spelled(eos=None, sub_done="\n<sub_done>", end="<fin>")


def test_actions_that_cannot_be_told_apart():
    with pytest.raises(ModelError, match="toy cannot tell"):
        spelled(actions=("\nup", "\nupwards"), sub_done="\n<sub_done>")
    with pytest.raises(ModelError, match="unknown text"):
        spelled(actions=("\nup", "\nsideways"), sub_done="\n<sub_done>")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2 with fresh weights and a byte-level BPE tokenizer that has never heard of <sub_done>."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    bpe = ByteLevelBPETokenizer()
    text = "up down left right push the box at (2,3) to (2,5)\n#### $ . @ * + moved pushed blocked"
    bpe.train_from_iterator([text] * 20, vocab_size=320, min_frequency=2)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer)
    tokenizer.add_special_tokens({"eos_token": "<|endoftext|>"})
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("foreign")
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("variant", ["himac", "flat_grpo"])
def test_any_causal_lm_trains_by_the_same_command(
    foreign: Path, variant: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    settings = [
        "rollout.levels=2", "rollout.group=2", "rollout.max_steps=4", "rollout.progress_share=0.5", "test_limit=2",
        "validate_every=0",
    ]  # fmt: skip
    argv = ["train", "--model", str(foreign), "--variant", variant, "--iterations", "1", "--out", str(tmp_path / "run")]
    assert cli.main([*argv, "--json", *(a for s in settings for a in ("--set", s))]) == 0
    assert json.loads(capsys.readouterr().out)["trained"]["n"] == 2
