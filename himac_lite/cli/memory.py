"""`himac-lite memory`: what a training will need, before anything is loaded."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

HELP = "estimate what a training needs in memory"


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
    from himac_lite.tasks.registry import load_items

    config = validate(config_of(given))
    variant, levels = hierarchy.preset(config.variant), load_items(config.task, config.train_levels, "train")
    path, task = training.resolve_model(config.model.path), training.make_task(config)
    found = memory.before_loading(path, config, task, levels, variant.planner)
    if not given.json:
        print(found.line())
    return asdict(found) | {"total": found.total}
