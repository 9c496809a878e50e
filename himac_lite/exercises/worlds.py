"""Notebook 10: WebShop's reward, parsing an action, and latched success."""

from __future__ import annotations

import re
from collections.abc import Sequence

from himac_lite.exercises.checking import Exercise, Mistake


def _reward(r_type: float, hits: int, option_hits: int, fits: bool, attributes: int, options: int) -> float:
    return r_type * (hits + option_hits + fits) / (attributes + options + 1)


check_shop_reward = Exercise(
    "shop reward",
    "``answer(r_type, attribute_hits, option_hits, price_fits, attributes, options)`` → WebShop's reward.",
    _reward,
    (
        (1.0, 2, 1, True, 2, 1),
        (1.0, 1, 0, True, 2, 1),
        (0.5, 2, 1, False, 2, 2),
        (0.0, 2, 2, True, 2, 2),
        (0.1, 3, 0, True, 3, 0),
        (1.0, 0, 0, False, 1, 2),
    ),
    (
        Mistake(
            "the price is a requirement like the others: it is the + 1 in the denominator",
            lambda r, a, o, p, n, m: r * (a + o + p) / (n + m),
        ),
        Mistake(
            "a price within the limit counts in the numerator too",
            lambda r, a, o, p, n, m: r * (a + o) / (n + m + 1),
        ),
        Mistake(
            "r_type multiplies everything: the wrong kind of product is worth little, whatever colour it has",
            lambda r, a, o, p, n, m: (a + o + p) / (n + m + 1),
        ),
        Mistake(
            "r_type multiplies the sum, it is not added to it",
            lambda r, a, o, p, n, m: (r + a + o + p) / (n + m + 1),
        ),
        Mistake(
            "you average one share per kind of requirement; every single requirement has the same weight",
            lambda r, a, o, p, n, m: r * (a / max(1, n) + o / max(1, m) + p) / 3,
        ),
    ),
    "every requirement has the same weight, and r_type scales the sum.",
)


def _read(text: str) -> tuple[str, ...]:
    found = re.match(r"(.+)\[(.+)\]", text)
    return (found[1], found[2].lower()) if found else ()


_READ = ("search[red mug]", "click[Buy Now]", "Click[Red]", "click[size 2 (L)] please", "click[a] click[b]")
_NOT_READ = ("buy now", "click[]", "[red]", "", "search[mug")

check_read_action = Exercise(
    "read an action",
    "``answer(text)`` → (verb, argument), or () if the text is not an action.",
    _read,
    tuple((text,) for text in (*_READ, *_NOT_READ)),
    (
        Mistake(
            "the argument is compared in lower case: click[Buy Now] is click[buy now]",
            lambda text: (m[1], m[2]) if (m := re.match(r"(.+)\[(.+)\]", text)) else (),
        ),
        Mistake(
            "keep the verb as it is written: the shop does not know the verb Click",
            lambda text: tuple(part.lower() for part in m.groups()) if (m := re.match(r"(.+)\[(.+)\]", text)) else (),
        ),
        Mistake(
            "neither the verb nor the argument may be empty",
            lambda text: (m[1], m[2].lower()) if (m := re.match(r"(.*)\[(.*)\]", text)) else (),
        ),
        Mistake(
            "text after the last bracket is ignored: click[size 2 (L)] please is a click",
            lambda text: (m[1], m[2].lower()) if (m := re.fullmatch(r"(.+)\[(.+)\]", text)) else (),
        ),
        Mistake(
            "the verb ends at the last opening bracket, not the first (the original regex is greedy)",
            lambda text: (m[1], m[2].lower()) if (m := re.match(r"(.+?)\[(.+?)\]", text)) else (),
        ),
    ),
    "it never raises: an invalid action only costs a step.",
)


def _latched(won: Sequence[bool]) -> list[bool]:
    return [any(won[: i + 1]) for i, _ in enumerate(won)]


check_latched = Exercise(
    "latched success",
    "``answer(won)``: the engine's `won` after each step → whether the episode counts as won after each step.",
    _latched,
    (([False, False, True, False],), ([False, False],), ([True, False, False],), ([False, True, False, True],)),
    (
        Mistake("a win still counts if the next action spoils it", lambda won: list(won)),
        Mistake("before the first win the episode does not count as won", lambda won: [any(won)] * len(won)),
        Mistake("the winning step itself counts as won", lambda won: [any(won[:i]) for i, _ in enumerate(won)]),
    ),
    "once won, always won.",
)
