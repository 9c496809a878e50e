"""A whole run, fresh or resumed: draw levels → iterate → log → validate → checkpoint; final scores."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from himac_lite import config as configs
from himac_lite.coevolution import Iteration, Learner, iterate, optimizers_for
from himac_lite.config import Train
from himac_lite.errors import ConfigError, ModelError, RunError, checked
from himac_lite.hierarchy import EACH, Hierarchy, choose
from himac_lite.policy import adapter as saving
from himac_lite.policy import memory
from himac_lite.policy.distributed import team
from himac_lite.policy.loading import LoraSettings, load_policy, resolve_model, weights_sha256
from himac_lite.policy.model import Policy
from himac_lite.policy.parallel import one_thread_a_worker
from himac_lite.policy.products import precision_here
from himac_lite.rollout.evaluate import Score, evaluate
from himac_lite.rollout.rules import Rules
from himac_lite.runs import budget, health, probe, records
from himac_lite.runs import folder as runs
from himac_lite.runs.checkpoints import Checkpoint, Say
from himac_lite.runs.curriculum import curriculum, level_sets, long_enough, read_levels
from himac_lite.runs.folder import Run
from himac_lite.tasks import Task, World, registry
from himac_lite.tasks.registry import lengths, task_of
from himac_lite.types import Item

Progress = Callable[[int, int, Mapping[str, Any]], None]
"""Called after each iteration: (iterations done, iterations planned, the line of metrics)."""

_DRAW, _ITERATE = 0, 1
"""Purposes of derived seeds."""
RECENT = 5
"""Iterations whose live shares `Hierarchy.spend` sees, as a mean."""


def make_task(config: Train, world: World | None = None) -> Task:
    """The task of a configuration; `world` if it is not a shipped one."""
    return task_of(world or config.task, config.rollout.max_steps, config.rollout.subgoal_budget)


def load_for(config: Train, checkpoint: Checkpoint | None = None, each_role: bool = False) -> Policy:
    """The policy of a configuration, fresh or from a checkpoint."""
    model = config.model
    return load_policy(
        resolve_model(model.path), LoraSettings(model.rank, model.alpha, config.seed, each_role),
        adapter=checkpoint.folder if checkpoint else None, start=Path(model.adapter) if model.adapter else None,
        revision=model.revision, observation=model.observation, four_bit=model.four_bit,
        checkpointing=model.checkpointing, team=team(), static_cache=config.rollout.static_cache,
        precision=model.precision,
    )  # fmt: skip


def make_learner(
    config: Train, hierarchy: Hierarchy | None = None, task: Task | None = None, checkpoint: Checkpoint | None = None
) -> Learner:
    """Policy and optimizers, fresh or from a checkpoint. hierarchy and task: by default those that `config` names."""
    hierarchy = hierarchy or choose(None, config.variant).value
    policy = load_for(config, checkpoint, hierarchy.sharing == EACH)
    optimizers = optimizers_for(policy.trainable(), hierarchy, config.update.lr)
    if checkpoint:
        saving.read_state(checkpoint.folder / "optimizer.safetensors", distinct(optimizers))
        if policy.scaler.is_enabled() and (scale := checkpoint.state.get("loss_scale")):
            policy.scaler.load_state_dict(scale)
    return Learner(policy, optimizers, task or make_task(config), hierarchy, config)


def distinct(optimizers: Mapping[str, torch.optim.Optimizer]) -> list[torch.optim.Optimizer]:
    """Each optimizer once, in the order of the policy levels."""
    return list(dict.fromkeys(optimizers.values()))


@dataclass
class Training:
    """A run under way: its learner, its levels, and what was spent so far."""

    run: Run
    learner: Learner
    levels: Mapping[str, Sequence[Item]]
    """Part (train, validation, test) → levels."""
    iteration: int = 0
    env_steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    recent: deque[Mapping[str, Any]] = field(default_factory=partial(deque, maxlen=RECENT))
    """The last lines of metrics."""

    def to_the_end(self, progress: Progress | None, say: Say) -> None:
        """Iterate until the budget is spent, then score."""
        config, crew = self.learner.config, self.learner.policy.team
        self.run.prune(config.keep_checkpoints)
        begun = time.monotonic() - self.seconds
        before = crew.agree(self.run.metrics())
        if self.iteration == 0:
            if config.validate_every and not before:
                self.run.append_metrics({"iteration": 0, **self.validation()})
            if groups := self.probe():
                self.run.record(0, groups)
        line: Mapping[str, Any] = before[-1] if before else {}
        self.recent.extend(before)
        while not self.spent:
            made, step = self.one_iteration()
            self.seconds = crew.agree(time.monotonic() - begun)
            line = made | health.follow(made, line) | {"seconds": round(self.seconds, 2)}
            self.run.append_metrics(line)
            self.recent.append(line)
            self.run.record(self.iteration, self.records_of(step) + self.probe(), config.keep_rollouts)
            if self.iteration % config.checkpoint_every == 0 or self.spent:
                self.save(line)
            for sentence in health.due(line, config.warn_after):
                say(f"iteration {self.iteration}: {sentence}")
            if progress:
                progress(self.iteration, config.iterations, line)
        list(lengths(self.learner.task, self.levels["test"], say))  # for the scores by length
        say(f"scoring base and trained model on {len(self.levels['test'])} levels of {config.test_levels}")
        self.run.write_results(self.final_scores())

    @property
    def share(self) -> float:
        return budget.share(self.learner.config, {name: getattr(self, name) for name in saving.COUNTERS})

    @property
    def spent(self) -> bool:
        return self.share >= 1

    def one_iteration(self) -> tuple[dict[str, Any], Iteration]:
        """One iteration and its line of metrics."""
        learner, config, share = self.learner, self.learner.config, min(1.0, self.share)
        for group in (g for optimizer in distinct(learner.optimizers) for g in optimizer.param_groups):
            group["lr"] = config.update.lr * max(config.update.lr_floor, 1 - share)
        learner.policy.forget()
        allowed = curriculum(self.levels["train"], learner.task, config.rollout.curriculum, share)
        seed = np.random.SeedSequence([config.seed, _ITERATE, self.iteration])
        step = iterate(learner, draw_levels(allowed, config, self.iteration), seed, self.iteration, self.live)
        self.iteration += 1
        self.env_steps += step.env_steps
        self.tokens += step.tokens
        line: dict[str, Any] = {"iteration": self.iteration, "env_steps": self.env_steps, "tokens": self.tokens}
        line |= {name: round(value, 6) for name, value in step.metrics.items()}
        if config.validate_every and self.iteration % config.validate_every == 0:
            line |= self.validation()
        return line, step

    @property
    def live(self) -> tuple[float, float] | None:
        """The live shares of macro and micro groups, means over recent iterations; None before both are known."""
        shares = [
            [1 - line[name] for line in self.recent if name in line]
            for name in ("macro/zero_variance", "micro/zero_variance")
        ]
        return (float(np.mean(shares[0])), float(np.mean(shares[1]))) if all(shares) else None

    def validation(self) -> dict[str, float]:
        config, hierarchy = self.learner.config, self.learner.hierarchy
        levels = self.levels["validation"][: config.validate_on]
        found = evaluate(self.learner.policy, self.learner.task, levels, mode_of(hierarchy), rules=hierarchy.test_rules)
        partly = {"validation/progress": found.mean_progress} if config.rollout.progress_share else {}
        return {"validation/success": found.success, **partly, "validation/n": found.n}

    @cached_property
    def probed(self) -> list[Item]:
        task, config, every = self.learner.task, self.learner.config, self.levels["validation"]
        least = config.rollout.min_length
        return list(islice((lv for lv in every if not least or task.difficulty(lv) >= least), config.probe_levels))

    def probe(self) -> list[dict[str, Any]]:
        """Records of the probed levels, if they are due."""
        return probe.due(self.learner, self.probed, self.iteration)

    def records_of(self, step: Iteration) -> list[dict[str, Any]]:
        """The groups of the first levels of an iteration, as rollouts/*.jsonl stores them."""
        out = []
        for p in range(min(self.learner.config.record_levels, len(step.macro or step.micro))):
            macro = (step.macro[p], list(step.macro_adv_pg[p]), int(step.best_p[p])) if step.macro else None
            micro, own = (step.micro[p], list(step.micro_adv_pn[p])) if p < len(step.micro) else (None, [])
            out.append(records.level_record(micro, own, self.learner.policy.text, macro))
        return out

    def save(self, line: Mapping[str, Any]) -> None:
        """A checkpoint, with the validation score of this iteration if there is one."""
        policy, optimizers = self.learner.policy, distinct(self.learner.optimizers)
        state: dict[str, Any] = {name: getattr(self, name) for name in saving.COUNTERS}
        if policy.scaler.is_enabled():
            state["loss_scale"] = policy.scaler.state_dict()
        if "validation/success" in line:
            state["validation"] = line["validation/success"]
        write = partial(saving.write, peft_model=policy.peft_model, optimizers=optimizers)
        self.run.save_checkpoint(self.iteration, state, write, self.learner.config.keep_checkpoints)

    def final_scores(self) -> dict[str, Any]:
        """Trained, base and random policy on the same held-out levels, greedy."""
        policy, task, config = self.learner.policy, self.learner.task, self.learner.config
        levels, mode, rules = self.levels["test"], mode_of(self.learner.hierarchy), self.learner.hierarchy.test_rules
        trained = evaluate(policy, task, levels, mode, rules=rules)
        base = base_score(policy, task, levels, mode, rules)
        random = evaluate(None, task, levels, "random", seed=config.seed)
        return {
            "levels": config.test_levels, "mode": mode, "rules": self.learner.hierarchy.rule_names,
            "trained": trained.as_dict(), "base": base.as_dict(), "random": random.as_dict(),
            "iterations": self.iteration, "env_steps": self.env_steps, "tokens": self.tokens,
            "seconds": round(self.seconds, 1),
        }  # fmt: skip


@checked
def train(
    config: Train, out: str | os.PathLike[str], *, resume: bool = False, progress: Progress | None = None,
    hierarchy: Hierarchy | str | None = None, world: World | str | None = None, say: Say = lambda _: None,
) -> Run:  # fmt: skip
    """Train to the end of the budget and score the result. Returns the run.

    out: a new run folder or, with `resume`, an existing one. A resumed run keeps its configuration; `config` may
    change only the budget. A run that has its scores and no budget left is returned as it is. progress: called after
    each iteration. hierarchy: a variant of your own, as a value or ``FILE.py:NAME``, in place of the preset
    `config.variant`. world: a task of your own in the same way; `config` is then made with `tasks.registry.for_task`.
    To resume a run of your own variant or task, give the same again. say: called with one line per message.
    Raises `HimacError`s with one clear line. KeyboardInterrupt leaves a run that can be resumed.
    """
    out, checkpoint, crew = Path(out), None, team()
    say = say if crew.writes else lambda _: None
    if resume:
        run = runs.load_run(out)
        variant, played = run.hierarchy(hierarchy), run.world(world)
        config = config if hierarchy is None else replace(config, variant=run.config.variant)
        config = budget.continued(out, run.config, configs.validate(config))
        checkpoint = run.latest_checkpoint(say)
    else:
        if crew.writes:
            runs.refuse_existing(out)
        variant, played = choose(hierarchy, config.variant), registry.choose(world, config.task)
        config = replace(config, variant=variant.name)
        if not torch.cuda.is_available():  # the manifest records the precision in use
            used = crew.agree(precision_here(config.model.precision))
            config = replace(config, model=replace(config.model, precision=used))
    if played.name != config.task:
        raise ConfigError(f"the configuration is of task {config.task}; make it with for_task(config, {played.name})")
    config = configs.validate(config)
    spent = saving.counters(checkpoint.state, checkpoint.folder) if checkpoint else {}
    if len(set(crew.gather(spent.get("iteration")))) > 1:
        raise RunError(f"the processes see different checkpoints of {out}: its folder must be the same for all of them")
    if spent and (limits := budget.reached(config, spent)):
        say(f"{out} has spent its budget, {limits}; a larger one continues it: {budget.OPTIONS}")
        if crew.agree(bool(run.results)):
            return run
    task, levels = make_task(config, played.value), read_levels(config, played.value)
    one_thread_a_worker()
    say(f"loading {config.model.path} in {'4 bit' if config.model.four_bit else 'full precision'} with LoRA")
    path, planner = resolve_model(config.model.path), variant.value.planner
    needed = memory.before_loading(path, config, task, levels["train"], planner)
    say(needed.line())
    levels["train"] = long_enough(config, task, levels["train"], say)  # may take minutes: after all that is refused
    if resume:
        _refuse_other_files(run, config, levels)
    learner = make_learner(config, variant.value, task, checkpoint)
    learner.policy.micro_tokens = crew.least(config.update.micro_tokens or needed.micro_tokens)
    if crew.writes and not resume:
        made_from = {"hierarchy": variant.origin, "world": played.origin, "base_sha256": weights_sha256(path)}
        made_from |= {"rules": variant.value.rule_names}
        runs.create_run(out, config, levels, made_from)
    crew.gather(None)  # the folder is there
    training = Training(Run(out) if crew.writes else runs.ReadOnlyRun(out), learner, levels, **spent)
    with training.run.alone():
        training.run.set_config(config)
        training.run.rewind(training.iteration)
        training.to_the_end(progress, say)
    if peak := memory.measured_peak(learner.policy.device):
        say(f"memory, measured: {memory.gigabytes(peak)} at most")
    crew.gather(None)  # the results are there
    return training.run


def other_base(run: Run) -> str | None:
    """One line if the base model's weights are not those that the run's manifest has the hash of."""
    began, path = run.manifest.get("base_sha256"), run.config.model.path
    if began is None or began == (found := weights_sha256(path)):
        return None
    return f"{run.folder} was begun with another {path}: SHA-256 {began!s:.12}, here {found:.12}"


def _refuse_other_files(run: Run, config: Train, levels: Mapping[str, Sequence[Item]]) -> None:
    """Raise `RunError` if a level file or the base model is not the one that the run was begun with."""
    for part, name in level_sets(config).items():
        if runs.levels_hash(levels[part]) != run.manifest.get("levels", {}).get(part, {}).get("sha256"):
            raise RunError(f"{name} has changed since {run.folder} began; restore it, or start a new run")
    if other := other_base(run):
        raise RunError(f"{other}; restore it, or start a new run")


def draw_levels(levels: Sequence[Item], config: Train, iteration: int) -> list[Item]:
    """The levels of an iteration. Each pass through the training split has its own random order."""
    count, out = config.rollout.levels, []
    for i in range(iteration * count, (iteration + 1) * count):
        epoch, place = divmod(i, len(levels))
        order = np.random.default_rng([config.seed, _DRAW, epoch]).permutation(len(levels))
        out.append(levels[order[place]])
    return out


def mode_of(hierarchy: Hierarchy) -> str:
    """The mode of `evaluate` in which a variant is scored."""
    return "himac" if hierarchy.planner else "flat"


def base_score(policy: Policy, task: Task, levels: Sequence[Item], mode: str, rules: Rules = Rules()) -> Score:
    """The score of the model that training began with: the adapter at zero, or `model.adapter`."""
    with policy.as_it_began():
        return evaluate(policy, task, levels, mode, rules=rules)


def load_trained(run: Run, which: str = "last", say: Say = print) -> Policy:
    """The trained policy of a run: its model with the newest intact adapter, or that of the best validation score.

    which: ``last`` or ``best``. say: called with a line for each damaged checkpoint, and if the base model's weights
    are not those that the run was begun with.
    """
    if which == "best" and (best := run.best_checkpoint(say)) is None:
        raise RunError(f"{run.folder} has no intact checkpoint with a validation score; say last")
    checkpoint = best if which == "best" else run.latest_checkpoint(say)
    if checkpoint is None:
        raise RunError(f"{run.folder} has no intact checkpoint; train it further with --resume {run.folder}")
    try:
        policy = load_for(run.config, checkpoint)
    except ModelError as error:
        raise RunError(f"{run.folder}: {error}") from None
    if other := other_base(run):
        say(f"{other}; the adapter was not trained for these weights")
    return policy
