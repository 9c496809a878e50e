"""A whole run: draw levels → iterate → log → validate → checkpoint, from the start or a checkpoint; final scores."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from himac_lite import coevolution
from himac_lite import config as configs
from himac_lite.runs import health, probe, records, folder as runs
from himac_lite.policy import memory, adapter as saving
from himac_lite.rollout.rules import Rules
from himac_lite.coevolution import Iteration, iterate
from himac_lite.config import Train
from himac_lite.runs.curriculum import curriculum
from himac_lite.policy.distributed import Team, team
from himac_lite.errors import ConfigError, ModelError, RunError
from himac_lite.rollout.evaluate import Score, evaluate
from himac_lite.hierarchy import EACH, Hierarchy, preset
from himac_lite.hierarchy.named import own_axes
from himac_lite.policy.loading import LoraSettings, load_policy, resolve_model
from himac_lite.policy.model import Policy
from himac_lite.policy.parallel import one_thread_a_worker
from himac_lite.runs.folder import Checkpoint, Run
from himac_lite.tasks import Task
from himac_lite.tasks.registry import load_items, task_of
from himac_lite.types import Item

Progress = Callable[[int, int, Mapping[str, Any]], None]
"""Called after each iteration: (iterations done, iterations in all, the metrics line)."""

_DRAW, _ITERATE = 0, 1
"""What a derived seed is for."""


@dataclass
class Learner:
    """What changes while a run goes on."""

    policy: Policy
    optimizer: torch.optim.Optimizer
    iteration: int = 0
    env_steps: int = 0
    tokens: int = 0
    seconds: float = 0.0

    def with_(self, task: Task, hierarchy: Hierarchy, config: Train) -> coevolution.Learner:
        return coevolution.Learner(self.policy, self.optimizer, task, hierarchy, config)


def make_task(config: Train) -> Task:
    return task_of(config.task, config.rollout.max_steps, config.rollout.subgoal_budget)


def load_for(config: Train, checkpoint: Checkpoint | None = None, each_role: bool = False) -> Policy:
    """The policy of a configuration, fresh or as a checkpoint left it."""
    model = config.model
    return load_policy(
        resolve_model(model.path), LoraSettings(model.rank, model.alpha, config.seed, each_role),
        adapter=checkpoint.folder if checkpoint else None, start=Path(model.adapter) if model.adapter else None,
        revision=model.revision, observation=model.observation, four_bit=model.four_bit,
        checkpointing=model.checkpointing, team=team(), static_cache=config.rollout.static_cache,
    )  # fmt: skip


def make_learner(config: Train, checkpoint: Checkpoint | None = None, each_role: bool = False) -> Learner:
    """Policy and optimizer, fresh or as a checkpoint left them. each_role: an adapter a role (a checkpoint knows)."""
    policy = load_for(config, checkpoint, each_role)
    optimizer = torch.optim.AdamW(policy.trainable(), lr=config.update.lr, betas=(0.9, 0.95), weight_decay=0.0)
    learner = Learner(policy, optimizer)
    if checkpoint:
        saving.read_state(checkpoint.folder / "optimizer.safetensors", [optimizer])
        for name, value in saving.counters(checkpoint.state, checkpoint.folder).items():
            setattr(learner, name, value)
        if policy.scaler.is_enabled() and (scale := checkpoint.state.get("loss_scale")):
            policy.scaler.load_state_dict(scale)
    return learner


def train(
    config: Train, out: Path, *, resume: bool = False, progress: Progress | None = None,
    hierarchy: Hierarchy | None = None, say: Callable[[str], None] = lambda _: None,
) -> Run:  # fmt: skip
    """Train to the end of the budget and score the result. Returns the run.

    out: a new run folder or, with `resume`, an unfinished one (its own configuration counts; of `config` only the
    budget does). hierarchy: a variant of your own in place of the preset that `config.variant` names;
    to resume such a run, the same one.
    Raises `HimacError`s with one clear line; KeyboardInterrupt leaves a run that can be resumed.
    """
    checkpoint, crew = None, team()
    say = say if crew.writes else lambda _: None
    if resume:
        run = runs.load_run(out)
        config = replace(run.config, iterations=config.iterations, minutes=config.minutes, env_steps=config.env_steps)
        run.refuse_another(hierarchy or preset(config.variant))
        checkpoint = run.latest_checkpoint(say)
    elif crew.writes:
        runs.refuse_existing(out)
    configs.validate(config)
    hierarchy = hierarchy or preset(config.variant)
    levels = {part: load_items(config.task, name, part) for part, name in _level_sets(config).items()}
    task = make_task(config)
    levels["test"] = levels["test"][: config.test_limit]
    levels["train"] = [lv for lv in levels["train"] if task.difficulty(lv) >= config.rollout.min_length]
    if not levels["train"]:
        raise ConfigError(f"no level of {config.train_levels} has {config.rollout.min_length} optimal moves or more")
    if resume:
        _same_levels(run, config, levels)
    one_thread_a_worker()
    say(f"loading {config.model.path} in {'4 bit' if config.model.four_bit else 'full precision'} with LoRA")
    needed = memory.before_loading(resolve_model(config.model.path), config, task, levels["train"], hierarchy.planner)
    say(needed.line())
    learner = make_learner(config, checkpoint, hierarchy.sharing == EACH)
    learner.policy.micro_tokens = crew.least(config.update.micro_tokens or needed.micro_tokens)
    if len(set(crew.gather(learner.iteration))) > 1:
        raise RunError(f"the processes see different checkpoints of {out}: its folder must be the same for all of them")
    if crew.writes and not resume:
        runs.create_run(out, config, levels, own_axes(hierarchy, config.variant))
    crew.gather(None)  # the folder is there
    run = Run(out) if crew.writes else runs.ReadOnlyRun(out)
    with run.alone():
        run.rewind(learner.iteration)
        _to_the_end(run, learner, task, hierarchy, config, levels, progress, say)
    if peak := memory.measured_peak(learner.policy.device):
        say(f"memory, measured: {memory.gigabytes(peak)} at most")
    crew.gather(None)  # the results are there
    return run


def _to_the_end(
    run: Run, learner: Learner, task: Task, hierarchy: Hierarchy, config: Train, levels: Mapping[str, Sequence[Item]],
    progress: Progress | None, say: Callable[[str], None],
) -> None:  # fmt: skip
    crew: Team = learner.policy.team
    run.prune(config.keep_checkpoints)
    probed = [lv for lv in levels["validation"] if task.difficulty(lv) >= config.rollout.min_length]
    begun = time.monotonic() - learner.seconds
    before = crew.agree(run.metrics())
    if learner.iteration == 0 and config.validate_every and not before:
        run.append_metrics({"iteration": 0, **_validation(learner, task, config, hierarchy, levels["validation"])})
    if learner.iteration == 0 and (groups := probe.due(learner.with_(task, hierarchy, config), probed, 0)):
        run.record(0, groups)
    last: Mapping[str, Any] = before[-1] if before else {}
    while not _spent(learner, config):
        line, step = _one(learner, task, hierarchy, config, levels)
        last = line = line | health.follow(line, last)
        learner.seconds = crew.agree(time.monotonic() - begun)
        run.append_metrics({**line, "seconds": round(learner.seconds, 2)})
        groups = _records(learner.policy, step, config.record_levels)
        groups += probe.due(learner.with_(task, hierarchy, config), probed, learner.iteration)
        run.record(learner.iteration, groups, config.keep_rollouts)
        if learner.iteration % config.checkpoint_every == 0 or _spent(learner, config):
            _save(run, learner, config, line)
        for sentence in health.due(line, config.warn_after):
            say(f"iteration {learner.iteration}: {sentence}")
        if progress:
            progress(learner.iteration, config.iterations, line)
    say(f"scoring base and trained model on {len(levels['test'])} levels of {config.test_levels}")
    run.write_results(final_scores(learner, task, config, hierarchy, levels["test"]))


def _level_sets(config: Train) -> dict[str, str]:
    return {"train": config.train_levels, "validation": config.validation_levels, "test": config.test_levels}


def _same_levels(run: Run, config: Train, levels: Mapping[str, Sequence[Item]]) -> None:
    """Raise `RunError` if a level file is not the one that the run began with."""
    for part, name in _level_sets(config).items():
        if runs.levels_hash(levels[part]) != run.manifest.get("levels", {}).get(part, {}).get("sha256"):
            raise RunError(f"{name} has changed since {run.folder} began; restore it, or start a new run")


def _spent(learner: Learner, config: Train) -> bool:
    return (
        learner.iteration >= config.iterations
        or (config.minutes is not None and learner.seconds >= 60 * config.minutes)
        or (config.env_steps is not None and learner.env_steps >= config.env_steps)
    )


def _progress(learner: Learner, config: Train) -> float:
    """The share of the budget that is spent, by whichever limit is nearest."""
    parts = [learner.iteration / max(1, config.iterations)]
    if config.minutes is not None:
        parts.append(learner.seconds / (60 * config.minutes))
    if config.env_steps is not None:
        parts.append(learner.env_steps / config.env_steps)
    return min(1.0, max(parts))


def _one(
    learner: Learner, task: Task, hierarchy: Hierarchy, config: Train, levels: Mapping[str, Sequence[Item]]
) -> tuple[dict[str, Any], Iteration]:
    """One iteration and its line of metrics."""
    for group in learner.optimizer.param_groups:
        group["lr"] = config.update.lr * max(config.update.lr_floor, 1 - _progress(learner, config))
    learner.policy.forget()
    allowed = curriculum(levels["train"], task, config.rollout.curriculum, _progress(learner, config))
    drawn = draw_levels(allowed, config, learner.iteration)
    seed = np.random.SeedSequence([config.seed, _ITERATE, learner.iteration])
    step = iterate(learner.with_(task, hierarchy, config), drawn, seed, learner.iteration)
    learner.iteration += 1
    learner.env_steps += step.env_steps
    learner.tokens += step.tokens
    line: dict[str, Any] = {"iteration": learner.iteration, "env_steps": learner.env_steps, "tokens": learner.tokens}
    line |= {name: round(value, 6) for name, value in step.metrics.items()}
    if config.validate_every and learner.iteration % config.validate_every == 0:
        line |= _validation(learner, task, config, hierarchy, levels["validation"])
    return line, step


def draw_levels(levels: Sequence[Item], config: Train, iteration: int) -> list[Item]:
    """The levels of an iteration: a new random order of the training split every time it is used up."""
    count, out = config.rollout.levels, []
    for i in range(iteration * count, (iteration + 1) * count):
        epoch, place = divmod(i, len(levels))
        order = np.random.default_rng([config.seed, _DRAW, epoch]).permutation(len(levels))
        out.append(levels[order[place]])
    return out


def _validation(
    learner: Learner, task: Task, config: Train, hierarchy: Hierarchy, levels: Sequence[Item]
) -> dict[str, float]:
    result = evaluate(learner.policy, task, levels[: config.validate_on], mode_of(hierarchy), rules=hierarchy.rules)
    partly = {"validation/progress": result.mean_progress} if config.rollout.progress_share else {}
    return {"validation/success": result.success, **partly, "validation/n": result.n}


def mode_of(hierarchy: Hierarchy) -> str:
    """The mode of `evaluate` that a variant is scored in."""
    return "himac" if hierarchy.planner else "flat"


def final_scores(
    learner: Learner, task: Task, config: Train, hierarchy: Hierarchy, levels: Sequence[Item]
) -> dict[str, Any]:
    """Trained, base and random policy on the same held-out levels, greedy."""
    mode = mode_of(hierarchy)
    trained = evaluate(learner.policy, task, levels, mode, rules=hierarchy.rules)
    base = base_score(learner.policy, task, levels, mode, hierarchy.rules)
    random = evaluate(None, task, levels, "random", seed=config.seed)
    return {
        "levels": config.test_levels, "mode": mode, "trained": trained.as_dict(), "base": base.as_dict(),
        "random": random.as_dict(), "iterations": learner.iteration, "env_steps": learner.env_steps,
        "tokens": learner.tokens, "seconds": round(learner.seconds, 1),
    }  # fmt: skip


def base_score(policy: Policy, task: Task, levels: Sequence[Item], mode: str, rules: Rules = Rules()) -> Score:
    """The score of the same 4-bit model as training began with it: its adapter at zero, or `model.adapter`."""
    with policy.as_it_began():
        return evaluate(policy, task, levels, mode, rules=rules)


def _records(policy: Policy, step: Iteration, count: int) -> list[dict[str, Any]]:
    out = []
    for p in range(min(count, len(step.macro or step.micro))):
        macro = (step.macro[p], list(step.macro_adv_pg[p]), int(step.best_p[p])) if step.macro else None
        micro, own = (step.micro[p], list(step.micro_adv_pn[p])) if step.micro else (None, [])
        out.append(records.level_record(micro, own, policy.text, macro))
    return out


# Checkpoints


def _save(run: Run, learner: Learner, config: Train, line: Mapping[str, Any]) -> None:
    state: dict[str, Any] = {name: getattr(learner, name) for name in saving.COUNTERS}
    if learner.policy.scaler.is_enabled():
        state["loss_scale"] = learner.policy.scaler.state_dict()
    if "validation/success" in line:
        state["validation"] = line["validation/success"]
    write = partial(saving.write, peft_model=learner.policy.peft_model, optimizer=learner.optimizer)
    run.save_checkpoint(learner.iteration, state, write, config.keep_checkpoints)


def load_trained(run: Run, which: str = "last", say: Callable[[str], None] = lambda _: None) -> Policy:
    """The trained policy of a run: its model with the newest intact adapter, or that of the best validation score.

    which: ``last`` or ``best``. say: is told of damaged checkpoints.
    """
    if which == "best" and (best := run.best_checkpoint(say)) is None:
        raise RunError(f"{run.folder} has no intact checkpoint with a validation score; say last")
    checkpoint = best if which == "best" else run.latest_checkpoint(say)
    if checkpoint is None:
        raise RunError(f"{run.folder} has no intact checkpoint; train it further by --resume {run.folder}")
    try:
        return load_for(run.config, checkpoint)
    except ModelError as error:
        raise RunError(f"{run.folder}: {error}") from None
