"""`himac-lite reproduce`: the ablation table and the sample-efficiency curves, seed by seed, resumable."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from himac_lite.cli.console import note, say
from himac_lite.cli.options import no_less, refuse, with_settings
from himac_lite.cli.train import OWN
from himac_lite.errors import ConfigError

HELP = "train and score a grid of variants and seeds with equal environment steps"


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "grid", choices=("ablations", "efficiency", "webshop", "alfworld"),
        help="the paper's ablations or the flat baselines on Sokoban; or HiMAC and flat GRPO on another task",
    )  # fmt: skip
    p.add_argument("--variants", help=f"only these, separated by commas: any presets, {OWN}")
    p.add_argument("--task", help=f"play ablations or efficiency on another task: webshop, alfworld, {OWN}")
    p.add_argument("--seeds", type=int, help="seeds per variant (default: 3; on Sokoban 5 for himac and flat_grpo)")
    p.add_argument("--workers", type=int, help="runs at the same time, each on its own cores (default: 1)")
    p.add_argument("--minutes", type=float, help="stop after this time; the same command resumes")
    p.add_argument("--env-steps", type=int, help="environment steps of training per run (default: 410000 on Sokoban)")
    p.add_argument("--out", type=Path, help="folder of rows and curves (default: data/runs/reproduce, data/runs/TASK)")
    p.add_argument("--runs", type=Path, help="folder of unfinished runs (default: runs/reproduce, runs/TASK)")
    p.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting that all runs share")
    p.add_argument("--list", action="store_true", help="print the finished rows (shipped ones if there are no others)")
    p.add_argument("--json", action="store_true", help="print one JSON object")
    p.set_defaults(run=run)


def run(given: argparse.Namespace) -> dict[str, Any]:
    no_less(given, workers=1, seeds=1, env_steps=1, minutes=0)
    if given.list:
        refuse(given, "--list", "nothing is trained", "workers", "minutes", "env_steps", "runs", "set")
    from himac_lite import storage
    from himac_lite.evaluation import reproduce

    settings = reproduce.settings_for(given.grid, given.task)
    name = "reproduce" if settings.task == "sokoban" else settings.task
    out, scratch = given.out or Path("data/runs") / name, given.runs or Path("runs") / name
    places = [out] if given.out or not given.list else [out, storage.data_dir() / "runs" / name]
    if given.env_steps is not None:
        settings = replace(settings, env_steps=given.env_steps)
    for pair in given.set:
        if pair.partition("=")[0] in ("variant", "task", "seed"):
            raise ConfigError(f"--set needs NAME=VALUE of a setting that all runs share, not {pair!r}")
    settings = with_settings(settings, given, {"env_steps": "env_steps"})
    variants = None if given.variants is None else [name.strip() for name in given.variants.split(",")]
    wanted = reproduce.cells(given.grid, variants, given.seeds, given.task)
    if given.list:
        kept: list[reproduce.Row] = []
        for out in places:
            if kept := reproduce.read_rows(out):
                break
        rows, left = reproduce.chosen(wanted, kept), reproduce.missing(wanted, kept)
    else:
        rows, left = reproduce.reproduce(
            wanted, out, scratch, settings=settings, workers=given.workers or 1, minutes=given.minutes,
            say=note if given.json else say,
        )  # fmt: skip
    if not given.json:
        say(f"{out}:\n{reproduce.table_text(rows)}" if rows else f"no such row in {' or '.join(map(str, places))} yet")
        if left:
            then = "the same command without --list trains them" if given.list else "the same command resumes"
            say(f"{len(left)} runs are left: {', '.join(cell.name for cell in left)}; {then}")
    return {"grid": given.grid, "rows": len(rows), "left": [cell.name for cell in left], "out": str(out)}
