"""Make the base model of a task in plain words: a tokenizer and a small Llama, from scripted demonstrations only.

The stages are those of `pretrain`: competence from experts, then mixed quality with the learning rate down to zero and
every linear layer seen through NF4, then more beginners, so that a *half-competent* model is left, whose executor is
better than its planner. What is in validation or test is never demonstrated.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from himac_lite.config import BASES, Pretrain, Train, as_dict
from himac_lite.errors import ConfigError, TaskError
from himac_lite.policy.loading import load_policy
from himac_lite.policy.parallel import one_thread_a_worker
from himac_lite.pretraining.lessons import Lesson, batches
from himac_lite.pretraining.pretrain import make_model
from himac_lite.pretraining.sokoban import EXPERT
from himac_lite.pretraining.stages import Stage
from himac_lite.pretraining.tokenizers import build_text_tokenizer
from himac_lite.rollout import evaluate as evaluation
from himac_lite.tasks.registry import for_task, load_items, task_of


@dataclass(frozen=True)
class Part:
    """One stage of a recipe."""

    name: str
    steps: str
    """The field of `config.Pretrain` that says how many batches."""
    sloppiness: float
    """Share of beginners."""
    rate: float = 1.0
    """Times the learning rates of `config.Pretrain`."""
    unknown: float = 0.0
    """Share of lessons about products whose numbers are new, for a task that has such."""
    drill: float = 0.0
    """Share of lessons that are short and about one thing that is learnt late, for a task that has such."""
    reading: float = 0.0
    """Share of batches in which every token is learnt: it teaches to copy."""
    settled: bool = True
    """The learning rate goes down to zero, and linear layers are seen through NF4; else neither."""


PARTS = (
    Part("expert demonstrations", "expert_steps", 0.0, reading=0.5, settled=False),
    Part("mixed demonstrations", "mixed_steps", 0.45),
    Part("settling", "settle_steps", 0.35, 1 / 3),
    Part("bad habits", "habit_steps", 0.85, 0.6, 0.5),
)
"""Those of WebShop. Which product is meant is learnt with numbers that can be known by heart, to copy them after it.
With new numbers from the beginning neither was learnt (docs/experiments.md)."""


@dataclass(frozen=True)
class Recipe:
    """What a task's base model is made of."""

    lessons: Callable[[np.random.Generator, Part], Iterator[Lesson]]
    """(generator, stage) → demonstrations without end."""
    about: str
    vocabulary: int = 1536
    """Tokens; a multiple of 64. So many that every word of the task is one."""
    longest: int = 1024
    """Tokens of a demonstration; longer ones are left out."""
    positions: int = 4096
    """Tokens that the model can read."""
    parts: tuple[Part, ...] = PARTS
    """The stages, in order."""
    validation: int = 64
    """Validation items that the card is measured on."""


def recipe(task: str) -> Recipe:
    """The recipe of a task in plain words. Raises `ConfigError` for another."""
    if task == "webshop":
        from himac_lite.pretraining.webshop import lessons as shopping
        from himac_lite.tasks.webshop import task as webshop

        goals = [item for item in webshop.load("webshop/train") if isinstance(item, webshop.ShopGoal)]
        return Recipe(
            lambda rng, part: shopping(goals, rng, part.sloppiness, part.unknown),
            "goals in the generated catalogue of this package (`webshop/train`)",
        )
    if task == "alfworld":
        from himac_lite.pretraining.alfworld import lessons as housekeeping
        from himac_lite.tasks.alfworld import generator
        from himac_lite.tasks.alfworld.task import our_games

        held_out = {game.text for part in ("validation", "test") for game in our_games(part)}
        return Recipe(
            lambda rng, part: housekeeping(generator.stream(rng, held_out), rng, part.sloppiness, part.drill),
            "small household games of this package's generator, none of validation or test; they are not the ALFWorld "
            "benchmark",
            vocabulary=640,
            parts=(  # names are not told apart without their drill, and before the first stage it is forgotten again
                PARTS[0],
                Part("names", "drill_steps", 0.0, drill=1.0, settled=False),
                replace(PARTS[1], sloppiness=0.6, rate=1 / 2, drill=0.3),
                replace(PARTS[2], rate=1 / 2, drill=0.3),
                replace(PARTS[3], sloppiness=0.95, unknown=0.0, drill=0.3),
            ),
            validation=48,
        )
    words = ", ".join(name for name in BASES if name != "sokoban")
    raise ConfigError(f"no base model is made for task {task!r} from words; choose one of {words}")


