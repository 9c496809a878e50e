"""WebShop: scripted buyers of mixed quality, the script of a sub-goal, and the recipe.

- expert: asks for all attributes, opens what matches, chooses every option
- thorough: an expert who searches for the options, too: a product is found by what only its own page shows
- hasty: buys the first thing of the right kind, without a choice
- forgetful: leaves out an option
- vague: asks for one attribute at most
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from himac_lite.errors import ConfigError
from himac_lite.pretraining import Solution, Stage
from himac_lite.pretraining.lessons import Lesson, Players, Step, plan_lesson, play_lesson, text_recipe
from himac_lite.settings import Pretrain
from himac_lite.tasks.webshop.catalogue import Product
from himac_lite.tasks.webshop.shop import BUY, NEXT, PAGE, PREV, Session
from himac_lite.tasks.webshop.task import MAX_STEPS, ShopGoal, WebShopEpisode, WebShopTask, load, plan_of
from himac_lite.types import Role

BEGINNERS = ("forgetful", "forgetful", "hasty", "vague")
"""Forgetting is the habit to be unlearnt, so it is the most frequent."""
THOROUGH = 0.2
"""How many of the experts are thorough: seldom, so that there is something better to be found."""
INSIGHT = 0.25
"""How many lessons have a player who knows more of a product than a page of results shows: the others can be learnt."""
NUMBER = re.compile(r"\bHL(\d{4})\b")
"""A product's number, as every page writes it."""
PEEK = 0.05
"""How often a player looks at the features of what was opened."""


def plan_by(writer: str, item: ShopGoal, noun: str, rng: np.random.Generator) -> list[str]:
    """The sub-goals that a player writes."""
    goal = item.goal
    if writer == "hasty":
        return [f"search for {noun}", f"open a {noun}", "buy it"]
    if writer == "vague":
        return plan_of(goal, noun, goal.attributes[: int(rng.integers(0, 2))])
    plan = plan_of(goal, noun)
    if writer == "thorough":
        plan[0] = " ".join((plan[0], *(value for _, value in goal.options)))
    if writer == "forgetful" and goal.options:
        del plan[2 + int(rng.integers(len(goal.options)))]
    return plan


def carry_out(shop: Session, subgoal: str, insight: bool = True) -> Iterator[str]:
    """The actions that do what a sub-goal says, on the page that the shop shows when each is asked for.

    What is clicked is written as the page writes it: a small model copies it. insight: see `_best`.
    """
    verb, _, rest = subgoal.partition(" ")
    if verb == "search":
        yield f"search[{rest.removeprefix('for ')}]"
    elif verb == "choose":
        yield f"click[{rest.partition(': ')[2]}]"
    elif verb == "buy":
        yield f"click[{BUY}]"
    elif verb == "open" and shop.product is None and shop.results:
        seen = shop.results if insight else shop.results[:PAGE]
        at = _best(seen, subgoal, [value for _, value in shop.goal.options] if insight else None)
        while at >= shop.number * PAGE:
            yield f"click[{NEXT}]"
        yield f"click[{shop.results[at].asin}]"


def _best(results: Sequence[Product], subgoal: str, options: Sequence[str] | None) -> int:
    """The place of the first product that has most of what an open sub-goal asks for.

    options: who asks for attributes looks for these too, with an insight into what only the product's own page shows.
    None: only titles and prices are looked at, which is all that a page of results shows.
    """
    found = re.fullmatch(r"open an? (.+?)(?: that is (.+?))?(?: under ([\d.]+) dollars)?", subgoal)
    noun, asked, limit = found.groups() if found else ("", None, None)
    attributes = asked.split(" and ") if asked else []

    def fits(product: Product) -> tuple[bool, bool, int]:
        hits = sum(a in (product.title if options is None else product.attributes) for a in attributes)
        if attributes and options is not None:
            hits += sum(any(o in values for values in product.options.values()) for o in options)
        return product.query == noun, limit is None or product.price <= float(limit), hits

    return max(range(len(results)), key=lambda i: (fits(results[i]), -i))


