"""WebShop as a text task: our generated shop, a catalogue file, or a running WebShop."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from himac_lite import storage
from himac_lite.errors import TaskError
from himac_lite.tasks import Action, Words, World, text
from himac_lite.tasks.webshop.catalogue import Catalogue, load_catalogue
from himac_lite.tasks.webshop.goals import NO_LIMIT, Goal, load_goals, split, synthetic_goals
from himac_lite.tasks.webshop.live import LiveSession, instructions
from himac_lite.tasks.webshop.search import SearchEngine
from himac_lite.tasks.webshop.shop import SEP, Page, Session
from himac_lite.types import Blueprint, Role, SubGoal

MAX_STEPS = 15
"""Step limit of an episode, as in the paper."""


class Buyer(Protocol):
    """One session in a shop: `shop.Session` or `live.LiveSession`."""

    @property
    def page(self) -> Page: ...

    @property
    def score(self) -> float | None:
        """The reward after Buy Now; None before."""

    def act(self, action: str) -> bool: ...


# Items


@lru_cache(maxsize=4)
def open_shop(path: str) -> tuple[Catalogue, SearchEngine]:
    """A catalogue and its search index, cached."""
    catalogue = load_catalogue(Path(path))
    return catalogue, SearchEngine(catalogue)


@dataclass(frozen=True)
class ShopGoal:
    """A goal in a local catalogue."""

    goal: Goal
    shop: str
    """The catalogue's file; it is not part of the goal's identity."""

    @property
    def text(self) -> str:
        return self.goal.text

    @property
    def title(self) -> str:
        return self.goal.instruction

    @property
    def length(self) -> int:
        """Steps of an optimal solution: search, open, choose every option, buy."""
        return 3 + len(self.goal.options)

    def enter(self) -> Buyer:
        return Session(*open_shop(self.shop), self.goal)

    @property
    def noun(self) -> str:
        """The catalogue's name of the product type."""
        return open_shop(self.shop)[0][self.goal.asin].query

    def plan(self) -> Blueprint:
        return text.written_plan(plan_of(self.goal, self.noun))


@dataclass(frozen=True)
class LiveGoal:
    """A goal of a running shop, by its number; its product is hidden."""

    url: str
    number: int
    title: str
    length: int = 0

    @property
    def text(self) -> str:
        return f"{self.url}#{self.number} {self.title}"

    def enter(self) -> Buyer:
        return LiveSession(self.url, self.number)

    def plan(self) -> Blueprint:
        raise TaskError(f"goal {self.number} of {self.url} has no oracle: a running shop hides its goals")


def load(source: str, part: str | None = None) -> list[ShopGoal | LiveGoal]:
    """Goals of ``webshop/test``, of a catalogue file (``items_shuffle_1000.json``, its `part`), or of ``URL#0-99``.

    The goals of a catalogue file come from the instructions in its second file, one combination of options per product,
    and are split by product. Raises `TaskError` that names the missing file or split.
    """
    if source.startswith(("http://", "https://")):
        return list(_live(source))
    name, _, own = source.partition("/")
    if name == "webshop":
        part = text.known_part(source, own or part or "test")
        folder = storage.data_dir() / "webshop"
        shop = str(folder / "items.json")
        return [ShopGoal(goal, shop) for goal in load_goals(folder / f"goals-{part}.jsonl", open_shop(shop)[0])]
    if not Path(source).is_file():
        raise TaskError(f"{source!r} is not a split (webshop/test), a catalogue file or an address (http://…#0-99)")
    goals = synthetic_goals(open_shop(source)[0], seed=0, per_product=1)
    goals = split(goals, part) if part else goals
    if not goals:
        raise TaskError(f"{source}: no product of its {part or 'file'} has an instruction to make a goal from")
    return [ShopGoal(goal, source) for goal in goals]


def _live(source: str) -> Sequence[LiveGoal]:
    url, _, numbers = source.partition("#")
    found = re.fullmatch(r"(\d+)-(\d+)", numbers)
    if not found or int(found[1]) > int(found[2]):
        raise TaskError(f"{source!r} should name goals of a running shop, such as http://localhost:3000#0-99")
    wanted = range(int(found[1]), int(found[2]) + 1)
    return [LiveGoal(url, n, title) for n, title in zip(wanted, instructions(url, wanted), strict=True)]


