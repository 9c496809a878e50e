"""Notebook 10: WebShop's reward, a written action, and what a latched success is."""

from __future__ import annotations

import re
from collections.abc import Sequence

from himac_lite.exercises.checking import Answer, Exercise, Mistake, check

# Reward of a purchase: shop_reward(r_type, attribute_hits, option_hits, price_fits, attributes, options) → float


def _reward(r_type: float, hits: int, option_hits: int, fits: bool, attributes: int, options: int) -> float:
    return r_type * (hits + option_hits + fits) / (attributes + options + 1)


SHOP_REWARD = Exercise(
    "shop reward",
    _reward,
    (
        (1.0, 2, 1, True, 2, 1), (1.0, 1, 0, True, 2, 1), (0.5, 2, 1, False, 2, 2), (0.0, 2, 2, True, 2, 2),
        (0.1, 3, 0, True, 3, 0), (1.0, 0, 0, False, 1, 2),
    ),
    (
        Mistake(
            "the price is a wish like the others: it is the + 1 in the denominator",
            lambda r, a, o, p, n, m: r * (a + o + p) / (n + m),
        ),
        Mistake(
            "the price that fits counts in the numerator as well",
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
            "a share of each kind of wish is taken, and their mean: but every single wish weighs the same",
            lambda r, a, o, p, n, m: r * (a / max(1, n) + o / max(1, m) + p) / 3,
        ),
    ),
    "every wish weighs the same, and the wrong kind of thing spoils them all.",
)  # fmt: skip

# A written action: read_action(text) → (verb, argument), or () for what the shop does not know


def _read(text: str) -> tuple[str, ...]:
    found = re.match(r"(.+)\[(.+)\]", text)
    return (found[1], found[2].lower()) if found else ()


READ_ACTION = Exercise(
    "read an action",
    _read,
    (
        ("search[red mug]",), ("click[Buy Now]",), ("buy now",), ("click[]",), ("[red]",), ("Click[Red]",),
        ("click[size 2 (L)] please",), ("",), ("search[mug",), ("click[a] click[b]",),
    ),
    (
        Mistake(
            "the argument is compared in lower case: click[Buy Now] is click[buy now]",
            lambda text: (m[1], m[2]) if (m := re.match(r"(.+)\[(.+)\]", text)) else (),
        ),
        Mistake(
            "the verb is kept as it is written: Click is no verb that the shop knows",
            lambda text: tuple(part.lower() for part in m.groups()) if (m := re.match(r"(.+)\[(.+)\]", text)) else (),
        ),
        Mistake(
            "neither the verb nor the argument may be empty",
            lambda text: (m[1], m[2].lower()) if (m := re.match(r"(.*)\[(.*)\]", text)) else (),
        ),
        Mistake(
            "what follows the last bracket does not matter: click[size 2 (L)] please is a click",
            lambda text: (m[1], m[2].lower()) if (m := re.fullmatch(r"(.+)\[(.+)\]", text)) else (),
        ),
        Mistake(
            "the verb ends at the last bracket that opens, not at the first (the original's expression is greedy)",
            lambda text: (m[1], m[2].lower()) if (m := re.match(r"(.+?)\[(.+?)\]", text)) else (),
        ),
    ),
    "and whatever it is, it never raises: a bad action costs a step.",
)  # fmt: skip

# A latched success: latched(won) → whether the episode counts as won after each step


def _latched(won: Sequence[bool]) -> list[bool]:
    return [any(won[: i + 1]) for i, _ in enumerate(won)]


LATCHED = Exercise(
    "latched success",
    _latched,
    (([False, False, True, False],), ([False, False],), ([True, False, False],), ([False, True, False, True],)),
    (
        Mistake("a state that was won once counts, even if the next action spoils it", lambda won: list(won)),
        Mistake("before the first win nothing is won", lambda won: [any(won)] * len(won)),
        Mistake("the step that wins counts as won already", lambda won: [any(won[:i]) for i, _ in enumerate(won)]),
    ),
    "once won is won.",
)


def check_shop_reward(answer: Answer) -> bool:
    """``answer(r_type, attribute_hits, option_hits, price_fits, attributes, options)`` → WebShop's reward."""
    return check(SHOP_REWARD, answer)


def check_read_action(answer: Answer) -> bool:
    """``answer(text)`` → (verb, argument), or () for what is no action."""
    return check(READ_ACTION, answer)


def check_latched(answer: Answer) -> bool:
    """``answer(won)``: the engine's word after each step → whether the episode counts as won after each step."""
    return check(LATCHED, answer)
