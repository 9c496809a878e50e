"""A zoo of tiny causal language models, made from their config classes with random weights, and what they must do.

`python tests/policy/zoo.py` prints the table of docs/models.md: works, with the largest difference between the
log-probabilities of rollouts and of the update, or the line that refuses the model.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import hub
import numpy as np
import torch
from conftest import TOY_TEXT

from himac_lite.errors import ModelError
from himac_lite.policy.loading import LoraSettings, load_policy
from himac_lite.policy.model import Policy
from himac_lite.rollout.play import Arena
from himac_lite.tasks.sokoban.levels import parse_levels
from himac_lite.tasks.sokoban.task import SokobanTask
from himac_lite.types import Level, Sampling, TokenSequence

WINDOW = 48
"""Tokens of a sliding window: less than a prompt."""
TASK = SokobanTask(max_steps=4, subgoal_budget=3)
LEVELS: list[Level] = parse_levels(TOY_TEXT)


def shape(tokenizer: Any) -> dict[str, Any]:
    """The sizes that most configs name alike."""
    return {
        "vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.bos_token_id, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip


GROUPED = {"num_key_value_heads": 2, "head_dim": 16}
SLIDING = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
SMALL = {"n_embd": 64, "n_layer": 2, "n_head": 4}

WORK: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("Llama", GROUPED),
    "SmolLM (Llama, tied embeddings)": ("Llama", {**GROUPED, "tie_word_embeddings": True}),
    "Qwen2": ("Qwen2", {"num_key_value_heads": 2}),
    "Qwen3": ("Qwen3", GROUPED),
    "Mistral, sliding window": ("Mistral", {**GROUPED, "sliding_window": WINDOW}),
    "Gemma 2": ("Gemma2", {**GROUPED, **SLIDING, "query_pre_attn_scalar": 16}),
    "Gemma 3": ("Gemma3Text", {**GROUPED, **SLIDING, "query_pre_attn_scalar": 16}),
    "Phi-3, sliding window": ("Phi3", {"num_key_value_heads": 2, "sliding_window": WINDOW}),
    "OPT": ("OPT", {"ffn_dim": 128, "word_embed_proj_dim": 64, "dropout": 0.1}),
    "GPT-2": ("GPT2", SMALL),
    "GPT-NeoX": ("GPTNeoX", {"hidden_dropout": 0.1}),
}
"""Name → (config class, its own settings) of the models that must work."""

OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Mamba": ("Mamba", {"state_size": 4}),
    "T5": ("T5", {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4}),
    "BERT": ("Bert", {}),
    "Bloom": ("Bloom", {"n_layer": 2, "n_head": 4}),
    "Falcon": ("Falcon", {"alibi": False}),
    "Falcon, ALiBi": ("Falcon", {"alibi": True, "new_decoder_architecture": False}),
    "LFM2": ("Lfm2", {"num_key_value_heads": 2, "layer_types": ["conv", "full_attention"]}),
    "GPT-Neo": (
        "GPTNeo", {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 48}
    ),
}  # fmt: skip
"""The models that may be refused."""


NAMES = [*WORK, *OTHERS]


def make(folder: Path, name: str, positions: int = 4096) -> Path:
    """A folder as a hub would have it, of a model of the zoo."""
    import transformers

    kind, own = (WORK | OTHERS)[name]
    tokenizer = hub.make_tokenizer("qwen2.5")
    config_class = getattr(transformers, f"{kind}Config")
    if kind == "Lfm2":
        own = own | {"block_auto_adjust_ff_dim": False}
    config = config_class(**(shape(tokenizer) | own | {"max_position_embeddings": positions}))
    torch.manual_seed(0)
    classes = [
        f"{kind.removesuffix('Text')}{end}" for end in ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
    ]
    found = next(c for c in classes if hasattr(transformers, c))
    model = getattr(transformers, found)(config)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(10)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def load(folder: Path, **keywords: Any) -> Policy:
    """The policy with an adapter that is not zero."""
    policy = load_policy(str(folder), LoraSettings(4, 8), device="cpu", **keywords)
    draw = torch.Generator().manual_seed(7)
    for p in policy.trainable():
        p.data += 0.05 * torch.randn(p.shape, generator=draw)
    policy.changed()
    return policy


def played(policy: Policy) -> list[TokenSequence]:
    """Sampled sequences of flat play: several levels, groups with a shared prompt, rows of several lengths."""
    levels = [LEVELS[0], LEVELS[2], LEVELS[1], LEVELS[3]] * 3
    return [
        s for t in Arena(policy, TASK).play_flat(levels, Sampling(1.0, np.random.default_rng(0))) for s in t.segments
    ]


def difference(policy: Policy, batch: list[TokenSequence]) -> float:
    """The largest difference between log-probabilities of the rollout and of the update."""
    scores = policy.log_probs(batch)
    return float((scores.logp - scores.behaviour)[scores.mask].abs().max().detach())


def error_line(capsys: Any) -> str:
    """The one line that a command printed as its error."""
    lines = str(capsys.readouterr().err).strip().splitlines()
    assert [line for line in lines if line.startswith("himac-lite: ")] == lines[-1:]  # after a bar of progress
    return lines[-1]


@dataclass(frozen=True)
class Verdict:
    """difference: of a model that works, otherwise None with the line that refuses it."""

    difference: float | None
    line: str = ""


def judge(folder: Path) -> Verdict:
    try:
        found = max(difference(p, played(p)) for p in (load(folder), load(folder, checkpointing=True)))
    except ModelError as error:
        return Verdict(None, f"refused: {str(error).partition('cannot be used: ')[2] or error}")
    return Verdict(found)


def table(say: Callable[[str], None] = print) -> None:
    say("| model | verdict |\n|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(NAMES):
            found = judge(make(Path(folder) / str(number), name))
            say(f"| {name} | {found.line or f'works, {found.difference:.0e}'} |")


if __name__ == "__main__":
    table()
