"""Base models and warm starts from demonstrations: a world's recipe, its stages, and the solution of one item.

Each world's module (`sokoban`, `webshop`, `alfworld`) has its scripted players and its recipe. `driver` makes the base
model of a recipe, `sft` fine-tunes any model on the experts of a recipe, `scripted` scores the players themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from himac_lite.settings import Pretrain
from himac_lite.tasks import Action
from himac_lite.tasks.text import written_plan
from himac_lite.types import Blueprint, SubGoal

Batch = tuple[np.ndarray, np.ndarray]
"""(ids int64 [B, T], learn bool [B, T]): right-padded token ids, and which of them the loss counts."""


@dataclass(frozen=True)
class Solution:
    """How a scripted player plays one item."""

    parts: tuple[tuple[SubGoal, tuple[Action, ...]], ...]
    """Each sub-goal of the plan with the actions that carry it out; no actions from the first that cannot be done."""
    flat: tuple[Action, ...]
    """The actions of flat play."""

    @classmethod
    def of(cls, plan: Sequence[str], done: Sequence[Sequence[Any]]) -> Solution:
        """From the lines of a plan and the steps of the sub-goals that can be done; flat play is all of them."""
        actions = [tuple(step.action for step in steps) for steps in done] + [()] * (len(plan) - len(done))
        return cls(tuple(zip(map(SubGoal, plan), actions, strict=True)), tuple(chain(*actions)))

    @property
    def blueprint(self) -> Blueprint:
        return written_plan([goal.text for goal, _ in self.parts])


@dataclass(frozen=True)
class Stage:
    """One stage of a recipe."""

    name: str
    steps: str
    """The field of `settings.Pretrain` with the number of batches."""
    players: Any
    """Who demonstrates: a value of the world's own module."""
    rate: float = 1.0
    """Factor of the learning rates in `settings.Pretrain`."""
    reading: float = 0.0
    """Share of batches in which every token is learnt, which teaches to copy; text-action tasks only."""
    settled: bool = True
    """The learning rate falls to zero and linear layers go through NF4; otherwise it warms up and stays constant."""


@dataclass(frozen=True)
class Recipe:
    """What the base model of a task is made of."""

    task: str
    about: str
    """What the demonstrations show: a paragraph of the model card."""
    settings: Pretrain
    """Model size, batches and learning rates; the command line may change them."""
    stages: tuple[Stage, ...]
    tokenizer: Callable[[int], Any]
    """Seed → tokenizer."""
    batches: Callable[[Pretrain, int, Any], Iterator[Batch]]
    """(settings, number of a stage, tokenizer) → its batches without end."""
    solution: Callable[[Any, np.random.Generator, str], Solution]
    """(item, generator, player) → how the player plays it. Raises a `HimacError` for an item without a script."""
    players: tuple[str, ...] = ("expert",)
    """Players that `solution` knows."""
    positions: int = 512
    """Tokens of the model's context."""
    rope_theta: float = 1000.0
    validation: int = 512
    """Validation items that the card is measured on, at most; 0: not measured."""
    samples: int = 8
    """Samples an item for pass@n on the card."""
