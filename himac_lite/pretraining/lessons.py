"""Demonstrations of a task with written actions: what scripted players read and do, as sequences to pretrain on.

A lesson is in the formats of `tasks.text`, so a base model knows planner, executor and flat play. Players are of mixed
quality: an expert beside others who make a beginner's mistakes, so that reinforcement learning has good and bad ways to
choose from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from himac_lite.tasks.marks import END, SUB_DONE
from himac_lite.tasks.text import CUE, prompt, shown
from himac_lite.types import Role, SubGoal

POOL = 300_000
"""Tokens that are sorted by length at a time, at least."""


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
    """One action and what followed; `learn`: whether the loss counts the action."""

    action: str
    seen: str
    learn: bool = True


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
    """(ids, learn) of a lesson: every piece is encoded alone, as rollouts do it."""
    ids: list[int] = []
    learn: list[bool] = []
    for text, counts in lesson.pieces:
        own = encode(text)
        ids += own
        learn += [counts] * len(own)
    return ids, learn


def batches(
    lessons: Iterator[Lesson], encode: Callable[[str], list[int]], batch_tokens: int, longest: int,
    rng: np.random.Generator, bucket: int = 64, reading: float = 0.0,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:  # fmt: skip
    """Batches (ids [B, T], learn [B, T]) of about so many tokens, of similar length, right-padded with 0.

    Lessons of more than `longest` tokens are left out. Every lesson of a pool is used once: it is large, because what
    is left of a length makes a small batch.
    reading: share of batches in which every token is learnt, what the environment says too: pages repeat each other
    word for word, which teaches to copy long before the few tokens of actions do.
    """
    while True:
        pool: dict[int, list[tuple[list[int], list[bool]]]] = {}
        held = 0
        while held < max(8 * batch_tokens, POOL):
            ids, learn = tokens(next(lessons), encode)
            if len(ids) <= longest and any(learn[1:]):
                width = -(-len(ids) // bucket) * bucket
                pool.setdefault(width, []).append((ids, learn))
                held += width
        made = []
        for width, rows in sorted(pool.items()):
            count = max(1, batch_tokens // width)
            made += [_padded(rows[i : i + count], width) for i in range(0, len(rows), count)]
        for i in rng.permutation(len(made)):
            ids, learn = made[i]
            yield ids, ids != 0 if reading and rng.random() < reading else learn


def _padded(rows: Sequence[tuple[list[int], list[bool]]], width: int) -> tuple[np.ndarray, np.ndarray]:
    ids, learn = np.zeros((len(rows), width), np.int64), np.zeros((len(rows), width), bool)
    for i, (own, counts) in enumerate(rows):
        ids[i, : len(own)], learn[i, : len(counts)] = own, counts
    return ids, learn
