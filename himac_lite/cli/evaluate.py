"""`himac-lite evaluate`: scores of a run or a model, beside the random policy and the base."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from himac_lite.cli.console import note, say
from himac_lite.cli.options import no_less, refuse
from himac_lite.cli.train import OWN
from himac_lite.config import Train
from himac_lite.tasks.registry import WORLDS, choose, for_task, lengths, load_items

HELP = "score a run or a model on levels"


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("what", metavar="RUN_OR_MODEL", help="run folder, model folder, hub id, or sokoban-base")
    p.add_argument("--task", help=f"{', '.join(WORLDS)}, {OWN} (default: as the run was trained; sokoban for a model)")
    p.add_argument("--variant", help=f"preset, {OWN} (default: as the run was trained; himac for a model)")
    p.add_argument("--levels", help="split or file in the task's format (default: core/test, webshop/test …)")
    p.add_argument("--mode", choices=("himac", "flat", "random"), default=None, help="default: that of the variant")
    p.add_argument(
        "--checkpoint", choices=("last", "best"), help="of a run: the newest (default), or best in validation"
    )
    p.add_argument("--limit", type=int, help="score only the first LIMIT levels")
    p.add_argument("--json", action="store_true", help="print one JSON object")
    p.set_defaults(run=run)


def run(given: argparse.Namespace) -> dict[str, Any]:
    no_less(given, limit=1)
    is_run = (Path(given.what) / "manifest.json").is_file()
    if not is_run:
        refuse(given, "a model", f"{given.what} is not a run folder", "checkpoint")
    if given.mode == "random":
        refuse(given, "--mode random", "no model plays", "checkpoint")
    if given.mode in ("flat", "random"):
        refuse(given, f"--mode {given.mode}", "no blueprint is executed", "variant")
    from himac_lite import hierarchy
    from himac_lite.runs import folder as runs

    run = runs.load_run(given.what) if is_run else None
    config = run.config if run else Train()
    other = given.task and choose(given.task, config.task).name != config.task
    world = (run.world(given.task, note) if run and not other else choose(given.task, config.task)).value
    config = config if run and not other else for_task(config, world)
    source = given.levels or for_task(Train(), world).test_levels
    levels = load_items(world, source, "test")[: given.limit]

    from himac_lite.evaluation import scores as scoring  # torch takes seconds to import: after the levels are read
    from himac_lite.policy.loading import load_policy
    from himac_lite.policy.parallel import one_thread_a_worker
    from himac_lite.rollout import evaluate as evaluation
    from himac_lite.runs import training

    one_thread_a_worker()
    task = training.make_task(config, world)
    if run:
        which = given.checkpoint or "last"
        scores = scoring.score_run(
            run, levels, task, mode=given.mode, hierarchy=given.variant, checkpoint=which, say=note
        )
        scored, base, random = (scores[who] for who in ("trained", "base", "random"))
    else:
        variant = hierarchy.choose(given.variant, config.variant).value
        policy, mode = load_policy(training.resolve_model(given.what)), given.mode or training.mode_of(variant)
        list(lengths(task, levels, note))  # for the scores by length
        scored = base = evaluation.evaluate(
            None if mode == "random" else policy, task, levels, mode, rules=variant.test_rules
        )
        random = scored if mode == "random" else evaluation.evaluate(None, task, levels, "random")
    result = scored.as_dict() | {"random_success": random.success, "base_success": base.success}
    result |= {"levels": source, "model": given.what}
    if not given.json:
        low, high = scored.ci95
        say(f"{given.what} on {source}, greedy, {scored.mode}, n = {scored.n}")
        say(f"  success  {100 * scored.success:5.1f} %  (95 % interval {100 * low:.1f}–{100 * high:.1f})")
        if config.rollout.progress_share > 0:
            say(f"  score    {100 * scored.mean_progress:5.1f}")
        say(f"  base     {100 * base.success:5.1f} %\n  random   {100 * random.success:5.1f} %")
        for name, part in scored.by_length.items():
            say(f"  optimal length {name:6} {100 * part['success']:5.1f} %  (n = {part['n']})")
        if scored.blueprint_valid is not None:
            say(f"  valid blueprints {100 * scored.blueprint_valid:.1f} %")
    return result
