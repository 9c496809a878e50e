"""WebShop's reward (Yao et al. 2022, section 3.2), given only at Buy Now.

    R = r_type · (attribute hits + option hits + [price ≤ upper]) / (attributes + options + 1)

Departures from the original: the nouns of a title are all words outside a list, where the original uses spaCy's tagger;
the colour names are our own list. Both can change r_type or an option hit on another catalogue.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rapidfuzz import fuzz, utils

from himac_lite.tasks.webshop.catalogue import Product
from himac_lite.tasks.webshop.goals import Goal
from himac_lite.tasks.webshop.words import COLOURS, NOT_NOUNS

HIT = 85
"""A token-set ratio above this is a hit."""


@dataclass(frozen=True)
class Reward:
    """The reward and its parts; `attributes` and `options` count hits."""

    total: float
    r_type: float
    title_score: float
    attributes: int
    options: int
    price: bool


def reward(bought: Product, wanted: Product, goal: Goal, options: Mapping[str, str]) -> Reward:
    """The reward for buying `bought` with `options` (name → value) when the goal's product is `wanted`."""
    score = title_score(bought.title, wanted.title)
    alike = bought.query == wanted.query or shared_categories(bought, wanted) >= 2 or score > 0.2
    r_type = type_reward(alike, score)
    hits = sum(has_attribute(bought, attribute) for attribute in goal.attributes)
    option_hits = sum(
        any(ratio(normal_colour(value), normal_colour(want)) > HIT for value in options.values())
        for _, want in goal.options
    )
    price = bought.price <= goal.price_upper
    total = r_type * (hits + option_hits + price) / (len(goal.attributes) + len(goal.options) + 1)
    return Reward(total, r_type, score, hits, option_hits, price)


def type_reward(alike: bool, score: float) -> float:
    """r_type. alike: whether query, categories or title agree. score: the title score."""
    if score == 0.0:
        return 0.0
    if score < 0.1:
        return 0.1
    return 1.0 if alike else 0.5


def title_score(bought: str, wanted: str) -> float:
    """The share of the wanted title's nouns that the bought title has; 0.2 for a title without nouns.

    As in the original, a repeated noun of the wanted title counts in the total each time, but is found only once.
    """
    nouns = [*_nouns(wanted)]
    return len({*nouns} & {*_nouns(bought)}) / len(nouns) if nouns else 0.2


def _nouns(title: str) -> Iterable[str]:
    return (word for word in re.findall(r"[a-z][a-z'-]*", title.lower()) if word not in NOT_NOUNS)


def shared_categories(a: Product, b: Product) -> int:
    """Levels that two category paths (``Home › Kitchen › Mugs``) have in common, in any order."""
    return len(_path(a) & _path(b))


def _path(product: Product) -> set[str]:
    return {part.strip() for part in product.product_category.split("›")}


def has_attribute(product: Product, attribute: str) -> bool:
    """Whether a product has an attribute: approximately in its list, or exactly in one of its texts."""
    if any(ratio(own, attribute) > HIT for own in product.attributes):
        return True
    texts = (product.title, " ".join(product.bullets), product.description)
    return any(attribute in text.lower() for text in texts)


def ratio(a: str, b: str) -> int:
    """Token-set ratio of lower-cased words, 0–100; 100 if one set of words contains the other."""
    return round(fuzz.token_set_ratio(a, b, processor=utils.default_process))


def normal_colour(value: str) -> str:
    """``light navy heather`` → ``heather``: the first of `COLOURS` in the value, or the value itself."""
    return next((colour for colour in COLOURS if colour in value), value)
