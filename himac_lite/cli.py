"""The command line: ``himac-lite train · evaluate · pretrain · levels · doctor``.

Exit code 0; 2 with one clear line for anything the user can put right; 130 for Ctrl-C, with the run resumable.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from himac_lite import __version__
from himac_lite.config import PRESETS, Train, override
from himac_lite.errors import ConfigError, HimacError, RunError


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, and turn errors into a line and an exit code."""
    # Read by OpenMP when torch is first imported, which no command has done yet.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    arguments = _parser().parse_args(argv)
    try:
        result = arguments.run(arguments)
    except HimacError as error:
        return _fail(str(error), 2)
    except ModuleNotFoundError as error:
        return _fail(f"{error.name} is not installed: pip install 'himac-lite[train,qlora]'", 2)
    except BrokenPipeError:
        return 0
    except OSError as error:
        return _fail(f"{error.filename or 'file'}: {error.strerror or error}", 2)
    except KeyboardInterrupt:
        return _fail(f"interrupted{_resume_hint(arguments)}", 130)
    if getattr(arguments, "json", False) and not getattr(arguments, "prints", False):
        print(json.dumps(result))
    return 0


def _fail(message: str, code: int) -> int:
    print(f"himac-lite: {' '.join(message.splitlines())}", file=sys.stderr)
    return code


def _resume_hint(arguments: argparse.Namespace) -> str:
    run = getattr(arguments, "active_run", None)
    return f"; go on with: himac-lite train --resume {run}" if run else ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "himac-lite", description="Hierarchical RL for LLM agents (HiMAC) on Sokoban, on a laptop."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="command")
    _train_arguments(commands.add_parser("train", help="train a model with HiMAC or a variant"))
    _evaluate_arguments(commands.add_parser("evaluate", help="score a run or a model on levels"))
    _pretrain_arguments(commands.add_parser("pretrain", help="make the small base model from solver demonstrations"))
    _levels_arguments(commands.add_parser("levels", help="read, generate, solve and split level files"))
    doctor = commands.add_parser("doctor", help="say what is installed and what will be used")
    doctor.add_argument("--json", action="store_true", help="print one JSON object")
    doctor.set_defaults(run=_doctor)
    return parser


# train


def _train_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("--preset", choices=PRESETS, default="quick", help="where to start from (default: quick)")
    p.add_argument("--variant", help="himac (default), flat_grpo, random_blueprint, joint_update")
    p.add_argument("--model", help="folder or hub id of any causal LM (default: the shipped small model)")
    p.add_argument("--levels", help="split such as core/train, or a level file")
    p.add_argument("--seed", type=int)
    budget = p.add_mutually_exclusive_group()
    budget.add_argument("--iterations", type=int)
    budget.add_argument("--minutes", type=float)
    p.add_argument("--env-steps", type=int, help="stop after so many environment steps")
    place = p.add_mutually_exclusive_group()
    place.add_argument("--out", type=Path, help="run folder (default: runs/VARIANT-SEED, numbered)")
    place.add_argument("--resume", type=Path, help="go on with this run")
    p.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="any setting, such as update.lr=5e-4"
    )
    p.add_argument("--json", action="store_true", help="print one JSON object: the final scores")
    p.set_defaults(run=_train)


def _train(arguments: argparse.Namespace) -> dict[str, Any]:
    config = _train_config(arguments)
    from tqdm.auto import tqdm

    from himac_lite import hierarchy, runs

    hierarchy.preset(config.variant)
    if arguments.resume:
        out, saved = arguments.resume, runs.load_run(arguments.resume).config
        config = saved if not (arguments.iterations or arguments.minutes) else replace(
            saved, iterations=config.iterations, minutes=config.minutes
        )  # fmt: skip
    else:
        out = arguments.out or _next_folder(f"{config.variant}-{config.seed}")
    from himac_lite.training import train

    arguments.active_run = out
    with tqdm(total=config.iterations, unit="iter", file=sys.stderr, disable=None if arguments.json else False) as bar:

        def progress(done: int, total: int, line: Any) -> None:
            bar.n = done
            shown = {"sampled": line["micro/success"], "steps": line["env_steps"]}
            if "validation/success" in line:
                shown["validation"] = line["validation/success"]
            bar.set_postfix(shown)

        def say(text: str) -> None:
            bar.write(text, file=sys.stderr)

        run = train(config, out, resume=bool(arguments.resume), progress=progress, say=say)
    results = run.results
    if not arguments.json:
        print(_summary(results, out))
    return {**results, "run": str(out)}


