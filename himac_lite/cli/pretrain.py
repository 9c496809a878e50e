"""`himac-lite pretrain`: make a base model again."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from himac_lite import storage
from himac_lite.cli.console import say
from himac_lite.cli.options import with_settings
from himac_lite.errors import ConfigError, RunError
from himac_lite.tasks.registry import WORLDS

if TYPE_CHECKING:
    from himac_lite.pretraining import Recipe
    from himac_lite.pretraining.proof import Hit
    from himac_lite.settings import Pretrain

HELP = "make a small base model from demonstrations"


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("--task", choices=WORLDS, default="sokoban", help="which task it will play (default: sokoban)")
    p.add_argument("--out", type=Path, help="folder of the checkpoint (default: models/TASK-base)")
    p.add_argument("--seed", type=int)
    p.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="any setting, such as expert_steps=500"
    )
    p.add_argument(
        "--prove", action="store_true",
        help="make nothing: compare every batch of Sokoban's recipe with all held-out levels; exit code 1 for a hit",
    )  # fmt: skip
    p.set_defaults(run=run)


def run(given: argparse.Namespace) -> None:
    from himac_lite.pretraining import driver

    out = given.out or Path("models") / f"{given.task}-base"
    recipe = driver.recipe_of(given.task)
    settings = recipe.settings if given.seed is None else replace(recipe.settings, seed=given.seed)
    unused = {f.name for f in fields(settings) if f.name.endswith("_steps")} - {s.steps for s in recipe.stages}
    if given.task != "sokoban":
        unused.add("noise")
    for name in (pair.partition("=")[0] for pair in given.set):
        if name in unused:
            raise ConfigError(f"{name} has no effect on the base model of {given.task}: leave it out")
    settings = with_settings(settings, given, {"seed": "seed"})
    if given.prove:
        return _prove(recipe, settings)
    if out.exists() and not any((out / n).exists() for n in ("pretrain.json", "unfinished")):
        raise RunError(f"{out} exists and was not made by pretrain; choose another --out")
    storage.refuse_unwritable(out)
    driver.pretrain(recipe, settings, out, say)


def _prove(recipe: Recipe, settings: Pretrain) -> None:
    from himac_lite.pretraining import driver, proof

    if recipe.task != "sokoban":
        raise ConfigError(f"--prove compares boards, and {recipe.task} has none; leave out --prove or --task")
    stages = [
        (stage.name, getattr(settings, stage.steps), driver.batches_of(recipe, settings, number))
        for number, stage in enumerate(recipe.stages)
    ]
    found = proof.prove(stages)
    say(str(found))
    if found.hits:
        say("\n".join(_listed(found.hits)))
        raise SystemExit(1)


def _listed(hits: Sequence[Hit]) -> Iterator[str]:
    """One line a held-out level: how often it was seen, and where first."""
    by_level = defaultdict(list)
    for hit in hits:
        by_level[hit.level].append(hit)
    for level, seen in sorted(by_level.items()):
        first = seen[0]
        where = f"after push {first.pushes} of the" if first.pushes else "in the prompt of the"
        yield f"{level}: seen {len(seen)} times, first {where} {first.role} demonstration in {first.place}"
