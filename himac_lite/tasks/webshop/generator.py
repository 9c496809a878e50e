"""Our generated catalogue, made from a seed.

A goal names the type, one to three attributes, the options and a price limit. 21 products share a type, and about four
in ten of them share an attribute. So a search finds candidates, and their pages show which one the goal means.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from himac_lite import storage
from himac_lite.tasks.webshop.catalogue import Catalogue, Product, to_json
from himac_lite.tasks.webshop.goals import PARTS, save_goals, split, synthetic_goals
from himac_lite.tasks.webshop.words import ASKS, BRANDS, DEPARTMENTS, OPTIONS, USES, Type

SEED = 4
GOALS_A_PRODUCT = 2


def generate(seed: int = SEED, per_type: int = 21) -> Catalogue:
    """The catalogue of a seed: `per_type` products of each of the 48 types, in random order."""
    rng = np.random.default_rng(seed)
    made = []
    for path, attributes, types in DEPARTMENTS:
        for kind in types:
            made += [_product(path, attributes, kind, rng) for _ in range(per_type)]
    order = rng.permutation(len(made))
    numbers = rng.choice(10_000, len(made), replace=False)
    products = (replace(made[i], asin=f"HL{number:04d}") for i, number in zip(order, numbers, strict=True))
    return Catalogue(tuple(products), f"generated with seed {seed}")


def _product(path: str, attributes: tuple[str, ...], kind: Type, rng: np.random.Generator) -> Product:
    noun, (low, high), names = kind
    count = int(rng.integers(2, 6))
    own = [attributes[i] for i in rng.choice(len(attributes), count, replace=False)]
    price = round(float(rng.uniform(low, high))) - 0.01
    options = {}
    for name in names:
        values = OPTIONS[name]
        count = int(rng.integers(2, min(4, len(values)) + 1))
        options[name] = tuple(values[i] for i in sorted(rng.choice(len(values), count, replace=False)))
    brand, use = BRANDS[int(rng.integers(len(BRANDS)))], USES[int(rng.integers(len(USES)))]
    # The title shows at most two attributes; the page Features has the others.
    title = f"{brand} {noun}, {', '.join(own[:2])}, {use}"
    bullets = tuple(f"{attribute}: made to stay so {use}" for attribute in own)
    wanted = sorted(own, key=lambda _: rng.random())[: int(rng.integers(1, min(3, len(own)) + 1))]
    ask = ASKS[int(rng.integers(len(ASKS)))].format(noun, " and ".join(wanted))
    description = f"A {noun} by {brand} {use}. It comes in {' or '.join(next(iter(options.values())))}."
    return Product(
        "", title, path.split(" › ")[0].lower(), noun, f"{path} › {noun.title()}", description, bullets, (price,),
        options, tuple(own), ask, tuple(wanted),
    )  # fmt: skip


def write(folder: Path, seed: int = SEED) -> None:
    """The files of `data/webshop`: catalogue, goals of each part, manifest of SHA-256."""
    catalogue = generate(seed)
    folder.mkdir(parents=True, exist_ok=True)
    items, known = to_json(catalogue.products)
    _lines(folder / "items.json", "[", [json.dumps(item, ensure_ascii=False) for item in items], "]")
    pairs = [f"{json.dumps(asin)}: {json.dumps(value)}" for asin, value in known.items()]
    _lines(folder / "items_ins.json", "{", pairs, "}")
    goals = synthetic_goals(catalogue, seed, GOALS_A_PRODUCT)
    for part in PARTS:
        save_goals(split(goals, part), folder / f"goals-{part}.jsonl")
    names = ("items.json", "items_ins.json", *(f"goals-{part}.jsonl" for part in PARTS))
    hashes = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    manifest = {"seed": seed, "products": len(items), "goals_a_product": GOALS_A_PRODUCT, "sha256": hashes}
    storage.write(folder / "manifest.json", json.dumps(manifest, indent=1) + "\n")


def _lines(file: Path, opening: str, entries: list[str], closing: str) -> None:
    storage.write(file, opening + "\n" + ",\n".join(entries) + "\n" + closing + "\n")


if __name__ == "__main__":
    write(storage.data_dir() / "webshop")
