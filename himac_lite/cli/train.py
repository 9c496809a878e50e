"""`himac-lite train`: settings from the command line, a progress bar, and the scores at the end."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from himac_lite.config import TRAIN_PRESETS, Train, override
from himac_lite.errors import ConfigError
from himac_lite.tasks import PARTS, World
from himac_lite.tasks.registry import WORLDS, choose, for_task, load_items

HELP = "train a model with HiMAC or a variant"
OWN = "or FILE.py:NAME of your own"


def settings(p: argparse.ArgumentParser) -> None:
    """The arguments from which `config_of` makes a configuration."""
    p.add_argument("--preset", choices=TRAIN_PRESETS, default="quick", help="where to start from (default: quick)")
    p.add_argument("--task", help=f"{', '.join(WORLDS)} (default: sokoban), {OWN}")
    p.add_argument("--variant", help=f"himac (default), another preset, such as flat_grpo, {OWN}")
    p.add_argument("--model", help="folder or hub id of any causal LM (default: the shipped small model)")
    p.add_argument("--adapter", help="folder of an adapter to begin with, for example one made by himac-lite sft")
    p.add_argument("--levels", help="split such as core/train or webshop/train, or a file in the task's format")
    p.add_argument("--seed", type=int)
    budget = p.add_mutually_exclusive_group()
    budget.add_argument("--iterations", type=int)
    budget.add_argument("--minutes", type=float)
    p.add_argument("--env-steps", type=int, help="stop after this many environment steps")
    p.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="any setting, such as update.lr=5e-4"
    )


def arguments(p: argparse.ArgumentParser) -> None:
    settings(p)
    place = p.add_mutually_exclusive_group()
    place.add_argument("--out", type=Path, help="run folder (default: runs/VARIANT-SEED, numbered)")
    place.add_argument("--resume", type=Path, help="resume this run; a variant or task of your own is given again")
    p.add_argument("--json", action="store_true", help="print one JSON object: the final scores")
    p.set_defaults(run=run)


def run(given: argparse.Namespace) -> dict[str, Any]:
    config = config_of(given)
    if not given.resume:
        _refuse_levels(config, choose(given.task, config.task).value)
    from tqdm.auto import tqdm

    from himac_lite.policy import distributed
    from himac_lite.runs import folder as runs

    crew = distributed.team()
    if given.resume:
        out, saved = given.resume, runs.load_run(given.resume).config
        config = saved if not (given.iterations or given.minutes) else replace(
            saved, iterations=config.iterations, minutes=config.minutes
        )  # fmt: skip
    else:
        out = given.out or crew.agree(_next_folder(f"{config.variant}-{config.seed}"))
    from himac_lite.runs.training import train

    given.active_run = out
    quiet = True if not crew.writes else None if given.json else False
    with tqdm(total=config.iterations, unit="iter", file=sys.stderr, disable=quiet) as bar:

        def progress(done: int, total: int, line: Any) -> None:
            bar.n = done
            shown = {"sampled": line.get("micro/success", line.get("macro/success")), "steps": line["env_steps"]}
            if "validation/success" in line:
                shown["validation"] = line["validation/success"]
            bar.set_postfix(shown)

        def say(text: str) -> None:
            bar.write(text, file=sys.stderr)

        own = {"hierarchy": given.variant, "world": given.task}
        run = train(config, out, resume=bool(given.resume), progress=progress, say=say, **own)
    results = run.results
    distributed.leave()
    if not crew.writes:
        given.json = False
    elif not given.json:
        print(_summary(results, out, run.config.rollout.progress_share > 0))
    return {**results, "run": str(out)}


def config_of(given: argparse.Namespace) -> Train:
    """The preset, with the options that were given."""
    from himac_lite import hierarchy

    config = for_task(TRAIN_PRESETS[given.preset], choose(given.task, Train().task).value)
    variant = hierarchy.choose(given.variant, config.variant).name
    chosen = {
        "variant": variant, "train_levels": given.levels, "seed": given.seed,
        "iterations": given.iterations, "minutes": given.minutes, "env_steps": given.env_steps,
    }  # fmt: skip
    config = replace(config, **{name: value for name, value in chosen.items() if value is not None})
    if given.minutes is not None:
        config = replace(config, iterations=10**6)
    if given.levels:  # other levels than the default's are all used, whatever their length
        config = replace(config, rollout=replace(config.rollout, min_length=0))
    if given.model:  # the preset's revision is a commit of another model
        config = replace(config, model=replace(config.model, path=given.model, revision="main"))
    if given.adapter:
        config = replace(config, model=replace(config.model, adapter=given.adapter))
    for pair in given.set:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--set needs NAME=VALUE, not {pair!r}")
        config = override(config, name, value)
    return config


def _refuse_levels(config: Train, world: World) -> None:
    """Raise what is wrong with the user's own levels before torch is imported, which takes seconds."""
    shipped = for_task(Train(), world)
    for part in PARTS:
        if (source := getattr(config, f"{part}_levels")) != getattr(shipped, f"{part}_levels"):
            load_items(world, source, part)


def _next_folder(name: str) -> Path:
    """runs/NAME, or the first free runs/NAME-2, -3 …"""
    folder, number = Path("runs") / name, 1
    while folder.exists():
        number += 1
        folder = Path("runs") / f"{name}-{number}"
    return folder


def _summary(results: dict[str, Any], out: Path, partly: bool) -> str:
    """The scores in a few lines. partly: a partly reached goal counts, so the mean score is shown, too."""
    lines = [f"\n{results['levels']}, greedy, {results['mode']}, n = {results['trained']['n']}:"]
    for name in ("random", "base", "trained"):
        s = results[name]
        low, high = s["ci95"]
        score = f", score {100 * s['mean_progress']:.1f}" if partly else ""
        lines.append(f"  {name:8} {100 * s['success']:5.1f} %  (95 % interval {100 * low:.1f}–{100 * high:.1f}){score}")
    bins = ", ".join(f"{name} moves {100 * b['success']:.0f} %" for name, b in results["trained"]["by_length"].items())
    minutes = results["seconds"] / 60
    return "\n".join([*lines, f"  trained by optimal length: {bins}", f"  {minutes:.1f} minutes; run folder {out}"])