def _train_config(arguments: argparse.Namespace) -> Train:
    config = PRESETS[arguments.preset]
    given = {
        "variant": arguments.variant, "train_levels": arguments.levels, "seed": arguments.seed,
        "iterations": arguments.iterations, "minutes": arguments.minutes, "env_steps": arguments.env_steps,
    }  # fmt: skip
    config = replace(config, **{name: value for name, value in given.items() if value is not None})
    if arguments.minutes is not None:
        config = replace(config, iterations=10**6)
    if arguments.levels:  # other levels than the default's: all of them, whatever their length
        config = replace(config, rollout=replace(config.rollout, min_length=0))
    if arguments.model:
        config = replace(config, model=replace(config.model, path=arguments.model))
    for pair in arguments.set:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--set wants NAME=VALUE, not {pair!r}")
        config = override(config, name, value)
    return config


def _next_folder(name: str) -> Path:
    """runs/NAME, or the first free runs/NAME-2, -3 …"""
    folder, number = Path("runs") / name, 1
    while folder.exists():
        number += 1
        folder = Path("runs") / f"{name}-{number}"
    return folder


def _summary(results: dict[str, Any], out: Path) -> str:
    lines = [f"\n{results['levels']}, greedy, {results['mode']}, n = {results['trained']['n']}:"]
    for name in ("random", "base", "trained"):
        s = results[name]
        low, high = s["ci95"]
        lines.append(f"  {name:8} {100 * s['success']:5.1f} %  (95 % interval {100 * low:.1f}–{100 * high:.1f})")
    bins = ", ".join(f"{name} moves {100 * b['success']:.0f} %" for name, b in results["trained"]["by_length"].items())
    minutes = results["seconds"] / 60
    return "\n".join([*lines, f"  trained by optimal length: {bins}", f"  {minutes:.1f} minutes; run folder {out}"])


# evaluate


def _evaluate_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("what", metavar="RUN_OR_MODEL", help="run folder, model folder, hub id, or sokoban-base")
    p.add_argument("--levels", default="core/test", help="split or level file (default: core/test)")
    p.add_argument("--mode", choices=("himac", "flat", "random"), default=None, help="default: as the run was trained")
    p.add_argument("--limit", type=int, help="only the first so many levels")
    p.add_argument("--json", action="store_true", help="print one JSON object")
    p.set_defaults(run=_evaluate)


def _evaluate(arguments: argparse.Namespace) -> dict[str, Any]:
    from himac_lite import evaluation, hierarchy, runs, training
    from himac_lite.loading import load_policy
    from himac_lite.sokoban.levels import load_levels

    if arguments.limit is not None and arguments.limit < 1:
        raise ConfigError(f"--limit must be at least 1, not {arguments.limit}")
    levels = load_levels(arguments.levels, "test")[: arguments.limit]
    training.set_threads()
    config, is_run = Train(), (Path(arguments.what) / "manifest.json").is_file()
    if is_run:
        run = runs.load_run(arguments.what)
        config, policy = run.config, training.load_trained(run)
    else:
        policy = load_policy(training.resolve_model(arguments.what))
    task = training.make_task(config)
    mode = arguments.mode or training.mode_of(hierarchy.preset(config.variant))
    scored = evaluation.evaluate(None if mode == "random" else policy, task, levels, mode)
    random = scored if mode == "random" else evaluation.evaluate(None, task, levels, "random")
    base = scored
    if mode != "random" and is_run:
        base = training.base_score(policy, task, levels, mode)
    result = scored.as_dict() | {"random_success": random.success, "base_success": base.success}
    result |= {"levels": arguments.levels, "model": arguments.what}
    if not arguments.json:
        low, high = scored.ci95
        print(f"{arguments.what} on {arguments.levels}, greedy, {mode}, n = {scored.n}")
        print(f"  success  {100 * scored.success:5.1f} %  (95 % interval {100 * low:.1f}–{100 * high:.1f})")
        print(f"  base     {100 * base.success:5.1f} %\n  random   {100 * random.success:5.1f} %")
        for name, part in scored.by_length.items():
            print(f"  optimal length {name:6} {100 * part['success']:5.1f} %  (n = {part['n']})")
        if scored.blueprint_valid is not None:
            print(f"  valid blueprints {100 * scored.blueprint_valid:.1f} %")
    return result


