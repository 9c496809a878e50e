"""The presets of settings; settings from text and from a manifest, checked. The settings themselves: `settings`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from typing import Any

from himac_lite.errors import ConfigError, checked
from himac_lite.settings import FLOAT32, PRECISIONS, Model, Pretrain, Rollout, Sft, Train, Update

__all__ = [
    "TRAIN_PRESETS", "Model", "Pretrain", "Rollout", "Sft", "Train", "Update", "as_dict", "flat", "from_dict",
    "override", "validate",
]  # fmt: skip


def _hub(path: str, revision: str) -> Train:
    """Settings for one GPU of 15 GB and an instruct model of a hub."""
    return Train(
        iterations=60, model=Model(path, revision, checkpointing=True), rollout=Rollout(levels=8),
        update=Update(lr=2e-4, micro_tokens=0),
    )  # fmt: skip


# Commits of the hub's own repositories, each found named in several independent public projects; not fetched here.
_QWEN25_SMALL = _hub("Qwen/Qwen2.5-0.5B-Instruct", "7ae557604adf67be50417f59c2c2f167def9a775")
TRAIN_PRESETS: dict[str, Train] = {
    "quick": Train(),
    "colab": _QWEN25_SMALL,
    "qwen2.5-0.5b": _QWEN25_SMALL,
    "qwen2.5-1.5b": _hub("Qwen/Qwen2.5-1.5B-Instruct", "989aa7980e4cf806f80c7fef2b1adb7bc71aa306"),
    "qwen3-0.6b": _hub("Qwen/Qwen3-0.6B", "c1899de289a04d12100db370d81485cdf75e47ca"),
    "qwen3-1.7b": _hub("Qwen/Qwen3-1.7B", "70d244cc86ccca08cf5af4e1e306ecf908b1ad5e"),
    "paper": Train(iterations=200, rollout=Rollout(levels=16), update=Update(lr=1e-3)),
}


@checked
def override(config: Any, path: str, value: Any) -> Any:
    """A copy of a nested config with one field, such as ``update.lr``, set to a value or from its text.

    Raises `ConfigError` that names the field and what is allowed.
    """
    if not is_dataclass(config) or isinstance(config, type):
        raise ConfigError(f"config must be a configuration, such as TRAIN_PRESETS['quick'], not {config!r:.80}")
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
        new = value if isinstance(old, str) or not isinstance(value, str) else json.loads(value)
    except json.JSONDecodeError:
        new = value
    return replace(config, **{name: _checked(name, old, new, str(known[name].type))})


def _checked(name: str, old: Any, new: Any, annotation: str) -> Any:
    """The new value as the type of the annotation; a number of NumPy and a path become Python's number and text."""
    if new is None and "None" in annotation:
        return None
    if getattr(new, "ndim", None) == 0:
        new = new.item()
    if annotation == "str" and isinstance(new, os.PathLike):
        new = os.fspath(new)
    if annotation.startswith("float") and type(new) is int and abs(new) < 1e18:
        new = float(new)
    wanted = annotation.split(" ")[0]
    if type(new).__name__ != wanted:
        raise ConfigError(f"{name} must be {annotation}, not {new!r:.80}")
    return new


@checked
def validate(config: Train) -> Train:
    """The config, if every value is of its type and range; `ConfigError` with the field and the range otherwise."""
    config = _filled(Train(), as_dict(config), "it")
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
        "rollout.progress_share": (config.rollout.progress_share, 0, 1),
        "rollout.curriculum": (config.rollout.curriculum, 0, 1), "update.lr": (config.update.lr, 0, 1),
        "rollout.min_length": (config.rollout.min_length, 0, 10**6), "update.lr_floor": (config.update.lr_floor, 0, 1),
        "update.groups_per_step": (config.update.groups_per_step, 1, 10**6),
        "update.minibatches": (config.update.minibatches, 1, 10**6), "update.epochs": (config.update.epochs, 1, 10**4),
        "update.clip_low": (config.update.clip_low, 0, 1), "update.clip_high": (config.update.clip_high, 0, 100),
        "update.beta": (config.update.beta, 0, 100), "update.grad_clip": (config.update.grad_clip, 1e-9, 10**9),
        "update.micro_tokens": (config.update.micro_tokens, 0, 10**9),
        "model.rank": (config.model.rank, 1, 10**4), "model.alpha": (config.model.alpha, 1, 10**6),
    }  # fmt: skip
    for name in ("task", "variant"):  # folders and tables are named after them
        if not getattr(config, name).isidentifier():
            raise ConfigError(f"{name} must be a plain Python name, not {getattr(config, name)!r}")
    if config.model.observation not in ("text", "rgb"):
        raise ConfigError(f"model.observation must be text or rgb, not {config.model.observation!r}")
    if config.model.precision not in PRECISIONS:
        raise ConfigError(f"model.precision must be auto, float32 or bfloat16, not {config.model.precision!r}")
    if config.rollout.static_cache not in ("auto", "on", "off"):
        raise ConfigError(f"rollout.static_cache must be auto, on or off, not {config.rollout.static_cache!r}")
    for name, (value, low, high) in bounds.items():
        if value is not None and not low <= value <= high:
            raise ConfigError(f"{name} must lie between {low} and {high}; it is {value}")
    return config


def as_dict(config: Any) -> dict[str, Any]:
    return asdict(config)


def flat(config: Any) -> dict[str, Any]:
    """Setting → value; a part's settings are named like ``update.lr``."""
    parts = {name: v if isinstance(v, dict) else {"": v} for name, v in as_dict(config).items()}
    return {f"{name}.{inner}".strip("."): value for name, part in parts.items() for inner, value in part.items()}


def from_dict(data: Mapping[str, Any]) -> Train:
    """The config of a manifest. Raises `ConfigError` for unknown or missing parts, and values of another type."""
    try:
        parts = {"model": Model(), "rollout": Rollout(), "update": Update()}
        missing = sorted(parts.keys() - data.keys()) if isinstance(data, Mapping) else []
        if missing:
            raise ConfigError(f"{missing[0]} is missing")
        before = replace(Train(), model=Model(precision=FLOAT32))  # version 0.1 did not write its only precision
        return validate(_filled(before, data, "it"))
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
