"""One frozen dataclass a concern, a docstring under every field, and the presets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any

from himac_lite.errors import ConfigError


@dataclass(frozen=True)
class Pretrain:
    """How the base model is made (`himac-lite pretrain`)."""

    width: int = 128
    """Hidden size; a multiple of 64 (the block of NF4)."""
    layers: int = 8
    """Transformer blocks."""
    heads: int = 4
    """Attention heads."""
    batch_tokens: int = 24_576
    """Tokens of a batch, padding included."""
    expert_steps: int = 1500
    """Batches of the first stage: expert demonstrations, constant learning rate."""
    mixed_steps: int = 500
    """Batches of the second stage: mixed demonstrations, learning rate down to zero, NF4 in the loop."""
    habit_steps: int = 150
    """Batches of the third stage: sloppier demonstrations, a third of that learning rate down to zero, NF4 as well."""
    lr_muon: float = 3e-3
    """Learning rate of the hidden matrices (Muon, RMS-matched to AdamW)."""
    lr_adam: float = 3e-3
    """Learning rate of embeddings and norms (AdamW)."""
    noise: float = 0.05
    """Share of random steps in expert play and segments; not learnt, only recovered from."""
    micro_tokens: int = 4096
    """Tokens of one forward and backward pass: activations that stay in the cache; micro-batches go to all cores."""
    seed: int = 0
    """Seed of weights and demonstrations."""


@dataclass(frozen=True)
class Model:
    """Which model, and its adapter."""

    path: str = "sokoban-base"
    """A folder, a hub id, or the name of a shipped model."""
    rank: int = 16
    """LoRA rank, on every linear layer."""
    alpha: int = 32
    """LoRA scale is alpha / rank."""
    four_bit: bool = True
    """Keep the base weights in NF4."""


@dataclass(frozen=True)
class Rollout:
    """How experience is gathered."""

    levels: int = 32
    """P: levels of an iteration."""
    min_length: int = 10
    """Train only on levels of at least this optimal length: all members solve short ones, which teaches nothing."""
    group: int = 8
    """G and N: blueprints a level, and executions of the chosen one (paper: 8)."""
    temperature: float = 1.0
    """Sampling temperature of blueprints (phase A) and actions (phase B)."""
    max_steps: int = 50
    """Step limit of an episode."""
    subgoal_budget: int = 20
    """Steps after which a sub-goal is left without <sub_done>."""
    progress_share: float = 0.0
    """What a failed episode is worth: this times the share of boxes in place (success: 1); 0 is the sparse reward."""


@dataclass(frozen=True)
class Update:
    """How a phase is learnt from."""

    lr: float = 1e-3
    """Learning rate of AdamW on the LoRA parameters at the start; it falls linearly as the budget is spent …"""
    lr_floor: float = 0.1
    """… to this share of it."""
    minibatches: int = 4
    """Optimizer steps a pass over a phase, at most …"""
    groups_per_step: int = 8
    """… and fewer where so few groups have an advantage that a step would rest on less than these."""
    epochs: int = 2
    """Passes over a phase; more than one relies on the clipped ratio."""
    clip_low: float = 0.2
    """The ratio is clipped below 1 − clip_low …"""
    clip_high: float = 0.2
    """… and above 1 + clip_high."""
    beta: float = 0.01
    """Weight of the KL divergence from the base model (paper: 0.01)."""
    grad_clip: float = 1.0
    """Largest norm of a gradient."""
    micro_tokens: int = 2048
    """Tokens of one forward and backward pass: bounds memory, does not change the gradient."""


@dataclass(frozen=True)
class Train:
    """One training run (`himac-lite train`)."""

    task: str = "sokoban"
    """Which environment: one of `TASKS`."""
    variant: str = "himac"
    """A preset of `himac_lite.hierarchy`."""
    train_levels: str = "core/train"
    """Split or file to train on."""
    validation_levels: str = "core/validation"
    """Split or file for the curve during training."""
    test_levels: str = "core/test"
    """Split or file for the figures at the end; nothing is chosen by them."""
    iterations: int = 40
    """Iterations of phase A and phase B."""
    minutes: float | None = None
    """Stop after so many minutes even if iterations are left."""
    env_steps: int | None = None
    """Stop after so many environment steps even if iterations are left: the budget for comparisons."""
    seed: int = 0
    """Seed of everything: levels drawn, samples, LoRA's start."""
    validate_every: int = 10
    """Iterations between two points of the validation curve; 0 for none."""
    validate_on: int = 128
    """Levels of a point of the validation curve."""
    checkpoint_every: int = 5
    """Iterations between two checkpoints."""
    keep_checkpoints: int = 2
    """Checkpoints kept, the newest ones; the one with the best validation score stays besides."""
    keep_rollouts: int | None = None
    """Files of rollouts/ kept, the newest ones; all by default."""
    warn_after: int = 5
    """Iterations in a row without a signal, or of a collapse, after which a run says so (docs/metrics.md, health)."""
    record_levels: int = 4
    """Levels of each iteration whose groups are written to rollouts/."""
    probe_levels: int = 2
    """Validation levels whose groups are recorded again and again, for the co-evolution strip; 0 for none."""
    probe_every: int = 10
    """Iterations between two such records; the first is that of the untrained model."""
    test_limit: int | None = None
    """Use only the first so many test levels (smoke tests)."""
    model: Model = field(default_factory=Model)
    rollout: Rollout = field(default_factory=Rollout)
    update: Update = field(default_factory=Update)