# pretrain, levels, doctor


def _pretrain_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("--out", type=Path, default=Path("models/sokoban-base"), help="folder of the checkpoint")
    p.add_argument("--seed", type=int)
    p.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="any setting, such as expert_steps=500"
    )
    p.set_defaults(run=_pretrain)


def _pretrain(arguments: argparse.Namespace) -> None:
    from himac_lite.config import Pretrain
    from himac_lite.pretrain import pretrain

    config = Pretrain() if arguments.seed is None else Pretrain(seed=arguments.seed)
    for pair in arguments.set:
        name, _, value = pair.partition("=")
        config = override(config, name, value)
    if arguments.out.exists() and not any((arguments.out / n).exists() for n in ("pretrain.json", "stage1")):
        raise RunError(f"{arguments.out} exists and was not made by pretrain; choose another --out")
    pretrain(config, arguments.out)


def _levels_arguments(p: argparse.ArgumentParser) -> None:
    verbs = p.add_subparsers(required=True, metavar="verb")
    read = verbs.add_parser("read", help="check a level file and say what it holds")
    read.add_argument("path", help="level file or split")
    generate = verbs.add_parser("generate", help="write new random levels to a file")
    generate.add_argument("out", type=Path)
    for name, default in (("n", 16), ("seed", 0), ("size", 7), ("boxes", 2), ("min-length", 6), ("max-length", 25)):
        generate.add_argument(f"--{name}", type=int, default=default, help=f"default: {default}")
    generate.add_argument("--max-density", type=float, default=0.25, help="largest share of inner walls; default: 0.25")
    solve = verbs.add_parser("solve", help="solve every level of a file")
    solve.add_argument("path", help="level file or split")
    solve.add_argument("--optimal", choices=("moves", "pushes"), default="moves")
    split = verbs.add_parser("split", help="counts and hashes of a frozen split")
    split.add_argument("name", help="warmup, core or hard; or a part such as core/test")
    split.add_argument("--write", type=Path, metavar="FOLDER", help="make all splits again in this folder")
    for verb, parser in (("read", read), ("generate", generate), ("solve", solve), ("split", split)):
        parser.add_argument("--json", action="store_true", help="print one JSON object")
        parser.set_defaults(run=_levels, verb=verb, prints=True)


def _levels(arguments: argparse.Namespace) -> None:
    from himac_lite.sokoban import commands

    given = {k: v for k, v in vars(arguments).items() if k not in ("run", "verb", "prints")}
    getattr(commands, arguments.verb)(**given)


def _doctor(arguments: argparse.Namespace) -> dict[str, Any]:
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, Any] = {"himac-lite": __version__, "python": sys.version.split()[0], "cpus": os.cpu_count()}
    numerics, models = ("numpy", "numba", "gymnasium"), ("torch", "transformers", "peft", "bitsandbytes")
    for name in (*numerics, *models, "ipywidgets", "plotly"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    if found["torch"]:
        import torch

        found["cuda"] = torch.cuda.is_available()
    if not arguments.json:
        for name, value in found.items():
            print(f"{name:14} {value if value is not None else 'not installed: pip install himac-lite[train,qlora]'}")
    return found


if __name__ == "__main__":
    sys.exit(main())
