"""Scripted buyers of mixed quality: what the small model is pretrained on, and the script of a sub-goal.

- expert: asks for all attributes, opens what matches, chooses every option
- hasty: buys the first thing of the right kind, without a choice
- forgetful: leaves out an option
- vague: asks for one attribute at most
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np

from himac_lite.lessons import Lesson, Step, plan_lesson, play_lesson
from himac_lite.tasks.webshop import MAX_STEPS, ShopGoal, WebShopEpisode, WebShopTask, plan_of
from himac_lite.types import Role
from himac_lite.webshop.catalogue import Product
from himac_lite.webshop.shop import PAGE, Session

BEGINNERS = ("hasty", "forgetful", "vague")
PEEK = 0.15
"""How often a player looks at the features of what was opened."""


def plan_by(writer: str, item: ShopGoal, noun: str, rng: np.random.Generator) -> list[str]:
    """The sub-goals that a player writes."""
    goal = item.goal
    if writer == "hasty":
        return [f"search for {noun}", f"open a {noun}", "buy it"]
    if writer == "vague":
        return plan_of(goal, noun, goal.attributes[: int(rng.integers(0, 2))])
    plan = plan_of(goal, noun)
    if writer == "forgetful" and goal.options:
        del plan[2 + int(rng.integers(len(goal.options)))]
    return plan


def carry_out(shop: Session, subgoal: str) -> Iterator[str]:
    """The actions that do what a sub-goal says, on the page that the shop shows when each is asked for."""
    verb, _, rest = subgoal.partition(" ")
    if verb == "search":
        yield f"search[{rest.removeprefix('for ')}]"
    elif verb == "choose":
        yield f"click[{rest.partition(': ')[2]}]"
    elif verb == "buy":
        yield "click[buy now]"
    elif verb == "open" and shop.product is None and shop.results:
        at = _best(shop.results, subgoal, [value for _, value in shop.goal.options])
        while at >= shop.number * PAGE:
            yield "click[next >]"
        yield f"click[{shop.results[at].asin.lower()}]"


def _best(results: Sequence[Product], subgoal: str, options: Sequence[str]) -> int:
    """The place of the first product that has most of what an open sub-goal asks for.

    Who asks for attributes looks for the options too, which only the product's own page shows.
    """
    found = re.fullmatch(r"open an? (.+?)(?: that is (.+?))?(?: under ([\d.]+) dollars)?", subgoal)
    noun, asked, limit = found.groups() if found else ("", None, None)
    attributes = asked.split(" and ") if asked else []

    def fits(product: Product) -> tuple[bool, bool, int]:
        hits = sum(a in product.attributes for a in attributes)
        if attributes:
            hits += sum(any(o in values for values in product.options.values()) for o in options)
        return product.query == noun, limit is None or product.price <= float(limit), hits

    return max(range(len(results)), key=lambda i: (fits(results[i]), -i))


def play(episode: WebShopEpisode, subgoal: str, rng: np.random.Generator, peek: float = PEEK) -> list[Step]:
    """Carry out a sub-goal, now and then with a look at the features."""
    shop = episode.buyer
    assert isinstance(shop, Session)
    steps = []
    for action in carry_out(shop, subgoal):
        if episode.over or episode.steps >= MAX_STEPS:
            break
        steps.append(_do(episode, action))
    if subgoal.startswith("open ") and shop.product is not None and rng.random() < peek:
        steps += [_do(episode, "click[features]"), _do(episode, "click[< prev]")]
    return steps


def _do(episode: WebShopEpisode, action: str) -> Step:
    episode.act(action)
    return Step(*episode.seen[-1])


def lessons(items: Sequence[ShopGoal], rng: np.random.Generator, sloppiness: float) -> Iterator[Lesson]:
    """A blueprint, a flat episode and a segment for one goal after another, without end."""
    task = WebShopTask()
    while True:
        item = items[int(rng.integers(len(items)))]

        def writer() -> str:
            return BEGINNERS[int(rng.integers(len(BEGINNERS)))] if rng.random() < sloppiness else "expert"

        start = task.start(item)
        noun = item.noun
        yield plan_lesson(start.buyer.page.text, plan_by(writer(), item, noun, rng))

        episode, first = start, start.buyer.page.text
        steps = [s for goal in plan_by(writer(), item, noun, rng) for s in play(episode, goal, rng)]
        yield play_lesson(Role.FLAT, first, steps)

        # The executor does what it is told, whoever wrote the plan.
        episode, told = task.start(item), plan_by(writer(), item, noun, rng)
        chosen = int(rng.integers(len(told)))
        for goal in told[:chosen]:
            play(episode, goal, rng)
        before = episode.buyer.page.text
        steps = play(episode, told[chosen], rng)
        if steps:
            yield play_lesson(Role.EXECUTOR, before, steps, told[chosen], sub_done=not episode.over)
