"""`himac-lite pretrain`: make a base model again."""

from __future__ import annotations

import argparse
from dataclasses import fields, replace
from pathlib import Path

from himac_lite import storage
from himac_lite.cli.console import say
from himac_lite.cli.options import with_settings
from himac_lite.errors import ConfigError, RunError
from himac_lite.tasks.registry import WORLDS

HELP = "make a small base model from demonstrations"


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("--task", choices=WORLDS, default="sokoban", help="which task it will play (default: sokoban)")
    p.add_argument("--out", type=Path, help="folder of the checkpoint (default: models/TASK-base)")
    p.add_argument("--seed", type=int)
    p.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="any setting, such as expert_steps=500"
    )
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
    if out.exists() and not any((out / n).exists() for n in ("pretrain.json", "unfinished")):
        raise RunError(f"{out} exists and was not made by pretrain; choose another --out")
    storage.refuse_unwritable(out)
    driver.pretrain(recipe, settings, out, say)
