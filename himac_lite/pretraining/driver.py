"""Make the base model of a task: a small Hugging Face checkpoint from the demonstrations of its recipe alone.

The stages of a recipe lead from competence to half-competence. Experts come first, at a constant learning rate. Later
stages have beginners among the players, let the learning rate fall to zero and compute with every linear layer's NF4
round trip (straight-through), so that the 4-bit model is the one that was trained.

Departures from a plain pretraining: the loss counts only what the model itself would choose (blueprints, actions,
``<sub_done>``); weights of hidden layers are trained by Muon (https://kellerjordan.github.io/posts/muon), the rest by
AdamW.
"""

from __future__ import annotations

import json
import queue
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from himac_lite.config import Train, as_dict
from himac_lite.errors import ConfigError, RunError, TaskError
from himac_lite.policy.adapter import read_state, write_state
from himac_lite.policy.loading import load_policy
from himac_lite.policy.parallel import map_in_order, one_thread_a_worker, summed_gradients
from himac_lite.policy.products import RoundedLinear, precision_here, round_again, round_products
from himac_lite.pretraining import Batch, Recipe, alfworld, sokoban, webshop
from himac_lite.rollout import evaluate as evaluation
from himac_lite.settings import BFLOAT16, FLOAT32, PRECISIONS, Pretrain
from himac_lite.tasks import marks
from himac_lite.tasks.registry import for_task, load_items, task_of
from himac_lite.tasks.sokoban import language

RECIPES = {recipe.task: recipe for recipe in (sokoban.RECIPE, webshop.RECIPE, alfworld.RECIPE)}


def recipe_of(task: str) -> Recipe:
    """The recipe of a task. Raises `ConfigError` that lists the tasks."""
    if task not in RECIPES:
        raise ConfigError(f"no base model is made for task {task!r}; choose one of {', '.join(RECIPES)}")
    return RECIPES[task]


def batches_of(recipe: Recipe, settings: Pretrain, number: int) -> Iterator[Batch]:
    """The batches of stage `number`, from the first, without end."""
    return recipe.batches(settings, number, _tokenizer(recipe, settings.seed))


@lru_cache(maxsize=4)
def _tokenizer(recipe: Recipe, seed: int) -> Any:
    return recipe.tokenizer(seed)


def make_model(settings: Pretrain, tokenizer: Any = None, positions: int = 512, rope_theta: float = 1000.0) -> Any:
    """A Llama of the configured size with fresh weights. tokenizer: Sokoban's vocabulary by default."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(settings.seed)
    size = len(tokenizer) if tokenizer else len(language.vocabulary())
    end = tokenizer.eos_token_id if tokenizer else language.vocabulary().index(marks.END)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=-(-size // 64) * 64, hidden_size=settings.width,
            intermediate_size=settings.inner or 3 * settings.width,
            num_hidden_layers=settings.layers, num_attention_heads=settings.heads, num_key_value_heads=settings.heads,
            max_position_embeddings=positions, tie_word_embeddings=True, rope_theta=rope_theta,
            attn_implementation="sdpa", pad_token_id=0, eos_token_id=end, bos_token_id=None,
        )
    )  # fmt: skip


# One stage


NF4_LEVELS = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip


def through_nf4(weight: torch.Tensor) -> torch.Tensor:
    """A weight's NF4 round trip (blocks of 64, absolute maximum, as in bitsandbytes)."""
    levels = torch.tensor(NF4_LEVELS)
    blocks = weight.view(-1, 64)
    scale = blocks.abs().amax(1, keepdim=True).clamp_min(1e-12)
    return (levels[torch.bucketize(blocks / scale, (levels[1:] + levels[:-1]) / 2)] * scale).view_as(weight)


def demonstration_loss(model: Any, ids: torch.Tensor, learn: torch.Tensor) -> torch.Tensor:
    """Σ −log p of the tokens to learn: ids int64 [B, T], learn bool [B, T] → float []."""
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    chosen = learn[:, 1:]
    return cross_entropy(model.lm_head(hidden[chosen]), ids[:, 1:][chosen], reduction="sum")


