"""Variants by name: HiMAC, the paper's ablations, flat baselines, and four others."""

from __future__ import annotations

import re
from dataclasses import fields
from functools import partial

from himac_lite import advantage
from himac_lite.errors import ConfigError, checked
from himac_lite.from_file import Chosen, load
from himac_lite.hierarchy.axes import JOINT, SameState, choose_random
from himac_lite.hierarchy.variant import Hierarchy
from himac_lite.rollout.rules import REPLAN, as_read, fixed_steps

FIXED_STEPS = 8
"""Steps per sub-goal without `<sub_done>`. In optimal solutions of `core/train` (400 levels of at least 10 moves) 96 %
of the sub-goals need at most 8 steps, and 99.5 % of the blueprints have at most 6 sub-goals: 48 of the 50 steps."""

_UNSCALED = partial(advantage.group_advantage, scale="none")
_LEAVE_ONE_OUT = partial(advantage.group_advantage, baseline="leave_one_out", scale="none")

PRESETS: dict[str, Hierarchy] = {
    "himac": Hierarchy(),
    # The paper's ablations (arXiv 2603.00977)
    "random_blueprint": Hierarchy(choose=choose_random),
    "no_sub_done": Hierarchy(end=fixed_steps(FIXED_STEPS)),
    "joint_update": Hierarchy(schedule=JOINT),
    "flat_grpo": Hierarchy(depth=1),
    # Flat baselines. The loss is already a mean over all tokens of an update, without Dr. GRPO's 1/length.
    "flat_dr_grpo": Hierarchy(depth=1, micro_advantage=_UNSCALED),
    "flat_rloo": Hierarchy(depth=1, micro_advantage=_LEAVE_ONE_OUT),
    "flat_gigpo": Hierarchy(depth=1, credit=SameState(), state=as_read),
    # Not in the paper
    "replan": Hierarchy(exhausted=REPLAN),
    "keep_or_switch": Hierarchy(end=fixed_steps(1), exhausted=REPLAN),
    "gigpo_segments": Hierarchy(credit=SameState(inside=True), state=as_read),
    "three_levels": Hierarchy(depth=3),
}
"""keep_or_switch is HiPER's idea (arXiv 2602.16165) without a critic: the planner writes a blueprint after every step.
It keeps the sub-goal by repeating it (or by an invalid blueprint) and switches by writing another. These blueprints get
the advantage of the first one."""


@checked
def preset(name: str) -> Hierarchy:
    """A preset by name. Raises ConfigError with all names for an unknown one."""
    if name not in PRESETS:
        raise ConfigError(f"unknown variant {name!r}; choose one of {', '.join(PRESETS)}, or FILE.py:NAME of your own")
    return PRESETS[name]


@checked
def choose(given: Hierarchy | str | None, default: str) -> Chosen[Hierarchy]:
    """The variant of a value, ``FILE.py:NAME`` or a preset's name; None: the preset `default`.

    `default` can come from a manifest, so it never names a file. Raises ConfigError if there is no such variant.
    """
    if isinstance(given, Hierarchy):
        return Chosen(default, given, None if given == PRESETS.get(default) else {"value": in_words(given)})
    if not (given and ":" in given):
        return Chosen(given or default, preset(given or default))
    value, origin = load(given, Hierarchy)
    name = origin["name"]
    if value != PRESETS.get(name, value):
        raise ConfigError(f"{given} is not the preset {name}; give it another name")
    return Chosen(name, value, origin | {"value": in_words(value)})


@checked
def in_words(hierarchy: Hierarchy) -> str:
    """The axes that differ from HiMAC's, such as ``depth=3, form=only_two``; functions by name only."""
    values = {f.name: getattr(hierarchy, f.name) for f in fields(Hierarchy)}
    names = {
        name: getattr(value, "__qualname__", None) or re.sub(" at 0x[0-9a-fA-F]+", "", repr(value))
        for name, value in values.items()
        if value != getattr(Hierarchy, name)
    }
    return ", ".join(f"{name}={said}" for name, said in names.items())