PRESETS: dict[str, Train] = {
    "quick": Train(),
    "colab": Train(
        iterations=60, model=Model(path="Qwen/Qwen2.5-0.5B-Instruct"), rollout=Rollout(levels=8), update=Update(lr=2e-4)
    ),
    "paper": Train(iterations=200, rollout=Rollout(levels=16), update=Update(lr=1e-3)),
}


TASKS: dict[str, dict[str, Any]] = {
    "sokoban": {},
    "webshop": {
        "train_levels": "webshop/train", "validation_levels": "webshop/validation", "test_levels": "webshop/test",
        "model.path": "webshop-base", "rollout.levels": 16, "rollout.min_length": 0, "rollout.max_steps": 15,
        "rollout.subgoal_budget": 6, "rollout.progress_share": 1.0, "validate_on": 64,
    },
    "alfworld": {
        "train_levels": "household/train", "validation_levels": "household/validation",
        "test_levels": "household/test", "model.path": "alfworld-base", "rollout.levels": 8, "rollout.min_length": 0,
        "rollout.max_steps": 50, "rollout.subgoal_budget": 20, "validate_on": 48,
    },
}  # fmt: skip
"""Tasks, and the settings in which each differs from Sokoban's."""


def for_task(config: Train, task: str) -> Train:
    """The config with a task and its settings; what a preset has set otherwise than the default stays.

    Raises `ConfigError` that lists the tasks.
    """
    if task not in TASKS:
        raise ConfigError(f"unknown task {task!r}; choose one of {', '.join(TASKS)}")
    config, default = replace(config, task=task), Train()
    for path, value in TASKS[task].items():
        name, _, rest = path.partition(".")
        part, plain = getattr(config, name), getattr(default, name)
        if rest and getattr(part, rest) == getattr(plain, rest):
            config = replace(config, **{name: replace(part, **{rest: value})})
        elif not rest and part == plain:
            config = replace(config, **{name: value})
    return config


def override(config: Any, path: str, value: str) -> Any:
    """A copy of a nested config with one field, such as ``update.lr``, set from text.

    Raises `ConfigError` that names the field and what is allowed.
    """
    name, _, rest = path.partition(".")
    known = {f.name: f for f in fields(config)}
    if name not in known:
        raise ConfigError(f"unknown setting {name!r}; choose one of {', '.join(known)}")
    old = getattr(config, name)
    if rest:
        if not is_dataclass(old):
            raise ConfigError(f"{name!r} has no parts; say {name}=VALUE")
        return replace(config, **{name: override(old, rest, value)})
    if is_dataclass(old):
        raise ConfigError(f"{name!r} has parts; say one of " + ", ".join(f"{name}.{f.name}" for f in fields(old)))
    try:
        new = value if isinstance(old, str) else json.loads(value)
    except json.JSONDecodeError:
        new = value
    return replace(config, **{name: _checked(name, old, new, str(known[name].type))})


def _checked(name: str, old: Any, new: Any, annotation: str) -> Any:
    if new is None and "None" in annotation:
        return None
    if annotation.startswith("float") and type(new) is int and abs(new) < 1e18:
        new = float(new)
    wanted = annotation.split(" ")[0]
    if type(new).__name__ != wanted:
        raise ConfigError(f"{name} must be {annotation}, not {new!r:.80}")
    return new


