"""A variant of one's own by the names of its axes: what a run's manifest keeps of it, and what comes back from that.

A few functions of the library come back by their names. One of somebody's own file does not: nothing is imported
because a manifest names it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from importlib import import_module
from inspect import getclosurevars
from types import FunctionType
from typing import Any

from himac_lite.errors import ConfigError
from himac_lite.hierarchy.presets import PRESETS
from himac_lite.hierarchy.variant import Hierarchy
from himac_lite.rollout.rules import Ending

PLAYED = ("depth", "form", "end", "exhausted", "context")
"""The axes that a score depends on; the others are training's alone."""
KNOWN = (
    "himac_lite.rollout.rules.as_written", "himac_lite.tasks.sokoban.goals.one_cell_at_a_time",
    "himac_lite.rollout.rules.active_segment", "himac_lite.rollout.rules.whole_plan",
    "himac_lite.rollout.rules.full_history",
    "himac_lite.tasks.sokoban.goals.achieved",
)  # fmt: skip
"""Functions that come back by name."""
_DEEPEST = 4


def own_axes(hierarchy: Hierarchy, variant: str) -> dict[str, Any] | None:
    """Axis → what JSON can say of it, of the axes in which a hierarchy is not HiMAC; None for the preset `variant`.

    Functions are said by name, with what they were made with: {"himac_lite.….mean_of.<locals>.score": {"k": 2}}.
    """
    if variant in PRESETS and hierarchy == PRESETS[variant]:
        return None
    values = {f.name: getattr(hierarchy, f.name) for f in fields(Hierarchy)}
    said = {name: _said(value) for name, value in values.items() if value != getattr(Hierarchy, name)}
    return dict(json.loads(json.dumps(said)))


def in_words(axes: Any) -> str:
    """What `own_axes` said, on one line."""
    found = axes if isinstance(axes, Mapping) else {}
    return ", ".join(
        f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in found.items()
    )


def played_as(axes: Any) -> Hierarchy:
    """A hierarchy that plays as the one that `own_axes` described; axes that only training reads are HiMAC's.

    Raises `ConfigError` that names the axis which cannot be had back.
    """
    if not isinstance(axes, Mapping):
        raise ConfigError("its axes cannot be read")
    return Hierarchy(**{axis: _back(axis, axes[axis]) for axis in PLAYED if axis in axes})


def _said(value: Any, depth: int = 0) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    inside: dict[str, Any] = {}
    name = _name(value)
    if isinstance(value, partial):
        name, inside = _name(value.func), {**{str(i): v for i, v in enumerate(value.args)}, **value.keywords}
    elif is_dataclass(value) and not isinstance(value, type):
        inside = {f.name: getattr(value, f.name) for f in fields(value)}
    elif isinstance(value, FunctionType):
        inside = {k: v for k, v in getclosurevars(value).nonlocals.items() if v is not value}
    if not inside or depth == _DEEPEST:
        return name
    return {name: {str(k): _said(v, depth + 1) for k, v in inside.items()}}


def _name(value: Any) -> str:
    """With its module if it is the library's; a function of one's own is at home now here, now in `__main__`."""
    what = value if hasattr(value, "__qualname__") else type(value)
    whole = f"{what.__module__}.{what.__qualname__}"
    return whole if whole.startswith("himac_lite.") else f"own:{what.__qualname__}"


def _back(axis: str, said: Any) -> Any:
    if axis in ("depth", "exhausted"):  # Hierarchy says itself what is allowed
        return said
    if axis == "end":
        parts = said.get(_name(Ending)) if isinstance(said, Mapping) else None
        if isinstance(parts, Mapping) and set(parts) == {"sub_done", "steps", "check"}:
            sub_done, steps, check = parts["sub_done"], parts["steps"], parts["check"]
            if type(sub_done) is bool and type(steps) in (int, type(None)):
                return Ending(sub_done, steps, None if check is None else _function("end", check))
        raise ConfigError(f"its end cannot be had back by name: {json.dumps(said):.120}")
    return _function(axis, said)


def _function(axis: str, said: Any) -> Any:
    if not isinstance(said, str) or said not in KNOWN:
        raise ConfigError(f"its {axis} cannot be had back by name: {json.dumps(said):.120}")
    module, _, name = said.rpartition(".")
    return getattr(import_module(module), name)
