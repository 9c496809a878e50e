"""Shopping goals, of which the agent sees only the instruction, and their splits."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from himac_lite import storage
from himac_lite.errors import TaskError
from himac_lite.tasks import PARTS
from himac_lite.tasks.webshop.catalogue import Catalogue, Product

NO_LIMIT = 1_000_000.0
"""The price limit of a goal without one, as in the original."""


@dataclass(frozen=True)
class Goal:
    """One shopping goal. As a task item, `text` identifies it and `title` is the instruction."""

    asin: str
    instruction: str
    attributes: tuple[str, ...]
    options: tuple[tuple[str, str], ...]
    """(name, value) pairs."""
    price_upper: float

    @property
    def text(self) -> str:
        return json.dumps(asdict(self))

    @property
    def title(self) -> str:
        return self.instruction


def make_goal(product: Product, options: Iterable[tuple[str, str]], price_upper: float) -> Goal:
    """The goal for this product with these options below a price, in the original's wording."""
    chosen = tuple(options)
    wanted = ", and ".join(f"{name}: {value}" for name, value in chosen)
    limit = f", and price lower than {price_upper:.2f} dollars" if price_upper < NO_LIMIT else ""
    text = f"{product.instruction}{f' with {wanted}' if wanted else ''}{limit}"
    return Goal(product.asin, text, product.instruction_attributes, chosen, price_upper)


def synthetic_goals(catalogue: Catalogue, seed: int, per_product: int | None = None) -> list[Goal]:
    """Goals for every product with an instruction: one per combination of its options, or at most `per_product`.

    The price limit is one of the next four multiples of 10 dollars above the price, never the nearest. The original
    draws it at each start; here each product has its own generator. Of goals with the same instruction the first is
    kept, so that no instruction is in two parts of a split.
    """
    out: dict[str, Goal] = {}
    for product in catalogue.products:
        if not product.instruction or not product.instruction_attributes:
            continue
        rng = np.random.default_rng([seed, *product.asin.encode()])
        names = sorted(product.options)
        combinations = list(itertools.product(*(product.options[name] for name in names)))
        if per_product is not None and len(combinations) > per_product:
            picked = sorted(rng.choice(len(combinations), per_product, replace=False))
            combinations = [combinations[i] for i in picked]
        for values in combinations:
            goal = make_goal(product, zip(names, values, strict=True), _limit(product.price, rng))
            out.setdefault(goal.instruction, goal)
    return list(out.values())


def _limit(price: float, rng: np.random.Generator) -> float:
    above = [10.0 * i for i in range(1, 100) if 10.0 * i > price][:4]
    return float(max(rng.choice(above, 2, replace=False))) if len(above) >= 2 else NO_LIMIT


def split(goals: Sequence[Goal], part: str) -> list[Goal]:
    """The goals of a part, 8 : 1 : 1 by a hash of the product, so no product is in two parts."""
    if part not in PARTS:
        raise TaskError(f"unknown part {part!r} of a catalogue; choose one of {', '.join(PARTS)}")
    return [goal for goal in goals if _part_of(goal.asin) == part]


def _part_of(asin: str) -> str:
    tenth = hashlib.sha256(asin.encode()).digest()[0] % 10
    return "train" if tenth < 8 else "validation" if tenth == 8 else "test"


def save_goals(goals: Iterable[Goal], file: Path) -> None:
    """Write one goal per line, without the fields that come from the product."""
    lines = (json.dumps({"asin": g.asin, "options": dict(g.options), "price_upper": g.price_upper}) for g in goals)
    storage.write(file, "".join(line + "\n" for line in lines))


def load_goals(file: Path, catalogue: Catalogue) -> list[Goal]:
    """Read the goals of a JSONL file. Raises `TaskError` that names the file, the line and the error."""
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"cannot read {file}: {getattr(error, 'strerror', None) or error}") from None
    out = []
    for number, line in enumerate(lines, 1):
        try:
            raw = json.loads(line)
            asin, options, upper = str(raw["asin"]), dict(raw["options"]).items(), float(raw["price_upper"])
        except (ValueError, KeyError, TypeError) as error:
            raise TaskError(f"{file}, line {number}: not a goal: {error!r}") from None
        if asin not in catalogue:
            raise TaskError(f"{file}, line {number}: {catalogue.source} has no product {asin!r}")
        out.append(make_goal(catalogue[asin], options, upper))
    return out