def play(
    episode: WebShopEpisode, subgoal: str, rng: np.random.Generator, peek: float = PEEK, insight: bool = True
) -> list[Step]:
    """Carry out a sub-goal, now and then with a look at the features. insight: see `_best`."""
    shop = episode.buyer
    assert isinstance(shop, Session)
    steps = []
    for action in carry_out(shop, subgoal, insight):
        if episode.over or episode.steps >= MAX_STEPS:
            break
        steps.append(_do(episode, action))
    if subgoal.startswith("open ") and shop.product is not None and rng.random() < peek:
        steps += [_do(episode, f"click[{what}]") for what in ("Features", PREV)]
    return steps


def _do(episode: WebShopEpisode, action: str) -> Step:
    episode.act(action)
    return Step(*episode.seen[-1])


def renumbered(lesson: Lesson, rng: np.random.Generator) -> Lesson:
    """The same lesson with other product numbers: a number is read from the page, and not to be known by heart."""
    numbers: dict[str, str] = {}  # of the lesson → of this copy
    drawn = iter(rng.permutation(10_000))
    return replace(
        lesson,
        pieces=tuple(
            (NUMBER.sub(lambda found: "HL" + numbers.setdefault(found[1], f"{next(drawn):04d}"), text), learn)
            for text, learn in lesson.pieces
        ),
    )


def lessons(items: Sequence[ShopGoal], rng: np.random.Generator, players: Players) -> Iterator[Lesson]:
    """A blueprint, a flat episode and a segment for one goal after another, without end."""
    for lesson in _lessons(items, rng, players.sloppiness):
        yield renumbered(lesson, rng) if players.unknown and rng.random() < players.unknown else lesson


def _lessons(items: Sequence[ShopGoal], rng: np.random.Generator, sloppiness: float) -> Iterator[Lesson]:
    task = WebShopTask()
    while True:
        item = items[int(rng.integers(len(items)))]

        def writer() -> str:
            if rng.random() < sloppiness:
                return BEGINNERS[int(rng.integers(len(BEGINNERS)))]
            return "thorough" if rng.random() < THOROUGH else "expert"

        start, insight = task.start(item), bool(rng.random() < INSIGHT)
        noun = item.noun
        yield plan_lesson(start.buyer.page.text, plan_by(writer(), item, noun, rng))

        episode, first = start, start.buyer.page.text
        steps = [s for goal in plan_by(writer(), item, noun, rng) for s in play(episode, goal, rng, PEEK, insight)]
        yield play_lesson(Role.FLAT, first, steps)

        # The executor does what it is told, whoever wrote the plan.
        episode, told = task.start(item), plan_by(writer(), item, noun, rng)
        chosen = int(rng.integers(len(told)))
        for goal in told[:chosen]:
            play(episode, goal, rng, PEEK, insight)
        before = episode.buyer.page.text
        steps = play(episode, told[chosen], rng, PEEK, insight)
        if steps:
            yield play_lesson(Role.EXECUTOR, before, steps, told[chosen], sub_done=not episode.over)


# The recipe


def solution(item: Any, rng: np.random.Generator, who: str = "expert") -> Solution:
    """How a scripted buyer shops. Raises `ConfigError` for a goal of a running shop."""
    if not isinstance(item, ShopGoal):
        raise ConfigError(f"no script can shop for {item.title!r}: a running shop hides its goals")
    episode, plan = WebShopTask().start(item), plan_by(who, item, item.noun, rng)
    return Solution.of(plan, [play(episode, goal, rng) for goal in plan])


# The model learns which product is meant while it can know numbers by heart, and to copy them after that. With new
# numbers from the beginning it learnt neither (docs/experiments.md).
RECIPE = text_recipe(
    lambda rng, players: lessons([i for i in load("webshop/train") if isinstance(i, ShopGoal)], rng, players),
    (
        Stage("expert demonstrations", "expert_steps", Players(), reading=0.5, settled=False),
        Stage("mixed demonstrations", "mixed_steps", Players(0.45)),
        Stage("settling", "settle_steps", Players(0.35), rate=1 / 3),
        Stage("bad habits", "habit_steps", Players(0.85, unknown=0.5), rate=0.6),
    ),
    readers=Players(0.45),
    vocabulary=1536,
    task="webshop",
    about="They buy for goals in the generated catalogue of this package (`webshop/train`).",
    settings=Pretrain(
        width=192, layers=4, heads=6, batch_tokens=8192, expert_steps=1100, mixed_steps=500, settle_steps=450,
        habit_steps=250,
    ),
    solution=solution,
    players=("expert", "thorough", *sorted(set(BEGINNERS))),
    validation=64,
)  # fmt: skip
