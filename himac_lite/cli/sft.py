"""`himac-lite sft`: a warm start for a model of a hub, from expert demonstrations."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from himac_lite import storage
from himac_lite.cli.console import say
from himac_lite.cli.options import no_less, with_settings
from himac_lite.config import TRAIN_PRESETS, Sft, Train
from himac_lite.errors import ConfigError
from himac_lite.tasks.registry import WORLDS, for_task, load_items

HELP = "fine-tune an adapter on expert demonstrations, for `train --adapter`"


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("--task", choices=WORLDS, help="which task is demonstrated (default: sokoban)")
    p.add_argument(
        "--preset", choices=TRAIN_PRESETS, default="qwen2.5-0.5b", help="whose model (default: qwen2.5-0.5b)"
    )
    p.add_argument("--model", help="folder or hub id of any causal LM, instead of the preset's")
    p.add_argument("--levels", help="split such as core/train or webshop/train, or a file of the task's own kind")
    p.add_argument("--steps", type=int)
    p.add_argument("--seed", type=int)
    p.add_argument("--out", type=Path, required=True, help="folder of the adapter; run again, it resumes from there")
    p.add_argument(
        "--validate", type=int, default=64, metavar="N",
        help="score on N validation levels of the same family, such as core/validation (0: none)",
    )  # fmt: skip
    p.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="any setting, such as lr=1e-4")
    p.add_argument("--json", action="store_true", help="print one JSON object")
    p.set_defaults(run=run)


def run(given: argparse.Namespace) -> dict[str, Any]:
    no_less(given, validate=0)
    config = _config(given)
    storage.refuse_unwritable(given.out)
    levels = load_items(config.task, config.levels, "train")
    family = _family(config.levels) or _family(for_task(Train(), config.task).validation_levels)
    held_out = load_items(config.task, family, "validation")[: given.validate] if given.validate else []

    from himac_lite.policy import distributed, memory
    from himac_lite.policy.parallel import one_thread_a_worker
    from himac_lite.pretraining import sft
    from himac_lite.rollout import evaluate as evaluation
    from himac_lite.runs import training

    settings = for_task(Train(seed=config.seed), config.task)
    update = replace(settings.update, micro_tokens=config.micro_tokens)
    settings = replace(settings, model=config.model, update=update)
    task = training.make_task(settings)
    crew, quiet = distributed.team(), given.json
    tell = say if crew.writes and not quiet else lambda _: None
    one_thread_a_worker()
    needed = memory.before_loading(training.resolve_model(config.model.path), settings, task, levels, planner=True)
    tell(needed.line())
    sft.refuse_unsolved(task, levels, tell)
    policy = training.load_for(settings)
    policy.micro_tokens = crew.least(config.micro_tokens or needed.micro_tokens)
    losses = sft.fine_tune(policy, task, levels, config, given.out, tell)
    result: dict[str, Any] = {"out": str(given.out), "steps": config.steps, "loss": losses[-1] if losses else None}
    for mode in ("himac", "flat") if held_out else ():
        score = evaluation.evaluate(policy, task, held_out, mode)
        result[mode] = score.success
        tell(f"{family}, validation, greedy, {mode}: {100 * score.success:.1f} % of {score.n} levels")
    more = "" if config.task == "sokoban" else f"--task {config.task} "
    tell(f"next: himac-lite train {more}--model {config.model.path} --adapter {given.out}")
    distributed.leave()
    given.json = given.json and crew.writes
    return result


def _family(levels: str) -> str:
    """The family of a split: ``core`` of ``core/train``; none of a file or an address."""
    return "" if Path(levels).exists() or "//" in levels else levels.partition("/")[0]


def _config(given: argparse.Namespace) -> Sft:
    model = TRAIN_PRESETS[given.preset].model
    if given.model:
        model = replace(model, path=given.model, revision="main")
    task = given.task or "sokoban"
    levels = given.levels or for_task(Train(), task).train_levels
    config = Sft(task=task, levels=levels, model=model)
    chosen = {"steps": given.steps, "seed": given.seed}
    config = replace(config, **{name: value for name, value in chosen.items() if value is not None})
    options = {"task": "task", "levels": "levels", "model.path": "model", "steps": "steps", "seed": "seed"}
    config = with_settings(config, given, options)
    for name, low in (("steps", 1), ("batch", 3), ("save_every", 1), ("micro_tokens", 0), ("seed", 0)):
        if getattr(config, name) < low:
            raise ConfigError(f"{name} must be at least {low}; it is {getattr(config, name)}")
    return config