# Task

_WORLD = (
    "You buy in a web shop what the instruction asks for: all attributes, all options, below the price. A page is "
    "shown as its texts, divided by [SEP]. The actions are search[words], from any page, and click[…] with one of "
    "the texts that can be clicked: a product's number, the value of an option, or a button, such as click[back "
    "to search], click[< prev], click[next >], click[description], click[features]. click[buy now] ends "
    "everything: choose the options first."
)
_EXAMPLES = (
    "search for mug leak proof", "open a mug that is leak proof under 20.00 dollars", "choose color: navy", "buy it",
)  # fmt: skip


@dataclass
class WebShopEpisode(text.Transcript):
    """One episode. The score is the reward at Buy Now; success is a score of 1, as in the benchmark."""

    buyer: Buyer = field(kw_only=True)
    instruction: str = field(kw_only=True)

    @property
    def over(self) -> bool:
        return self.buyer.score is not None

    @property
    def progress(self) -> float:
        return self.buyer.score or 0.0

    @property
    def success(self) -> bool:
        return self.progress >= 1.0

    def prompt(self, role: Role, subgoal: SubGoal | None = None) -> str:
        return text.prompt(role, self.buyer.page.text, subgoal)

    def describe(self, role: Role, subgoal: SubGoal | None = None) -> Words:
        return text.describe(_WORLD, _EXAMPLES, role, self.buyer.page.text, subgoal)

    def legal(self) -> Sequence[Action]:
        """Every click, or on the search page a search for the whole instruction."""
        clicks = [f"click[{what}]" for what in self.buyer.page.clickables if what != "search"]
        return clicks or [f"search[{self.instruction}]"]

    def act(self, action: Action) -> str:
        """The page after the action, without the instruction, which the context already has."""
        self.buyer.act(str(action))
        page = self.buyer.page.text
        return self.note(str(action), page.removeprefix(SEP.join(("Instruction:", self.instruction, ""))))


@dataclass(frozen=True)
class WebShopTask(text.TextTask):
    """Shopping: search, open a product, choose options, buy."""

    max_steps: int = MAX_STEPS
    subgoal_budget: int = 6
    max_action_tokens: int = 48
    max_plan_tokens: int = 192
    bins: tuple[tuple[int, int], ...] = ((0, 3), (4, 4), (5, 5), (6, 10_000))

    def difficulty(self, item: ShopGoal | LiveGoal) -> int:
        return item.length

    def start(self, item: ShopGoal | LiveGoal) -> WebShopEpisode:
        return WebShopEpisode(buyer=item.enter(), instruction=item.title)

    def oracle(self, item: ShopGoal | LiveGoal) -> Blueprint:
        """Search, open the product, choose each option, buy."""
        return item.plan()


def plan_of(goal: Goal, noun: str, attributes: Sequence[str] | None = None) -> list[str]:
    """The sub-goals for a goal whose product is a `noun`. attributes: those to mention; by default all."""
    asked = goal.attributes if attributes is None else attributes
    that = f" that is {' and '.join(asked)}" if asked else ""
    limit = f" under {goal.price_upper:.2f} dollars" if goal.price_upper < NO_LIMIT else ""
    return [
        f"search for {' '.join((noun, *asked))}",
        f"open a {noun}{that}{limit}",
        *(f"choose {name}: {value}" for name, value in goal.options),
        "buy it",
    ]


WORLD = World(
    "webshop", WebShopTask, load,
    {
        "train_levels": "webshop/train", "validation_levels": "webshop/validation", "test_levels": "webshop/test",
        "model.path": "webshop-base", "rollout.levels": 16, "rollout.min_length": 0, "rollout.max_steps": MAX_STEPS,
        "rollout.subgoal_budget": 6, "rollout.progress_share": 1.0, "validate_on": 64, "iterations": 12,
        **text.SETTINGS,
    },
)  # fmt: skip
