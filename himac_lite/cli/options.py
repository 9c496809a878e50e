"""What the options of several commands have in common: settings from ``--set``, and options without an effect."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any, TypeVar

from himac_lite.config import override
from himac_lite.errors import ConfigError

T = TypeVar("T")


def refuse(given: argparse.Namespace, where: str, advice: str, *names: str) -> None:
    """Raise `ConfigError` for the first of the options that was given, because it has no effect there.

    names: attributes of `given`; a value of None, False or [] is not given.
    """
    for name in names:
        value = getattr(given, name)
        if value is not None and value is not False and value != []:
            raise ConfigError(f"{_option(name)} has no effect with {where}: {advice}")


def with_settings(config: T, given: argparse.Namespace, options: Mapping[str, str]) -> T:
    """The configuration with every NAME=VALUE of ``--set``.

    options: setting → attribute of `given` with the option for it. Raises `ConfigError` for a setting that is given
    twice, by its option and by ``--set``, and as `override` does.
    """
    for pair in given.set:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--set needs NAME=VALUE, not {pair!r}")
        if name in options and getattr(given, options[name]) is not None:
            raise ConfigError(f"{name} is given twice, by {_option(options[name])} and by --set {pair}: leave one out")
        config = override(config, name, value)
    return config


def no_less(given: argparse.Namespace, **least: float) -> None:
    """Raise `ConfigError` for the first option whose value is below its least one; NaN is below any."""
    for name, low in least.items():
        value: Any = getattr(given, name)
        if value is not None and not value >= low:
            raise ConfigError(f"{_option(name)} must be at least {low:g}, not {value}")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