class Training:
    """Stage `number` of a recipe on a model: `masters`, the weights that learn, by name, and their optimizers.

    The model computes with a copy of the masters, in settled stages with their NF4 round trip; its gradient goes
    straight through to the masters.
    """

    def __init__(self, model: Any, recipe: Recipe, settings: Pretrain, number: int) -> None:
        self.model, self.recipe, self.settings, self.number = model, recipe, settings, number
        self.stage = recipe.stages[number]
        self.steps: int = getattr(settings, self.stage.steps)
        self.done = 0
        self.masters = {name: p.detach().clone() for name, p in model.named_parameters()}
        kinds = torch.nn.Linear, RoundedLinear
        self.linears = {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, kinds)} - {"lm_head.weight"}
        self.precision = precision_here(settings.precision)
        if self.precision == BFLOAT16:
            round_products(model, self.linears)
        hidden = [p for name, p in self.masters.items() if name in self.linears]
        rest = [p for name, p in self.masters.items() if name not in self.linears]
        muon, adam = settings.lr_muon * self.stage.rate, settings.lr_adam * self.stage.rate
        # One Muon a matrix, so that they can step side by side: it takes as long as the products of half a batch.
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon([p], lr=muon, momentum=0.95, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
            for p in hidden
        ]
        self.optimizers.append(torch.optim.AdamW(rest, lr=adam, betas=(0.9, 0.95), weight_decay=0.0))
        self.rates = [muon] * len(hidden) + [adam]

    def run(self, on_step: Callable[[int, float, float], None], keep: Path | None = None, every: int = 100) -> None:
        """Train to the last step; calls `on_step(number, running loss, tokens a second)` after each.

        keep: a file for the state, written every so many steps. Training resumes from an existing one.
        """
        if keep is not None and keep.exists():
            self._load(keep)
        source = batches_of(self.recipe, self.settings, self.number)
        if self.done < self.steps:
            for _ in range(self.done):  # drawing them again is faster than keeping them
                next(source)
        source, start, tokens, running = _ahead(source), time.monotonic(), 0, 0.0
        while self.done < self.steps:
            ids, learn = next(source)
            loss = self.step(ids, learn)
            tokens += ids.size
            running = 0.98 * running + 0.02 * loss if running else loss
            on_step(self.done, running, tokens / (time.monotonic() - start))
            if keep is not None and (self.done % every == 0 or self.done == self.steps):
                write_state(keep, self.optimizers, self.masters, {"done": str(self.done), "precision": self.precision})
        self._show(self.masters)

    def step(self, ids: np.ndarray, learn: np.ndarray) -> float:
        """One batch (ids [B, T], learn [B, T]) → one step of every optimizer; returns the loss."""
        settled = self.stage.settled
        factor = 1 - self.done / self.steps if settled else min(1.0, (self.done + 1) / 100)
        for optimizer, rate in zip(self.optimizers, self.rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * factor
        self._show({n: through_nf4(p) if settled and n in self.linears else p for n, p in self.masters.items()})
        rows, learnt = max(1, self.settings.micro_tokens // ids.shape[1]), int(learn[:, 1:].sum())
        cuts = range(0, len(ids), rows)
        parts = [(torch.from_numpy(ids[i : i + rows]), torch.from_numpy(learn[i : i + rows])) for i in cuts]
        loss, gradients = summed_gradients(
            lambda part: demonstration_loss(self.model, *part) / learnt, parts, list(self.model.parameters())
        )
        for master, gradient in zip(self.masters.values(), gradients, strict=True):
            master.grad = gradient
        torch.nn.utils.clip_grad_norm_(self.masters.values(), 1.0)
        for _ in map_in_order(lambda optimizer: optimizer.step(), self.optimizers):
            pass
        self.done += 1
        return loss

    def _show(self, weights: Mapping[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, p in self.model.named_parameters():
                p.copy_(weights[name])
            round_again(self.model)

    def _load(self, file: Path) -> None:
        """Raises `RunError` for a state that is damaged, or of another model, recipe or version."""
        try:
            about = read_state(file, self.optimizers, self.masters)
            done, before = about.get("done", ""), about.get("precision", FLOAT32)
            if not done.isdecimal() or not 0 < int(done) <= self.steps:
                raise RunError(f"{file} has {done[:20] or 'no'} steps, this stage {self.steps}")
            if before != self.precision:
                raise RunError(f"{file} was begun with precision={before[:20]}; set that")
        except RunError as error:
            raise RunError(
                f"cannot resume: {error}; delete it to repeat this stage, or {file.parent.parent} to start again"
            ) from None
        self.done = int(done)


def _ahead(source: Iterator[Any], depth: int = 4) -> Iterator[Any]:
    """The same items, made by a thread while the model trains."""
    box: queue.Queue[Any] = queue.Queue(depth)

    def work() -> None:
        for item in source:
            box.put(item)

    threading.Thread(target=work, daemon=True).start()
    while True:
        yield box.get()


# All stages


def pretrain(
    recipe: Recipe | str, settings: Pretrain, out: Path, say: Callable[[str], None] = print
) -> dict[str, float]:
    """All stages of a recipe, the checkpoint, and its card with the scores, which are returned.

    Until the end, the state of each stage is kept in `out`/unfinished every hundred batches: after an interruption the
    same call resumes from there, to the same result.
    """
    one_thread_a_worker()
    if settings.precision not in PRECISIONS:
        raise ConfigError(f"precision must be one of {', '.join(PRECISIONS)}, not {settings.precision!r}")
    settings = replace(settings, precision=precision_here(settings.precision))
    recipe = recipe_of(recipe) if isinstance(recipe, str) else recipe
    tokenizer = _tokenizer(recipe, settings.seed)
    model = make_model(settings, tokenizer, recipe.positions, recipe.rope_theta)
    kept = out / "unfinished" / str(settings.seed)
    kept.mkdir(parents=True, exist_ok=True)
    for number, stage in enumerate(recipe.stages):
        training = Training(model, recipe, settings, number)  # starts with the weights that the last stage left
        progress = f"{stage.name} {{}}/{training.steps}: loss {{:.4f}}, {{:.0f}} tokens/s"

        def report(done: int, loss: float, rate: float, steps: int = training.steps, line: str = progress) -> None:
            if done % 50 == 0 or done == steps:
                say(line.format(done, loss, rate))

        training.run(report, kept / f"{stage.name.replace(' ', '-')}-{training.steps}.safetensors")
    model.half().save_pretrained(str(out))
    tokenizer.save_pretrained(str(out))
    found = measured(recipe, out)
    record = {"task": recipe.task, "config": as_dict(settings), "stages": [as_dict(stage) for stage in recipe.stages]}
    (out / "pretrain.json").write_text(json.dumps({**record, "validation": found}, indent=1) + "\n", "utf-8")
    (out / "README.md").write_text(card(recipe, settings, found, model.num_parameters()), "utf-8")
    shutil.rmtree(out / "unfinished")
    say(json.dumps(found))
    return found


def measured(recipe: Recipe, model: Path) -> dict[str, float]:
    """`evaluation.profile` of a checkpoint on validation items; empty without the task's engine."""
    settings = for_task(Train(), recipe.task)
    if not recipe.validation:
        return {}
    try:
        items = load_items(recipe.task, settings.validation_levels, "validation")[: recipe.validation]
    except TaskError:  # a model can be made without the engine, but not measured
        return {}
    task = task_of(recipe.task, settings.rollout.max_steps, settings.rollout.subgoal_budget)
    return evaluation.profile(load_policy(str(model)), task, items, n=recipe.samples)


def card(recipe: Recipe, settings: Pretrain, found: Mapping[str, float], parameters: int) -> str:
    """The model card: how the model was made, what it is for, what it scores."""
    rows = "\n".join(f"| {name} | {100 * value:.1f} % |" for name, value in found.items()) or "| not measured | |"
    stages = ", ".join(f"{getattr(settings, stage.steps)} ({stage.name})" for stage in recipe.stages)
    return f"""---
library_name: transformers
license: mit
---
# {recipe.task}-base: half-competent, with two roles

A Llama of {parameters / 1e6:.2f}M parameters ({settings.layers} layers, width {settings.width}) with its own tokenizer.
`himac-lite pretrain --task {recipe.task} --seed {settings.seed}` made it from scripted demonstrations alone.
{recipe.about}
Batches: {stages}; the last {sum(stage.settled for stage in recipe.stages)} seen through NF4.

It is a starting point for reinforcement learning, not a good player: good and bad blueprints are both in its
distribution.

Measured in 4 bit on at most {recipe.validation} validation items (`pretrain.json` has the settings):

| | |
|---|---|
{rows}
"""
