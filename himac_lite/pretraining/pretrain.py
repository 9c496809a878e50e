"""Make the base model: a small Hugging Face checkpoint, from solver demonstrations only.

Three stages. The first is long and teaches competence: expert demonstrations, constant learning rate. The second
settles it: some novices among the demonstrators, learning rate down to zero, and every linear layer seen through NF4
(straight-through), so that the 4-bit model is the one that was trained. The third is short and makes a *half-competent*
model of it: bad habits in most demonstrations of long levels, at a third of the learning rate.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from himac_lite.config import Pretrain, as_dict
from himac_lite.policy.loading import load_policy
from himac_lite.policy.parallel import one_thread_a_worker
from himac_lite.pretraining.sokoban import EXPERT, Mixture
from himac_lite.pretraining.stages import Stage
from himac_lite.pretraining.tokenizers import build_tokenizer
from himac_lite.rollout import evaluate as evaluation
from himac_lite.tasks import marks
from himac_lite.tasks.sokoban import language
from himac_lite.tasks.sokoban.levels import load_levels
from himac_lite.tasks.sokoban.task import SokobanTask


def make_model(config: Pretrain, tokenizer: Any = None, positions: int = 512, rope_theta: float = 1000.0) -> Any:
    """A Llama of the configured size with fresh weights. tokenizer: by default Sokoban's vocabulary is meant."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(config.seed)
    size = len(tokenizer) if tokenizer else len(language.vocabulary())
    end = tokenizer.eos_token_id if tokenizer else language.vocabulary().index(marks.END)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=-(-size // 64) * 64, hidden_size=config.width, intermediate_size=3 * config.width,
            num_hidden_layers=config.layers, num_attention_heads=config.heads, num_key_value_heads=config.heads,
            max_position_embeddings=positions, tie_word_embeddings=True, rope_theta=rope_theta,
            attn_implementation="sdpa", pad_token_id=0, eos_token_id=end, bos_token_id=None,
        )
    )  # fmt: skip


MIXED = Mixture(short=(0.8, 0.1, 0.05, 0.05), long=(0.33, 0.15, 0.37, 0.15), threshold=9, detours=0.05)
"""The demonstrators of the second stage."""
SLOPPY = Mixture(short=(0.8, 0.05, 0.1, 0.05), long=(0.40, 0.02, 0.54, 0.04), threshold=8, detours=0.05)
"""The demonstrators of the third stage; chosen on `core/validation` (docs/experiments.md)."""


def pretrain(config: Pretrain, out: Path, say: Callable[[str], None] = print) -> dict[str, float]:
    """All stages, the checkpoint, and its card with what it scores on core/validation.

    The state of each stage is kept in `out`/unfinished every hundred batches until the end: run again after an
    interruption, it goes on from there to the same result.
    """
    one_thread_a_worker()
    model = make_model(config)
    slow = replace(config, lr_muon=config.lr_muon / 3, lr_adam=config.lr_adam / 3)
    stages: tuple[tuple[str, Callable[[], Stage]], ...] = (
        ("expert demonstrations", lambda: Stage(model, config, EXPERT, config.expert_steps, 0, True, False, False)),
        ("mixed demonstrations", lambda: Stage(model, config, MIXED, config.mixed_steps, 1)),
        ("bad habits", lambda: Stage(model, slow, SLOPPY, config.habit_steps, 2)),
    )
    kept = out / "unfinished" / str(config.seed)
    kept.mkdir(parents=True, exist_ok=True)
    for name, make in stages:
        stage = make()  # begins with the weights that the stage before it left in the model

        def report(number: int, loss: float, rate: float, name: str = name, steps: int = stage.steps) -> None:
            if number % 50 == 0 or number == steps:
                say(f"{name} {number}/{steps}: loss {loss:.4f}, {rate:.0f} tokens/s")

        stage.run(report, kept / f"{name.replace(' ', '-')}-{stage.steps}.safetensors")
    save(model, out)
    found = evaluation.profile(load_policy(str(out)), SokobanTask(), load_levels("core/validation"))
    record = {"config": as_dict(config), "mixed": as_dict(MIXED), "sloppy": as_dict(SLOPPY), "core_validation": found}
    (out / "pretrain.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    (out / "README.md").write_text(card(config, found, sum(p.numel() for p in model.parameters())), "utf-8")
    shutil.rmtree(out / "unfinished")
    say(json.dumps(found))
    return found


def save(model: Any, out: Path) -> None:
    """A plain Hugging Face folder, in half precision: config, safetensors, tokenizer."""
    model.half().save_pretrained(str(out))
    build_tokenizer().save_pretrained(str(out))
    model.float()


def card(config: Pretrain, found: dict[str, float], parameters: int) -> str:
    """The model card: how it was made, what it is for, what it scores."""
    rows = "\n".join(f"| {name} | {100 * value:.1f} % |" for name, value in found.items())
    return f"""---
library_name: transformers
license: mit
---
# sokoban-base: a half-competent Sokoban player with two roles

A Llama of {parameters / 1e6:.2f}M parameters ({config.layers} layers, width {config.width}) with a tokenizer of its
own, made by `himac-lite pretrain --seed {config.seed}` from solver demonstrations alone: {config.expert_steps} batches
of expert blueprints, segments and flat play, then {config.mixed_steps} and {config.habit_steps} batches of mixed
quality seen through NF4. Levels are fresh random ones (7x7 with two boxes, a few 6x6 with one), never symmetric to a
validation or test level of this package.

It is meant as a starting point for reinforcement learning, not as a good player: its demonstrators were careful with
short levels and sloppy with long ones, so good and bad blueprints are all in its distribution.

Measured in 4 bit on all 512 levels of `core/validation` (`pretrain.json` has the settings):

| | |
|---|---|
{rows}

It knows boards up to 10x10 by its vocabulary, but was shown 7x7 and 6x6 only.
"""
