"""`himac-lite train`: settings from the command line, a progress bar, and the scores at the end."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from himac_lite.cli.console import say
from himac_lite.cli.options import refuse, with_settings
from himac_lite.config import TRAIN_PRESETS, Train
from himac_lite.tasks import PARTS, World
from himac_lite.tasks.registry import WORLDS, choose, for_task, load_items

HELP = "train a model with HiMAC or a variant"
OWN = "or FILE.py:NAME of your own"
NO_LIMIT = 10**6
"""Iterations of a run whose budget is given in other units."""


def settings(p: argparse.ArgumentParser) -> None:
    """The arguments from which `config_of` makes a configuration."""
    p.add_argument("--preset", choices=TRAIN_PRESETS, help="where to start from (default: quick)")
    p.add_argument("--task", help=f"{', '.join(WORLDS)} (default: sokoban), {OWN}")
    p.add_argument("--variant", help=f"himac (default), another preset, such as flat_grpo, {OWN}")
    p.add_argument("--model", help="folder or hub id of any causal LM (default: the shipped small model)")
    p.add_argument("--adapter", help="folder of an adapter to begin with, for example one made by himac-lite sft")
    p.add_argument("--levels", help="split such as core/train or webshop/train, or a file in the task's format")
    p.add_argument("--seed", type=int)
    limits = p.add_mutually_exclusive_group()
    limits.add_argument("--iterations", type=int, help="budget in iterations (default: that of the preset)")
    limits.add_argument("--minutes", type=float, help="budget in minutes")
    p.add_argument("--env-steps", type=int, help="budget in environment steps; beside another one, the nearest counts")
    p.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="any setting, such as update.lr=5e-4"
    )


def arguments(p: argparse.ArgumentParser) -> None:
    settings(p)
    place = p.add_mutually_exclusive_group()
    place.add_argument("--out", type=Path, help="run folder (default: runs/VARIANT-SEED, numbered)")
    place.add_argument(
        "--resume", type=Path, metavar="RUN",
        help="resume this run, with another budget if one is given; a variant or task of your own is given again",
    )  # fmt: skip
    p.add_argument("--json", action="store_true", help="print one JSON object: the final scores")
    p.set_defaults(run=run)


def run(given: argparse.Namespace) -> dict[str, Any]:
    done, config = _resumed(given) if given.resume else (0, config_of(given))
    if not given.resume:
        _refuse_levels(config, choose(given.task, config.task).value)
    from tqdm.auto import tqdm

    from himac_lite.policy import distributed

    crew = distributed.team()
    out = given.resume or given.out or crew.agree(_next_folder(f"{config.variant}-{config.seed}"))
    from himac_lite.runs.training import train

    given.active_run = out
    quiet = True if not crew.writes else None if given.json else False
    total = config.iterations if config.iterations < NO_LIMIT else None
    with tqdm(total=total, initial=done, unit="iter", file=sys.stderr, disable=quiet) as bar:

        def progress(done: int, total: int, line: Any) -> None:
            bar.n = done
            shown = {"sampled": line.get("micro/success", line.get("macro/success")), "steps": line["env_steps"]}
            if "validation/success" in line:
                shown["validation"] = line["validation/success"]
            bar.set_postfix(shown)

        def tell(text: str) -> None:
            bar.write(text, file=sys.stderr)

        own = {"hierarchy": given.variant, "world": given.task}
        run = train(config, out, resume=bool(given.resume), progress=progress, say=tell, **own)
    results = run.results
    distributed.leave()
    if not crew.writes:
        given.json = False
    elif not given.json:
        say(_summary(results, out, run.config.rollout.progress_share > 0))
    return {**results, "run": str(out)}


def _resumed(given: argparse.Namespace) -> tuple[int, Train]:
    """(iterations so far, the run's own configuration with the given budget). Other options are refused."""
    from himac_lite.runs.folder import load_run

    kept = "a resumed run keeps its settings; leave the option out, or start a new run"
    refuse(given, "--resume", kept, "preset", "model", "adapter", "levels", "seed", "set")
    run = load_run(given.resume)
    return max((line["iteration"] for line in run.metrics()), default=0), _budget(run.config, given)


def _budget(config: Train, given: argparse.Namespace) -> Train:
    """The configuration with the given budget, if one is given, in place of its own."""
    limits = {"iterations": given.iterations, "minutes": given.minutes, "env_steps": given.env_steps}
    if not any(limit is not None for limit in limits.values()):
        return config
    return replace(config, **(limits | ({"iterations": NO_LIMIT} if given.iterations is None else {})))


def config_of(given: argparse.Namespace) -> Train:
    """The preset, with the options that were given."""
    from himac_lite import hierarchy

    config = for_task(TRAIN_PRESETS[given.preset or "quick"], choose(given.task, Train().task).value)
    variant = hierarchy.choose(given.variant, config.variant).name
    chosen = {"variant": variant, "train_levels": given.levels, "seed": given.seed}
    config = _budget(replace(config, **{name: value for name, value in chosen.items() if value is not None}), given)
    if given.levels:  # other levels than the default's are all used, whatever their length
        config = replace(config, rollout=replace(config.rollout, min_length=0))
    if given.model:  # the preset's revision is a commit of another model
        config = replace(config, model=replace(config.model, path=given.model, revision="main"))
    if given.adapter:
        config = replace(config, model=replace(config.model, adapter=given.adapter))
    return with_settings(config, given, {
        "task": "task", "variant": "variant", "model.path": "model", "model.adapter": "adapter",
        "train_levels": "levels", "seed": "seed", "iterations": "iterations", "minutes": "minutes",
        "env_steps": "env_steps",
    })  # fmt: skip


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