def tokenizer_of(made: Recipe, seed: int, count: int = 3000) -> Any:
    """The tokenizer, learnt from the first demonstrations of a stream of its own."""
    rng = np.random.default_rng([seed, 99])
    mixed = next(part for part in made.parts if part.steps == "mixed_steps")
    lessons = made.lessons(rng, replace(mixed, drill=0.0))
    texts = (lesson.text for lesson in itertools.islice(lessons, count))
    return build_text_tokenizer(texts, made.vocabulary)


def pretrain_task(
    task: str, config: Pretrain, out: Path, say: Callable[[str], None] = print, items: int | None = None
) -> dict[str, float]:
    """All stages, the checkpoint, and its card with what it scores on so many validation items (0: not measured).

    Goes on after an interruption from the last hundred batches, as `pretrain.pretrain` does.
    """
    one_thread_a_worker()
    made = recipe(task)
    tokenizer = tokenizer_of(made, config.seed)
    model = make_model(config, tokenizer, made.positions, rope_theta=10_000.0)

    def source(number: int) -> Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]:
        def stream() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            rng = np.random.default_rng([config.seed, number])
            lessons = made.lessons(rng, made.parts[number])
            encode, part = _cached(tokenizer), made.parts[number]
            return batches(lessons, encode, config.batch_tokens, made.longest, rng, reading=part.reading)

        return stream

    def stage(number: int, part: Part) -> Stage:
        own = replace(config, lr_muon=config.lr_muon * part.rate, lr_adam=config.lr_adam * part.rate)
        steps, settled = getattr(config, part.steps), part.settled
        return Stage(model, own, EXPERT, steps, number, not settled, settled, settled, source(number))

    kept = out / "unfinished" / str(config.seed)
    kept.mkdir(parents=True, exist_ok=True)
    for at, part in enumerate(made.parts):
        now = stage(at, part)  # begins with the weights that the stage before it left in the model

        def report(number: int, loss: float, rate: float, name: str = part.name, steps: int = now.steps) -> None:
            if number % 50 == 0 or number == steps:
                say(f"{name} {number}/{steps}: loss {loss:.4f}, {rate:.0f} tokens/s")

        now.run(report, kept / f"{part.name.replace(' ', '-')}-{now.steps}.safetensors")
    model.half().save_pretrained(str(out))
    tokenizer.save_pretrained(str(out))
    made = made if items is None else replace(made, validation=items)
    found = measured(task, out, made.validation)
    record: dict[str, Any] = {"task": task, "config": as_dict(config), "stages": [as_dict(part) for part in made.parts]}
    record["validation"] = found
    (out / "pretrain.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    (out / "README.md").write_text(card(task, made, config, found, model.num_parameters()), "utf-8")
    shutil.rmtree(out / "unfinished")
    say(json.dumps(found))
    return found


def measured(task: str, model: Path, count: int) -> dict[str, float]:
    """`evaluation.profile` of a checkpoint on the first validation items; empty without the task's engine."""
    settings = for_task(Train(), task)
    if not count:
        return {}
    try:
        items = load_items(task, settings.validation_levels, "validation")[:count]
    except TaskError:  # without the task's engine a model can be made, and not measured
        return {}
    chosen = task_of(task, settings.rollout.max_steps, settings.rollout.subgoal_budget)
    return evaluation.profile(load_policy(str(model)), chosen, items, n=4)


def _cached(tokenizer: Any) -> Callable[[str], list[int]]:
    known: dict[str, list[int]] = {}

    def encode(text: str) -> list[int]:
        if text not in known:
            if len(known) > 50_000:
                known.clear()
            known[text] = list(tokenizer(text, add_special_tokens=False).input_ids)
        return known[text]

    return encode


def card(task: str, made: Recipe, config: Pretrain, found: dict[str, float], parameters: int) -> str:
    """The model card: how it was made, what it is for, what it scores."""
    rows = "\n".join(f"| {name} | {100 * value:.1f} % |" for name, value in found.items()) or "| not measured | |"
    stages = ", ".join(f"{getattr(config, part.steps)} ({part.name})" for part in made.parts)
    return f"""---
library_name: transformers
license: mit
---
# {task}-base: half-competent, with two roles

A Llama of {parameters / 1e6:.2f}M parameters ({config.layers} layers, width {config.width}) with a byte-level BPE of
its own, made by `himac-lite pretrain --task {task} --seed {config.seed}` from scripted demonstrations alone, of
{made.about}, in batches: {stages};
the last {sum(part.settled for part in made.parts)} seen through NF4.

It is meant as a starting point for reinforcement learning, not as a good player.

Measured in 4 bit on {made.validation} validation items (`pretrain.json` has the settings):

| | |
|---|---|
{rows}
"""
