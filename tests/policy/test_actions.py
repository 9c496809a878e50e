"""Spelling actions in any tokenizer, and a whole iteration with a model that is not ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from himac_lite import cli
from himac_lite.errors import ModelError
from himac_lite.policy.actions import Choice, Codes, Reader, spell
from himac_lite.tasks.sokoban.task import SokobanTask

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


def test_a_chosen_token_is_read_as_its_action():
    reader = Reader(spelled(), SokobanTask(), encode, lambda ids: "", 1)
    assert reader.read(0, 5) == Choice(3)
    assert reader.read(0, 6) == Choice(None)
    assert spelled().allowed(True) == [2, 3, 4, 5, 6]
    assert spelled().allowed(False) == [2, 3, 4, 5]  # flat play has no sub-goal to end


def written(decode: dict[int, str], **changes: Any) -> Reader:
    """Two rows of a task whose actions are lines of text; 1 is the line break, 8 the end of text."""
    task = SokobanTask(actions=(), max_action_tokens=4, **changes)
    codes = spell(encode, task, 0, 9, "toy")
    assert codes.allowed(True) is None
    return Reader(codes, task, encode, lambda ids: "".join(decode[i] for i in ids), 2)


def test_a_written_action_is_a_line():
    reader = written({1: "\n", 2: "up", 7: "wards", 5: "right]\n\n"})
    assert [reader.read(0, token) for token in (2, 7)] == [None, None]
    assert reader.read(1, 2) is None  # another row writes at the same time
    assert reader.read(0, 1) == Choice("upwards")
    assert reader.read(1, 5) == Choice("upright]")  # a tokenizer may put the line break into a longer token
    assert reader.read(0, 1) == Choice("")  # an empty line is an action, which the environment answers


def test_a_written_action_ends_with_the_text_or_where_it_is_too_long():
    reader = written({2: "up"})
    assert (reader.read(0, 2), reader.read(0, 8)) == (None, Choice("up", (1,)))  # the line break is written for it
    assert [reader.read(0, 2) for _ in range(4)] == [None, None, None, Choice("upupupup", (1,))]


def test_sub_done_as_a_token_or_as_a_line():
    reader = written({2: "up", 6: "<sub_done>", 1: "\n"})
    assert reader.read(0, 6) == Choice(None)
    assert [reader.read(0, token) for token in (2, 6, 1)] == [None, None, Choice("up<sub_done>")]
    spelled_out = written({2: "up", 7: "wards", 1: "\n"}, sub_done="upwards")  # two tokens: no one of them says it
    assert [spelled_out.read(0, token) for token in (2, 7, 1)] == [None, None, Choice(None)]


def test_actions_that_cannot_be_told_apart():
    with pytest.raises(ModelError, match="toy cannot distinguish"):
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
