"""The budget of a run, in iterations, minutes and environment steps: it ends at the limit that is reached first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from himac_lite.config import Train, flat
from himac_lite.errors import ConfigError
from himac_lite.settings import AUTO

BUDGET = ("iterations", "minutes", "env_steps")
"""The settings that may change when a run is resumed."""
OPTIONS = "--iterations N, --minutes M or --env-steps N (in Python: in config)"


def continued(run: Path, saved: Train, config: Train) -> Train:
    """The saved configuration of a run with the budget of `config`. Raises `ConfigError` if more than that differs."""
    was, now = flat(saved), flat(config)
    if now["model.precision"] == AUTO:  # a run keeps the precision that it began with
        now["model.precision"] = was["model.precision"]
    if other := [f"{name}={was[name]}" for name in was if name not in BUDGET and was[name] != now[name]]:
        raise ConfigError(
            f"{run} was begun with {', '.join(other)}; only the budget of a run may change ({', '.join(BUDGET)}): "
            "resume it with its own config, or start a new run"
        )
    return replace(saved, **{name: now[name] for name in BUDGET})


def share(config: Train, spent: Mapping[str, float]) -> float:
    """The share of the budget that is spent, by the nearest limit: 1 or more at the end.

    spent: the counters of `policy.adapter.COUNTERS`.
    """
    return max(done / limit if limit else 1.0 for _, done, limit in _limits(config, spent))


def reached(config: Train, spent: Mapping[str, float]) -> str:
    """The limits that are reached, such as ``40 of 40 iterations``; empty while there is budget left."""
    limits = _limits(config, spent)
    return ", ".join(f"{done:,.10g} of {limit:,.10g} {name}" for name, done, limit in limits if done >= limit)


def _limits(config: Train, spent: Mapping[str, float]) -> Iterator[tuple[str, float, float]]:
    yield "iterations", spent["iteration"], config.iterations
    if config.minutes is not None:
        yield "minutes", spent["seconds"] / 60, config.minutes
    if config.env_steps is not None:
        yield "environment steps", spent["env_steps"], config.env_steps
