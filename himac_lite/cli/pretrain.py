"""`himac-lite pretrain`: the base model, made again."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from himac_lite.config import BASES, override
from himac_lite.errors import RunError

HELP = "make a small base model from demonstrations"


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("--task", choices=BASES, default="sokoban", help="which task it shall play (default: sokoban)")
    p.add_argument("--out", type=Path, help="folder of the checkpoint (default: models/TASK-base)")
    p.add_argument("--seed", type=int)
    p.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="any setting, such as expert_steps=500"
    )
    p.set_defaults(run=run)


def run(given: argparse.Namespace) -> None:
    from himac_lite.pretraining.pretrain import pretrain
    from himac_lite.pretraining.textbase import pretrain_task

    out = given.out or Path("models") / f"{given.task}-base"
    config = BASES[given.task]
    config = config if given.seed is None else replace(config, seed=given.seed)
    for pair in given.set:
        name, _, value = pair.partition("=")
        config = override(config, name, value)
    if out.exists() and not any((out / n).exists() for n in ("pretrain.json", "unfinished")):
        raise RunError(f"{out} exists and was not made by pretrain; choose another --out")
    if given.task == "sokoban":
        pretrain(config, out)
    else:
        pretrain_task(given.task, config, out)
