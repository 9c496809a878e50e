"""Products, in the two JSON files of the original WebShop: ``items_*.json`` and ``items_ins_*.json``.

The first file is a list of products (``asin``, ``name``, ``category``, ``query``, ``product_category``, ``pricing``,
``full_description``, ``small_description``, ``customization_options``). The second maps an ASIN to its ``attributes``
and, if there are goals for it, to their ``instruction`` and ``instruction_attributes``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from himac_lite.errors import TaskError

MAX_BYTES = 2_000_000_000
NO_PRICE = 100.0
"""The original's price of a product without a price."""


@dataclass(frozen=True)
class Product:
    """One product, with the fields of its pages and of the reward."""

    asin: str
    title: str
    category: str
    query: str
    product_category: str
    description: str
    bullets: tuple[str, ...]
    prices: tuple[float, ...]
    """One price, or the lower and upper end of a range, in dollars."""
    options: Mapping[str, tuple[str, ...]]
    """Name of an option → its values in lower case."""
    attributes: tuple[str, ...]
    instruction: str | None = None
    """The instruction of a goal for this product, without options and price."""
    instruction_attributes: tuple[str, ...] = ()

    @property
    def price(self) -> float:
        """The price in dollars; the middle of a range (the original draws a price when it starts)."""
        return sum(self.prices) / len(self.prices)

    @property
    def price_tag(self) -> str:
        return " to ".join(f"${price}" for price in self.prices)


@dataclass(frozen=True)
class Catalogue:
    """All products of a shop in the order of its file."""

    products: tuple[Product, ...]
    source: str

    @cached_property
    def _by_asin(self) -> dict[str, Product]:
        return {p.asin: p for p in self.products}

    def __getitem__(self, asin: str) -> Product:
        return self._by_asin[asin]

    def __contains__(self, asin: str) -> bool:
        return asin in self._by_asin


def load_catalogue(items: Path, attributes: Path | None = None) -> Catalogue:
    """Read a catalogue. attributes: the second file; by default `attributes_file`.

    As in the original, products without a usable ASIN and duplicates are skipped. Raises `TaskError` that names the
    file, the product and the field.
    """
    beside = attributes or attributes_file(items)
    known = read_json(beside) if beside.is_file() else {}
    if not isinstance(known, dict):
        raise TaskError(f"{beside} should map each ASIN to its attributes")
    listed = read_json(items)
    if not isinstance(listed, list):
        raise TaskError(f"{items} should hold a list of products")
    products: dict[str, Product] = {}
    for number, raw in enumerate(listed, 1):
        try:
            asin = raw["asin"]
            if asin != "nan" and len(asin) <= 10 and asin not in products:
                products[asin] = _product(raw, known.get(asin) or {})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = f"has no {error}" if isinstance(error, KeyError) else f"cannot be read: {error}"
            raise TaskError(f"{items}: product {number} {what}") from None
    if not products:
        raise TaskError(f"{items} holds no product")
    return Catalogue(tuple(products.values()), str(items))


def attributes_file(items: Path) -> Path:
    """items_shuffle_1000.json → items_ins_1000.json or items_ins_v2_1000.json in the same folder."""
    rest = items.name.removeprefix("items").removeprefix("_shuffle")
    names = (f"items_ins{rest}", f"items_ins_v2{rest}")
    return next((items.with_name(n) for n in names if items.with_name(n).is_file()), items.with_name(names[0]))


def read_json(file: Path) -> Any:
    """The content of a JSON file. Raises `TaskError` that names the file."""
    try:
        if file.stat().st_size > MAX_BYTES:
            raise TaskError(f"{file} has more than {MAX_BYTES} bytes")
        return json.loads(file.read_text("utf-8-sig"))
    except OSError as error:
        raise TaskError(f"cannot read {file}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise TaskError(f"{file} is not JSON: {error}") from None


def _product(raw: Mapping[str, Any], known: Mapping[str, Any]) -> Product:
    bullets = raw["small_description"]
    options: dict[str, tuple[str, ...]] = {}
    for name, contents in (raw.get("customization_options") or {}).items():
        if contents is not None:
            options[name.lower()] = tuple(c["value"].strip().replace("/", " | ").lower() for c in contents)
    product = Product(
        asin=raw["asin"], title=raw["name"], category=raw["category"], query=raw["query"].lower().strip(),
        product_category=raw["product_category"], description=raw["full_description"] or "",
        bullets=tuple(str(b) for b in (bullets if isinstance(bullets, list) else [bullets]) if b),
        prices=parse_prices(raw.get("pricing")), options=options,
        attributes=tuple(known.get("attributes") or ("DUMMY_ATTR",)), instruction=known.get("instruction"),
        instruction_attributes=tuple(known.get("instruction_attributes") or ()),
    )  # fmt: skip
    for name in ("title", "category", "product_category", "description", "attributes", "instruction_attributes"):
        value = getattr(product, name)
        if not all(isinstance(text, str) for text in (value if isinstance(value, tuple) else [value])):
            raise ValueError(f"{name} should be text, not {value!r:.60}")
    if not isinstance(product.instruction, str | None):
        raise ValueError(f"instruction should be text, not {product.instruction!r:.60}")
    return product


def parse_prices(text: str | None) -> tuple[float, ...]:
    """``$12.99`` → (12.99,); ``$5 to $9`` → (5.0, 9.0); nothing → (100.0,), as in the original."""
    found = [re.sub(r"[^\d.]", "", part) for part in (text or "").split("$")[1:]]
    return tuple(float(part) for part in found[:2]) or (NO_PRICE,)


def to_json(products: Sequence[Product]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The contents of the two files that `load_catalogue` reads."""
    items = [
        {
            "asin": p.asin, "name": p.title, "category": p.category, "query": p.query,
            "product_category": p.product_category, "full_description": p.description,
            "small_description": list(p.bullets), "pricing": p.price_tag, "images": [""],
            "customization_options": {n: [{"value": v} for v in values] for n, values in p.options.items()},
        }
        for p in products
    ]  # fmt: skip
    known = {
        p.asin: {
            "attributes": list(p.attributes), "instruction": p.instruction,
            "instruction_attributes": list(p.instruction_attributes),
        }
        for p in products
    }  # fmt: skip
    return items, known
