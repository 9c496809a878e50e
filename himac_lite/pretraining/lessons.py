"""Demonstrations of text-action tasks: what scripted players read and do, as token sequences to pretrain on.

A lesson is in the formats of `tasks.text`, so a base model knows planner, executor and flat play. Players are of mixed
quality: experts beside beginners who make mistakes, so that reinforcement learning has good and bad ways to choose
from.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from himac_lite.pretraining import Batch, Recipe, Stage
from himac_lite.pretraining.tokenizers import build_text_tokenizer
from himac_lite.settings import Pretrain
from himac_lite.tasks.marks import END, SUB_DONE
from himac_lite.tasks.text import CUE, prompt, shown
from himac_lite.types import Role, SubGoal

POOL = 300_000
"""Tokens that are sorted by length at a time, at least."""
BUCKET = 64
"""Lengths are padded to a multiple of this."""
LONGEST = 1024
"""Tokens of a lesson; longer ones are skipped."""


@dataclass(frozen=True)
class Lesson:
    """One training sequence as pieces of text; the loss counts the pieces that are marked."""

    role: Role
    pieces: tuple[tuple[str, bool], ...]

    @property
    def text(self) -> str:
        return "".join(text for text, _ in self.pieces)


@dataclass(frozen=True)
class Step:
    """One action and the observation after it; `learn`: whether the loss counts the action."""

    action: str
    seen: str
    learn: bool = True


@dataclass(frozen=True)
class Players:
    """Who demonstrates in a stage, and what of."""

    sloppiness: float = 0.0
    """Share of beginners."""
    unknown: float = 0.0
    """Share of lessons whose product numbers are new (WebShop)."""
    drill: float = 0.0
    """Share of houses that are for a glance only (ALFWorld, see `alfworld.errand`)."""


def plan_lesson(observation: str, subgoals: Sequence[str]) -> Lesson:
    """A blueprint for what the planner sees."""
    lines = "".join(f"\n{goal}" for goal in subgoals)
    return Lesson(Role.PLANNER, ((prompt(Role.PLANNER, observation), False), (lines + END, True)))


def play_lesson(
    role: Role, observation: str, steps: Sequence[Step], subgoal: str = "", sub_done: bool = False
) -> Lesson:
    """A segment (`role` executor, with its sub-goal) or flat play. sub_done: the player ends it."""
    pieces = [(prompt(role, observation, SubGoal(subgoal) if subgoal else None), False)]
    for i, step in enumerate(steps):
        pieces.append((f" {step.action}\n", step.learn))
        if sub_done or i < len(steps) - 1:  # nothing is read after the end of the episode
            pieces.append((f"{shown(step.seen)}{CUE}", False))
    if sub_done:
        pieces.append((SUB_DONE, True))
    return Lesson(role, tuple(pieces))


def tokens(lesson: Lesson, encode: Callable[[str], list[int]]) -> tuple[list[int], list[bool]]:
    """(ids, learn) of a lesson: every piece is encoded on its own, as in a rollout."""
    ids: list[int] = []
    learn: list[bool] = []
    for text, counts in lesson.pieces:
        own = encode(text)
        ids += own
        learn += [counts] * len(own)
    return ids, learn


def lesson_batches(
    lessons: Iterator[Lesson], encode: Callable[[str], list[int]], batch_tokens: int, rng: np.random.Generator,
    reading: float = 0.0,
) -> Iterator[Batch]:  # fmt: skip
    """Batches of about `batch_tokens` tokens, of similar length, padded with 0.

    Every lesson of a pool is used once. The pool is large, because the rest of each length makes a small batch.
    reading: share of batches in which every token is learnt, the environment's too: pages repeat each other word for
    word, which teaches to copy long before the few tokens of actions do.
    """
    while True:
        pool: dict[int, list[tuple[list[int], list[bool]]]] = {}
        held = 0
        while held < max(8 * batch_tokens, POOL):
            ids, learn = tokens(next(lessons), encode)
            if len(ids) <= LONGEST and any(learn[1:]):
                width = -(-len(ids) // BUCKET) * BUCKET
                pool.setdefault(width, []).append((ids, learn))
                held += width
        made = []
        for width, rows in sorted(pool.items()):
            count = max(1, batch_tokens // width)
            made += [padded(rows[i : i + count], width) for i in range(0, len(rows), count)]
        for i in rng.permutation(len(made)):
            ids, learn = made[i]
            yield ids, ids != 0 if reading and rng.random() < reading else learn


def padded(rows: Sequence[tuple[Sequence[int], Sequence[bool]]], width: int) -> Batch:
    """(ids, learn) of each row, padded on the right with 0 and false."""
    ids, learn = np.zeros((len(rows), width), np.int64), np.zeros((len(rows), width), bool)
    for i, (own, counts) in enumerate(rows):
        ids[i, : len(own)], learn[i, : len(counts)] = own, counts
    return ids, learn


def text_recipe(
    lessons: Callable[[np.random.Generator, Players], Iterator[Lesson]], stages: tuple[Stage, ...], readers: Players,
    vocabulary: int, **fields: Any,
) -> Recipe:  # fmt: skip
    """The recipe of a text-action task.

    lessons: (generator, players of a stage) → lessons without end. readers: the players whose first 3,000 lessons the
    tokenizer is learnt from. vocabulary: tokens, a multiple of 64; enough to make a token of every word of the task.
    """

    def tokenizer(seed: int) -> Any:
        first = itertools.islice(lessons(np.random.default_rng([seed, 99]), readers), 3000)
        return build_text_tokenizer((lesson.text for lesson in first), vocabulary)

    def batches(settings: Pretrain, number: int, tokenizer: Any) -> Iterator[Batch]:
        rng, stage = np.random.default_rng([settings.seed, number]), stages[number]
        source = lessons(rng, stage.players)
        return lesson_batches(source, _cached(tokenizer), settings.batch_tokens, rng, stage.reading)

    return Recipe(
        stages=stages, tokenizer=tokenizer, batches=batches, positions=4096, rope_theta=10_000.0, samples=4, **fields
    )


def _cached(tokenizer: Any) -> Callable[[str], list[int]]:
    known: dict[str, list[int]] = {}

    def encode(text: str) -> list[int]:
        if text not in known:
            if len(known) > 50_000:
                known.clear()
            known[text] = list(tokenizer(text, add_special_tokens=False).input_ids)
        return known[text]

    return encode
