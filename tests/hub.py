"""Models as a hub has them, made on the spot: the architectures, a byte-level BPE, chat templates; random weights.

The templates are written here with the structure that the real ones have: what they put between two turns, what they do
without a system message, how thinking is switched off.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from himac_lite.tasks.sokoban.instructions import words
from himac_lite.tasks.sokoban.levels import parse_levels
from himac_lite.tasks.sokoban.rules import board_from_level
from himac_lite.types import Role, SubGoal

ROOT = Path(__file__).resolve().parents[1]

QWEN25 = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Old thoughts are cut out; thinking off is an empty thought in the prompt.
QWEN3 = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if '</think>' in m['content'] %}{{ m['content'].split('</think>')[-1].lstrip('\n') }}"
    "{% else %}{{ m['content'] }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
# Contents are trimmed; a system header with the date is always there; the day is today's if none is given.
LLAMA3 = (
    "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] | trim %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "{{ bos_token }}<|start_header_id|>system<|end_header_id|>\n\nToday Date: {{ date_string }}\n\n"
    "{{ system }}<|eot_id|>"
    "{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n{{ m['content'] | trim }}<|eot_id|>"
    "{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n{{ m['content'] | trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)

FAMILIES: dict[str, dict[str, Any]] = {
    "qwen2.5": {
        "template": QWEN25, "eos": "<|im_end|>", "pad": "<|endoftext|>", "bos": None,
        "tokens": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], "plain": [],
    },
    "qwen3": {
        "template": QWEN3, "eos": "<|im_end|>", "pad": "<|endoftext|>", "bos": None,
        "tokens": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], "plain": ["<think>", "</think>"],
    },
    "llama3": {
        "template": LLAMA3, "eos": "<|eot_id|>", "pad": None, "bos": "<|begin_of_text|>",
        "tokens": ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"], "plain": [],
    },
    "gemma": {
        "template": GEMMA, "eos": "<eos>", "pad": "<pad>", "bos": "<bos>",
        "tokens": ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"], "plain": [],
    },
}  # fmt: skip


@cache
def _merges(vocab_size: int) -> str:
    """A byte-level BPE (as JSON) learnt from pages that do not change and from what Sokoban's roles say."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    texts = [(ROOT / "LICENSE").read_text("utf-8")]
    board = board_from_level(parse_levels("#####\n#@$.#\n#####")[0])
    said = [
        words(role, board, SubGoal("push the box at (2,3) right to (2,5)"))
        for role in (Role.PLANNER, Role.EXECUTOR, Role.FLAT)
    ]
    texts += [f"{w.rules}\n{w.situation}\n" for w in said] * 20
    texts += ["up down left right moved pushed blocked push the box at (2,3) right to (2,5)\n"] * 40
    bpe = Tokenizer(models.BPE())
    # As Qwen's: words with their space, single digits, runs of other signs.
    split = Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(split, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
        ),
    )
    return str(bpe.to_str())


def make_tokenizer(family: str, template: bool = True, vocab_size: int = 1000) -> Any:
    """The tokenizer of a family: its special tokens and, unless `template` is false, its chat template."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    made = FAMILIES[family]
    named = {f"{kind}_token": made[kind] for kind in ("bos", "eos", "pad") if made[kind]}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(_merges(vocab_size)), **named)
    tokenizer.add_special_tokens({"additional_special_tokens": made["tokens"]})
    tokenizer.add_tokens(made["plain"])  # known, but not special: as Qwen3 has them
    if template:
        tokenizer.chat_template = made["template"]
    return tokenizer


def make_model(family: str, tokenizer: Any, width: int = 64) -> Any:
    """The family's architecture, two layers, random weights from a fixed seed."""
    import torch
    import transformers

    shape: dict[str, Any] = {
        "vocab_size": len(tokenizer), "hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096,
        "tie_word_embeddings": True, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    kind = {"qwen2.5": "Qwen2", "qwen3": "Qwen3", "llama3": "Llama", "gemma": "Gemma"}[family]
    if kind in ("Qwen3", "Gemma"):
        shape["head_dim"] = 32
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**shape)
    model = getattr(transformers, f"{kind}ForCausalLM")(config)
    with torch.no_grad():  # as drawn they allow logits below 1.3 only: nothing could be learnt with them frozen
        model.get_input_embeddings().weight.mul_(10)
    return model


def make_hub(folder: Path, family: str, template: bool = True) -> Path:
    """A folder as a hub would have it: config, safetensors, tokenizer with its template."""
    tokenizer = make_tokenizer(family, template)
    make_model(family, tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


SEES = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for part in m['content'] %}{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_seeing(folder: Path) -> Path:
    """A Qwen2.5-VL of two layers and two vision blocks, random weights; its image processor and template."""
    import torch
    from transformers import AutoImageProcessor, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    tokenizer = make_tokenizer("qwen2.5")
    marks = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": [*FAMILIES["qwen2.5"]["tokens"], *marks]})
    tokenizer.chat_template = SEES
    start, end, image, video = tokenizer.convert_tokens_to_ids(marks)
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "eos_token_id": tokenizer.eos_token_id,
            "bos_token_id": None, "pad_token_id": tokenizer.pad_token_id, "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
        },
        vision_config={
            "depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 4, "out_hidden_size": 64,
            "fullatt_block_indexes": [1], "window_size": 112,
        },
        image_token_id=image, video_token_id=video, vision_start_token_id=start, vision_end_token_id=end,
        tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    Qwen2VLImageProcessorPil().save_pretrained(folder)
    AutoImageProcessor.from_pretrained(folder)
    return folder
