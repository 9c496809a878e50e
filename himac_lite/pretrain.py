"""Make the base model: a small Hugging Face checkpoint, from solver demonstrations only.

Three stages. The first is long and teaches competence: expert demonstrations, constant learning rate. The second
settles it: some novices among the demonstrators, learning rate down to zero, and every linear layer seen through NF4
(straight-through), so that the 4-bit model is the one that was trained. The third is short and makes a *half-competent*
model of it: bad habits in most demonstrations of long levels, at a third of the learning rate.

Departures from a plain pretraining: the loss counts only what the model would choose itself (blueprints, actions,
``<sub_done>``); every batch is under a random symmetry; weights of hidden layers are trained by Muon
(https://kellerjordan.github.io/posts/muon), the rest by AdamW.
"""

from __future__ import annotations

import itertools
import json
import queue
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from himac_lite import augment, demonstrations, evaluation, language
from himac_lite.config import Pretrain, as_dict
from himac_lite.demonstrations import EXPERT, Demonstration, Mixture
from himac_lite.loading import load_policy
from himac_lite.sokoban.levels import held_out_hashes, load_levels
from himac_lite.tasks.sokoban import SokobanTask
from himac_lite.tokenizer import build_tokenizer

_BUCKET = 16
"""Sequence lengths are padded to a multiple of this: few shapes to compile for, little waste."""


