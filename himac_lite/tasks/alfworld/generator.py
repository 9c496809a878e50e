"""Seeded houses for `house`: a kitchen or a bedroom, things mostly where they usually are, never won at the start."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Set
from pathlib import Path

import numpy as np

from himac_lite import storage
from himac_lite.tasks.alfworld.house import (
    BEDROOM,
    KITCHEN,
    LAMP,
    LAMP_THING,
    LIGHT,
    PLACE,
    TASKS,
    THINGS,
    TOOL,
    TWO,
    House,
    can_contain,
    kind,
    solution,
)

SEED = 5
COUNTS = {"train": 240, "validation": 48, "test": 96}
"""Games of each part; every task type as often."""
MOST = 8
"""Things of a game, beside those that are asked for."""
FULL = 10
"""The same of a demonstration: the more lies about, the more there is to be told from what was asked for."""

_KITCHEN = (
    ("fridge", 1, 1), ("microwave", 1, 1), ("sinkbasin", 1, 1), ("countertop", 1, 2), ("cabinet", 2, 4),
    ("drawer", 1, 2), ("diningtable", 1, 1), ("garbagecan", 0, 1),
)  # fmt: skip
_BEDROOM = (
    ("desk", 1, 1), ("bed", 1, 1), ("dresser", 1, 1), ("drawer", 2, 3), ("shelf", 1, 3), ("sidetable", 1, 1),
    ("armchair", 0, 1), ("garbagecan", 0, 1),
)  # fmt: skip
_NEED = {"clean": "cleanable", "heat": "heatable", "cool": "coolable"}
_USUAL = (0.55, 0.25, 0.1)
"""How often a thing is at the first, second and third of its usual places; else it is anywhere it may be."""


def generate(task: str, rng: np.random.Generator, most: int = MOST) -> House:
    """One house of a task type, with up to so many things beside those that are asked for."""
    while True:
        house = _draw(task, rng, most)
        if house is not None and 2 <= len(solution(house)) <= 14:
            return house


def _draw(task: str, rng: np.random.Generator, most: int) -> House | None:
    kitchen = task in TOOL or (task in (PLACE, TWO) and rng.random() < 0.5)
    room, pool = (_KITCHEN, KITCHEN) if kitchen else (_BEDROOM, BEDROOM)
    counts = [(what, int(rng.integers(low, high + 1))) for what, low, high in room]
    receptacles = tuple(f"{what} {i}" for what, count in counts for i in range(1, count + 1))
    kinds = sorted(set(map(kind, receptacles)))
    fit = [t for t in pool if task not in TOOL or _NEED[TOOL[task][0]] in pool[t].properties]
    thing = fit[int(rng.integers(len(fit)))]
    goals = [r for r in kinds if can_contain(r, thing) and (task not in TOOL or r != TOOL[task][1])]
    goal = "" if task == LIGHT else goals[int(rng.integers(len(goals)))]
    names = [thing] * (2 if task == TWO else 1)
    others = [t for t in pool if t != thing]
    names += [others[i] for i in rng.choice(len(others), int(rng.integers(5, most + 1)), replace=False)]
    numbers: Counter[str] = Counter()
    things = []
    for what in names:
        place = _place(what, receptacles, rng, avoid=goal if what == thing else "")
        if place is None:
            return None
        numbers[what] += 1
        things.append((f"{what} {numbers[what]}", place))
    if task == LIGHT:
        lamp = [r for r in receptacles if kind(r) in LAMP_THING.usual]
        things.append((f"{LAMP} 1", lamp[int(rng.integers(len(lamp)))]))
    return House(task, thing, goal, receptacles, tuple(things))


def _place(what: str, receptacles: tuple[str, ...], rng: np.random.Generator, avoid: str) -> str | None:
    may = [r for r in receptacles if kind(r) != avoid and can_contain(kind(r), what)]
    usual = THINGS[what].usual
    draw = rng.random()
    for i, share in enumerate(_USUAL):
        draw -= share
        if draw < 0:
            may = [r for r in may if kind(r) == usual[i]] or may
            break
    return may[int(rng.integers(len(may)))] if may else None


def stream(rng: np.random.Generator, without: Set[str]) -> Iterator[House]:
    """New houses without end, none of those whose `House.text` is given: for demonstrations.

    A house that is seen again can be known by heart: where its things lie, instead of how to look for them.
    """
    while True:
        house = generate(TASKS[int(rng.integers(len(TASKS)))], rng, FULL)
        if house.text not in without:
            yield house


def split(seed: int = SEED, counts: dict[str, int] = COUNTS) -> dict[str, list[House]]:
    """The parts of a seed; no two houses are the same."""
    rng = np.random.default_rng(seed)
    seen: set[str] = set()
    out: dict[str, list[House]] = {}
    for part, count in counts.items():
        out[part] = []
        while len(out[part]) < count:
            house = generate(TASKS[len(out[part]) % len(TASKS)], rng)
            if house.text not in seen:
                seen.add(house.text)
                out[part].append(house)
    return out


def write(folder: Path, seed: int = SEED) -> None:
    """The files of `data/household`: one house a line, and a manifest of SHA-256."""
    folder.mkdir(parents=True, exist_ok=True)
    hashes = {}
    for part, houses in split(seed).items():
        file = folder / f"{part}.jsonl"
        storage.write(file, "".join(house.text + "\n" for house in houses))
        hashes[file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    storage.write(folder / "manifest.json", json.dumps({"seed": seed, "sha256": hashes}, indent=1) + "\n")


if __name__ == "__main__":
    write(storage.data_dir() / "household")
