"""`himac-lite pretrain`: the base model, made again."""

from __future__ import annotations

import argparse
from pathlib import Path

from himac_lite.config import override
from himac_lite.errors import RunError

HELP = "make the small base model from solver demonstrations"


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("--out", type=Path, default=Path("models/sokoban-base"), help="folder of the checkpoint")
    p.add_argument("--seed", type=int)
    p.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="any setting, such as expert_steps=500"
    )
    p.set_defaults(run=run)


def run(given: argparse.Namespace) -> None:
    from himac_lite.config import Pretrain
    from himac_lite.pretrain import pretrain

    config = Pretrain() if given.seed is None else Pretrain(seed=given.seed)
    for pair in given.set:
        name, _, value = pair.partition("=")
        config = override(config, name, value)
    if given.out.exists() and not any((given.out / n).exists() for n in ("pretrain.json", "unfinished")):
        raise RunError(f"{given.out} exists and was not made by pretrain; choose another --out")
    pretrain(config, given.out)