def make_model(config: Pretrain) -> Any:
    """A Llama of the configured size with fresh weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(config.seed)
    size = len(language.vocabulary())
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=-(-size // 64) * 64, hidden_size=config.width, intermediate_size=3 * config.width,
            num_hidden_layers=config.layers, num_attention_heads=config.heads, num_key_value_heads=config.heads,
            max_position_embeddings=512, tie_word_embeddings=True, rope_theta=1000.0, attn_implementation="eager",
            pad_token_id=0, eos_token_id=language.vocabulary().index(language.END), bos_token_id=None,
        )
    )  # fmt: skip


def batches(
    config: Pretrain, mixture: Mixture, seed: int, exclude: set[str]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches (ids [B, T], learn [B, T]) of about `config.batch_tokens` tokens, of similar length, right-padded."""
    rng = np.random.default_rng(np.random.SeedSequence([config.seed, seed]))
    source = demonstrations.stream(rng, mixture, config.noise, exclude)
    while True:
        pool = list(itertools.islice(source, 8 * config.batch_tokens // 80))
        pool.sort(key=lambda d: -(-len(d.ids) // _BUCKET))
        made = []
        while pool:
            length = -(-len(pool[0].ids) // _BUCKET) * _BUCKET
            count = max(1, config.batch_tokens // length)
            group = [d for d in pool[:count] if len(d.ids) <= length]
            pool = pool[len(group) :]
            if len(group) == count:  # rests are dropped, so that compiled shapes stay few
                made.append(_collate(group, length, rng))
        for i in rng.permutation(len(made)):
            yield made[i]


def _collate(group: list[Demonstration], length: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    ids = np.zeros((len(group), length), np.int64)
    learn = np.zeros((len(group), length), bool)
    for i, d in enumerate(group):
        ids[i, : len(d.ids)] = d.ids
        learn[i, : len(d.learn)] = d.learn
    symmetry = rng.integers(0, 8, len(group))
    for role, size in {(d.role, d.size) for d in group}:
        rows = np.array([d.role is role and d.size == size for d in group])
        ids[rows] = augment.apply_symmetry(ids[rows], role, size, symmetry[rows])
    return ids, learn


def _ahead(source: Iterator[Any], depth: int = 4) -> Iterator[Any]:
    """The same items, made by a thread while the model trains."""
    box: queue.Queue[Any] = queue.Queue(depth)

    def work() -> None:
        for item in source:
            box.put(item)

    threading.Thread(target=work, daemon=True).start()
    while True:
        yield box.get()


class FakeNF4(torch.nn.Module):
    """Weight → its NF4 round trip, gradient straight through (blocks of 64, absolute maximum, as bitsandbytes does)."""

    LEVELS = (
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
        -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
        0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    )  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        levels = torch.tensor(self.LEVELS)
        self.register_buffer("levels", levels)
        self.register_buffer("edges", (levels[1:] + levels[:-1]) / 2)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            blocks = weight.view(-1, 64)
            scale = blocks.abs().amax(1, keepdim=True).clamp_min(1e-12)
            rounded = self.levels[torch.bucketize(blocks / scale, self.edges)] * scale
        return weight + (rounded.view_as(weight) - weight).detach()


def _linears(model: Any) -> list[torch.nn.Linear]:
    return [m for name, m in model.named_modules() if isinstance(m, torch.nn.Linear) and "lm_head" not in name]


def run_stage(
    model: Any, config: Pretrain, mixture: Mixture, steps: int, seed: int, *, warm: bool, decay: bool, nf4: bool,
    on_step: Callable[[int, float, float], None],
) -> None:  # fmt: skip
    """Train in place for `steps` batches; calls `on_step(number, running loss, tokens a second)` after each."""
    from torch.nn.utils import parametrize

    if nf4:
        for layer in _linears(model):
            parametrize.register_parametrization(layer, "weight", FakeNF4())
    params = _linears(model)
    hidden = [m.parametrizations.weight.original if nf4 else m.weight for m in params]
    chosen = {id(p) for p in hidden}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    opts: list[torch.optim.Optimizer] = [
        torch.optim.Muon(hidden, lr=config.lr_muon, momentum=0.95, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=config.lr_adam, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]
    base_lr = [o.param_groups[0]["lr"] for o in opts]

    def loss_of(ids: torch.Tensor, learn: torch.Tensor) -> torch.Tensor:
        hidden_state = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
        logits = model.lm_head(hidden_state).float()
        token_loss = cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        return (token_loss * learn[:, 1:].flatten()).sum() / learn.sum()

    compiled = torch.compile(loss_of, dynamic=False) if config.compile else loss_of
    source = _ahead(batches(config, mixture, seed, held_out_hashes()))
    start, tokens, running, threads = time.monotonic(), 0, 0.0, torch.get_num_threads()
    for number in range(1, steps + 1):
        factor = min(1.0, number / 100) if warm else 1.0
        if decay:
            factor = 1 - (number - 1) / steps
        for opt, lr in zip(opts, base_lr, strict=True):
            opt.param_groups[0]["lr"] = lr * factor
        ids, learn = next(source)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=config.bf16):
            loss = compiled(torch.from_numpy(ids), torch.from_numpy(learn))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        torch.set_num_threads(1)  # Muon's hundreds of tiny products lose more by waiting for each other than they gain
        for opt in opts:
            opt.step()
            opt.zero_grad(set_to_none=True)
        torch.set_num_threads(threads)
        tokens += ids.size
        running = loss.item() if number == 1 else 0.98 * running + 0.02 * loss.item()
        on_step(number, running, tokens / (time.monotonic() - start))
    if nf4:
        for layer in _linears(model):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)


MIXED = Mixture(short=(0.8, 0.1, 0.05, 0.05), long=(0.33, 0.15, 0.37, 0.15), threshold=9, detours=0.05)
"""The demonstrators of the second stage."""
SLOPPY = Mixture(short=(0.8, 0.05, 0.1, 0.05), long=(0.34, 0.08, 0.48, 0.1), threshold=8, detours=0.05)
"""The demonstrators of the third stage; chosen on `core/validation` (docs/experiments.md)."""


def pretrain(config: Pretrain, out: Path, say: Callable[[str], None] = print) -> dict[str, float]:
    """All stages, the checkpoint, and its card with what it scores on core/validation.

    The first stage's weights are kept in `out`/stage1 until the end: run again after an interruption, it is not
    repeated.
    """
    from safetensors.torch import load_file, save_file

    def report(stage: str, steps: int) -> Callable[[int, float, float], None]:
        def on_step(number: int, loss: float, rate: float) -> None:
            if number % 50 == 0 or number == steps:
                say(f"{stage} {number}/{steps}: loss {loss:.4f}, {rate:.0f} tokens/s")

        return on_step

    model = make_model(config)
    kept = out / "stage1" / f"{config.seed}-{config.expert_steps}.safetensors"
    if kept.exists():
        model.load_state_dict(load_file(str(kept)), strict=False)
    else:
        run_stage(
            model, config, EXPERT, config.expert_steps, 0, warm=True, decay=False, nf4=False,
            on_step=report("expert demonstrations", config.expert_steps),
        )  # fmt: skip
        kept.parent.mkdir(parents=True, exist_ok=True)
        save_file({n: p.detach().clone() for n, p in model.named_parameters()}, str(kept))
    run_stage(
        model, config, MIXED, config.mixed_steps, 1, warm=False, decay=True, nf4=True,
        on_step=report("mixed demonstrations", config.mixed_steps),
    )  # fmt: skip
    run_stage(
        model, replace(config, lr_muon=config.lr_muon / 3, lr_adam=config.lr_adam / 3), SLOPPY, config.habit_steps, 2,
        warm=False, decay=True, nf4=True, on_step=report("bad habits", config.habit_steps),
    )  # fmt: skip
    save(model, out)
    found = evaluation.profile(load_policy(str(out)), SokobanTask(), load_levels("core/validation"))
    record = {"config": as_dict(config), "mixed": as_dict(MIXED), "sloppy": as_dict(SLOPPY), "core_validation": found}
    (out / "pretrain.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    (out / "README.md").write_text(card(config, found, sum(p.numel() for p in model.parameters())), "utf-8")
    shutil.rmtree(kept.parent)
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
