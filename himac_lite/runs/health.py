"""Signs that a run has stopped learning: equal returns in every group, entropy near zero, empty blueprints.

Each sign counts the iterations in a row that show it, in every line of metrics: one bad iteration is chance.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LOW_ENTROPY = 0.01
"""Nats. Then about one sampled token in 750 differs from the greedy one; the recorded runs end at 0.09 or more."""
SHORT_PLAN = 0.5
"""Sub-goals per blueprint. Below it, most blueprints are empty or invalid; the recorded runs stay above 2."""
PHASES = ("macro", "middle", "micro")


def follow(line: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, int]:
    """The signs after an iteration, from its metrics and the previous line.

    ``health/no_signal``: all groups had equal returns. ``health/low_entropy``: a phase's entropy is below
    `LOW_ENTROPY`; an iteration without an update has no entropy and keeps the count. ``health/no_plan``: sampled
    blueprints have fewer than `SHORT_PLAN` sub-goals on average; not for flat play.
    """
    varied = [line[key] for phase in PHASES if (key := f"{phase}/zero_variance") in line]
    entropy = [line[key] for phase in PHASES if (key := f"{phase}/entropy") in line]
    signs: dict[str, bool | None] = {
        "health/no_signal": bool(varied) and min(varied) >= 1,
        "health/low_entropy": min(entropy) < LOW_ENTROPY if entropy else None,
    }
    if "macro/blueprint_length" in line:
        signs["health/no_plan"] = line["macro/blueprint_length"] < SHORT_PLAN
    counts = {}
    for name, sign in signs.items():
        old = before.get(name, 0)
        old = old if isinstance(old, int) else 0  # a file may say anything
        counts[name] = old if sign is None else (old + 1) * sign
    return counts


def warnings(line: Mapping[str, Any], after: int) -> list[str]:
    """A sentence for each sign that has lasted `after` iterations or more: what happened, and what to change."""
    return [_SAID[name](line, n) for name, n in _counts(line) if n >= after]


def due(line: Mapping[str, Any], after: int) -> list[str]:
    """`warnings` for a progress display: each sign is reported every `after` iterations."""
    return [_SAID[name](line, n) for name, n in _counts(line) if n and n % after == 0]


def _counts(line: Mapping[str, Any]) -> list[tuple[str, int]]:
    return [(name, n) for name in _SAID if isinstance(n := line.get(name, 0), int)]


def _no_signal(line: Mapping[str, Any], n: int) -> str:
    returns = [line[key] for phase in PHASES if (key := f"{phase}/return") in line]
    if returns and min(returns) >= 0.99:
        what = "every episode succeeds: train on harder levels (--levels hard, rollout.min_length)"
    elif returns and max(returns) <= 0.01:
        what = (
            "no episode succeeds: train on easier levels (--levels warmup), reward progress "
            "(rollout.progress_share=0.5), or begin with a better --model"
        )
    else:
        what = "each level is always or never solved: raise rollout.group or rollout.temperature"
    return f"for {n} iterations all groups had equal returns, so nothing was learned; {what}"


def _low_entropy(line: Mapping[str, Any], n: int) -> str:
    low = [phase for phase in PHASES if line.get(f"{phase}/entropy", 1.0) < LOW_ENTROPY]
    return (
        f"for {n} iterations the {' and the '.join(low or PHASES)} entropy was below {LOW_ENTROPY} nats: samples "
        "hardly differ; lower update.lr, raise update.beta or rollout.temperature"
    )


def _no_plan(line: Mapping[str, Any], n: int) -> str:
    return (
        f"for {n} iterations blueprints had fewer than {SHORT_PLAN} sub-goals on average: the planner has collapsed; "
        "lower update.lr, raise update.beta, and see that failing early does not pay"
    )


_SAID = {"health/no_signal": _no_signal, "health/low_entropy": _low_entropy, "health/no_plan": _no_plan}
