"""`himac-lite memory`: an estimate of the memory that a training needs, before anything is loaded."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from himac_lite.cli.console import say

HELP = "estimate the memory that a training needs; takes the options of train, whether or not they cost memory"


def arguments(p: argparse.ArgumentParser) -> None:
    from himac_lite.cli import train

    train.settings(p)
    p.add_argument("--json", action="store_true", help="print one JSON object: bytes")
    p.set_defaults(run=run)


def run(given: argparse.Namespace) -> dict[str, Any]:
    from himac_lite import hierarchy
    from himac_lite.cli.train import config_of
    from himac_lite.config import validate
    from himac_lite.policy import memory
    from himac_lite.runs import training
    from himac_lite.tasks.registry import choose, load_items

    config = validate(config_of(given))
    variant = hierarchy.choose(given.variant, config.variant).value
    world = choose(given.task, config.task).value
    levels, task = load_items(world, config.train_levels, "train"), training.make_task(config, world)
    found = memory.before_loading(training.resolve_model(config.model.path), config, task, levels, variant.planner)
    if not given.json:
        say(found.line())
    return asdict(found) | {"total": found.total}