def validate(config: Train) -> Train:
    """The config itself, if every number is in its range; `ConfigError` with the field and the range otherwise."""
    bounds = {
        "iterations": (config.iterations, 0, 10**9), "rollout.levels": (config.rollout.levels, 1, 10**6),
        "minutes": (config.minutes, 0, 10**6), "env_steps": (config.env_steps, 0, 10**12),
        "test_limit": (config.test_limit, 1, 10**9), "validate_every": (config.validate_every, 0, 10**9),
        "keep_rollouts": (config.keep_rollouts, 1, 10**9), "warn_after": (config.warn_after, 1, 10**9),
        "validate_on": (config.validate_on, 1, 10**9), "keep_checkpoints": (config.keep_checkpoints, 1, 10**6),
        "record_levels": (config.record_levels, 0, 10**6), "probe_levels": (config.probe_levels, 0, 10**6),
        "probe_every": (config.probe_every, 1, 10**9), "checkpoint_every": (config.checkpoint_every, 1, 10**9),
        "seed": (config.seed, 0, 2**32 - 1),
        "rollout.group": (config.rollout.group, 2, 10**4),
        "rollout.temperature": (config.rollout.temperature, 1e-3, 100),
        "rollout.max_steps": (config.rollout.max_steps, 1, 10**5),
        "rollout.subgoal_budget": (config.rollout.subgoal_budget, 1, 10**5),
        "rollout.progress_share": (config.rollout.progress_share, 0, 1), "update.lr": (config.update.lr, 0, 1),
        "rollout.min_length": (config.rollout.min_length, 0, 10**6), "update.lr_floor": (config.update.lr_floor, 0, 1),
        "update.groups_per_step": (config.update.groups_per_step, 1, 10**6),
        "update.minibatches": (config.update.minibatches, 1, 10**6), "update.epochs": (config.update.epochs, 1, 10**4),
        "update.clip_low": (config.update.clip_low, 0, 1), "update.clip_high": (config.update.clip_high, 0, 100),
        "update.beta": (config.update.beta, 0, 100), "update.grad_clip": (config.update.grad_clip, 1e-9, 10**9),
        "update.micro_tokens": (config.update.micro_tokens, 1, 10**9),
        "model.rank": (config.model.rank, 1, 10**4), "model.alpha": (config.model.alpha, 1, 10**6),
    }  # fmt: skip
    if config.task not in TASKS:
        raise ConfigError(f"unknown task {config.task!r}; choose one of {', '.join(TASKS)}")
    for name, (value, low, high) in bounds.items():
        if value is not None and not low <= value <= high:
            raise ConfigError(f"{name} must lie between {low} and {high}; it is {value}")
    return config


def as_dict(config: Any) -> dict[str, Any]:
    return asdict(config)


def from_dict(data: Mapping[str, Any]) -> Train:
    """The config of a manifest. Raises `ConfigError` for unknown or missing parts, and values of another type."""
    try:
        parts = {"model": Model(), "rollout": Rollout(), "update": Update()}
        missing = sorted(parts.keys() - data.keys()) if isinstance(data, Mapping) else []
        if missing:
            raise ConfigError(f"{missing[0]} is missing")
        return validate(_filled(Train(), data, "it"))
    except ConfigError as error:
        raise ConfigError(f"the run's configuration cannot be read: {error}") from None


def _filled(default: Any, data: Any, name: str) -> Any:
    """A config with the values of a JSON object, each of the type of its field."""
    if not isinstance(data, Mapping):
        raise ConfigError(f"{name} must be an object, not {str(data)[:80]!r}")
    known = {f.name: f for f in fields(default)}
    values = {}
    for key, value in data.items():
        if key not in known:
            raise ConfigError(f"unknown setting {str(key)[:80]!r}")
        old = getattr(default, key)
        if is_dataclass(old):
            values[key] = _filled(old, value, key)
            continue
        values[key] = _checked(key, old, value, str(known[key].type))
        if isinstance(value, str) and (len(value) > 1000 or not value.isprintable()):
            raise ConfigError(f"{key} must be at most 1,000 printable characters")
    return replace(default, **values)
