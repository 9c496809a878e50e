"""Random houses from a seed: a kitchen or a bedroom, objects mostly at their usual places, never won at the start."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Set
from pathlib import Path

import numpy as np

from himac_lite import storage
from himac_lite.tasks.alfworld.house import (
    ABLE,
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
"""Games of each part, the same number of each task type."""
MOST = 8
"""Maximum number of other objects in a game, beside the requested ones."""
FULL = 10
"""The same for demonstrations, where more objects make the requested one harder to confuse with others."""

_KITCHEN = (
    ("fridge", 1, 1), ("microwave", 1, 1), ("sinkbasin", 1, 1), ("countertop", 1, 2), ("cabinet", 2, 4),
    ("drawer", 1, 2), ("diningtable", 1, 1), ("garbagecan", 0, 1),
)  # fmt: skip
_BEDROOM = (
    ("desk", 1, 1), ("bed", 1, 1), ("dresser", 1, 1), ("drawer", 2, 3), ("shelf", 1, 3), ("sidetable", 1, 1),
    ("armchair", 0, 1), ("garbagecan", 0, 1),
)  # fmt: skip
_USUAL = (0.55, 0.25, 0.1)
"""Probabilities of an object's three usual places; otherwise it is at any allowed place."""


def generate(task: str, rng: np.random.Generator, most: int = MOST) -> House:
    """One house of a task type, with at most `most` other objects."""
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
    fit = [t for t in pool if task not in TOOL or ABLE[TOOL[task][0]] in pool[t].properties]
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
    """New houses without end for demonstrations, except those with a `House.text` in `without`.

    Houses do not repeat, because a model would memorise where objects are instead of learning to search.
    """
    while True:
        house = generate(TASKS[int(rng.integers(len(TASKS)))], rng, FULL)
        if house.text not in without:
            yield house


def split(seed: int = SEED, counts: dict[str, int] = COUNTS) -> dict[str, list[House]]:
    """The parts of a seed; no house occurs twice."""
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
