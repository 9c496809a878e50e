"""Rows → what a table or a curve shows: means, intervals, tests. Pure: nothing is read, nothing is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from himac_lite.evaluation.intervals import paired_by_level, sign_flip_test, steps_to, t_interval, two_way_interval
from himac_lite.evaluation.rows import Row


@dataclass(frozen=True)
class Summary:
    """One variant over its seeds."""

    variant: str
    seeds: int
    success: float
    over_seeds: tuple[float, float]
    """95 % t-interval over seeds; infinite with one seed."""
    over_both: tuple[float, float] | None
    """95 % bootstrap interval over seeds and levels; None where the levels' outcomes were not recorded."""
    base: float
    random: float
    env_steps: float
    tokens: float
    minutes: float
    test_steps: float
    mode: str
    """How the variant, and its base, play: himac or flat, or prompted."""
    by_length: dict[str, float]
    base_by_length: dict[str, float]
    random_by_length: dict[str, float]
    score: float | None
    base_score: float | None
    """Mean share of the goal; None where a record does not have it."""


@dataclass(frozen=True)
class Comparison:
    """`variant` − `other`."""

    variant: str
    other: str
    difference: float
    interval: tuple[float, float] | None
    p_levels: float | None
    """Sign-flip test over levels, or None where their outcomes were not recorded."""
    p_seeds: float | None
    """Sign-flip test over the seeds that both have (equal seeds draw the same levels); None for none in common."""
    seeds: int
    """How many seeds they have in common."""


def by_variant(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows of each variant, by seed; variants in the order in which they first come."""
    out: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda r: r.seed):
        out.setdefault(row.variant, []).append(row)
    return {v: out[v] for v in dict.fromkeys(row.variant for row in rows)}


def outcomes(rows: Sequence[Row]) -> np.ndarray | None:
    """[S, L] what each seed solved; None unless every row has it for the same number of levels."""
    if not rows or len({len(row.solved) for row in rows}) != 1 or not rows[0].solved:
        return None
    return np.array([[int(c) for c in row.solved] for row in rows])


def summary(rows: Sequence[Row], draws: int = 2000) -> list[Summary]:
    """One `Summary` a variant, in the order of the rows. draws: resamples of the bootstrap (seeded: repeatable)."""
    out = []
    for variant, own in by_variant(rows).items():
        solved_sl = outcomes(own)
        mean = {
            name: float(np.mean([getattr(row, name) for row in own]))
            for name in ("success", "base_success", "random_success", "env_steps", "tokens", "minutes", "test_steps")
        }
        out.append(
            Summary(
                variant, len(own), mean["success"], t_interval([row.success for row in own]),
                None if solved_sl is None else two_way_interval(solved_sl, np.random.default_rng(0), draws=draws),
                mean["base_success"], mean["random_success"], mean["env_steps"], mean["tokens"], mean["minutes"],
                mean["test_steps"], own[0].mode,
                _by_length([row.by_length for row in own]), _by_length([row.base_by_length for row in own]),
                _by_length([row.random_by_length for row in own]), _mean([row.score for row in own]),
                _mean([row.base_score for row in own]),
            )
        )  # fmt: skip
    return out


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def _by_length(found: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, float]:
    bins = dict.fromkeys(name for of_seed in found for name in of_seed)
    return {b: float(np.mean([of_seed[b]["success"] for of_seed in found if b in of_seed])) for b in bins}


def compare(rows: Sequence[Row], variant: str, other: str, draws: int = 2000) -> Comparison:
    """Two variants, paired by level and by seed. Raises KeyError if one has no row."""
    groups = by_variant(rows)
    a, b = groups[variant], groups[other]
    a_sl, b_sl = outcomes(a), outcomes(b)
    difference = float(np.mean([r.success for r in a]) - np.mean([r.success for r in b]))
    interval = p_levels = p_seeds = None
    if a_sl is not None and b_sl is not None and a_sl.shape[1] == b_sl.shape[1]:
        interval = two_way_interval(a_sl, np.random.default_rng(0), b_sl, draws)
        _, p_levels = paired_by_level(a_sl, b_sl, np.random.default_rng(0))
    theirs = {r.seed: r.success for r in b}
    pairs = [r.success - theirs[r.seed] for r in a if r.seed in theirs]
    if pairs:
        p_seeds = sign_flip_test(pairs, np.random.default_rng(0))
    return Comparison(variant, other, difference, interval, p_levels, p_seeds, len(pairs))


def curve_band(
    curves: Sequence[Sequence[Mapping[str, Any]]], against: str = "env_steps", key: str = "validation/success",
    points: int = 21,
) -> tuple[list[float], list[float], list[float], list[float]]:  # fmt: skip
    """(x, low, mean, high) of a metric over what was spent: mean over seeds, 95 % t-interval, clipped to [0, 1].

    Seeds log at different places: each is read at `points` equally spaced ones, on straight lines between its own, as
    far as the shortest goes. With one seed or two low and high are the mean: an interval of two (t = 12.7) would be as
    wide as the picture.
    """
    lines = [[(c[against] if c["iteration"] else 0, c[key]) for c in curve if key in c] for curve in curves]
    lines = [line for line in lines if line]
    if not lines:
        return [], [], [], []
    x = np.linspace(0, min(line[-1][0] for line in lines), points)
    y = np.array(
        [np.interp(x, [at for at, _ in line], [value for _, value in line]) for line in lines]
    )  # [seeds, points]
    mean = y.mean(0)
    ends = [t_interval(y[:, i]) if len(lines) > 2 else (mean[i], mean[i]) for i in range(points)]
    low, high = (np.clip([end[k] for end in ends], 0, 1).tolist() for k in (0, 1))
    return x.tolist(), low, mean.tolist(), high


def spent_to(
    curves: Sequence[Sequence[Mapping[str, Any]]], thresholds: Sequence[float], against: str = "env_steps"
) -> list[list[float | None]]:
    """For each threshold and each seed, what was spent when validation success first reached it (None: it did not)."""
    out: list[list[float | None]] = []
    for threshold in thresholds:
        found = []
        for curve in curves:
            points = [c for c in curve if "validation/success" in c]
            spent = [float(c[against]) if c["iteration"] else 0.0 for c in points]
            found.append(steps_to(spent, [c["validation/success"] for c in points], threshold))
        out.append(found)
    return out


def table_text(rows: Sequence[Row], against: str = "himac") -> str:
    """The summary as lines of text: success over seeds with its interval, what it started from, what it cost.

    The score, and the base's in brackets, stand at the end of each line if all records have it. Below: the random
    policy, and the difference of `against` and each other variant, if both have rows.
    """
    lines = [f"{'variant':18} seeds  success %  95 % over seeds  base %  env. steps      tokens  minutes"]
    scored = all(None not in (row.score, row.base_score, row.random_score) for row in rows)
    lines[0] += "  score % (base)" * scored
    for s in sorted(summary(rows, draws=1), key=lambda s: -s.success):
        low, high = np.clip(s.over_seeds, 0, 1)
        score = ""
        if scored and s.score is not None and s.base_score is not None:
            score = f"  {100 * s.score:7.1f} ({100 * s.base_score:.1f})"
        interval = f"{100 * low:5.1f} – {100 * high:5.1f}" if s.seeds > 1 else "one seed"
        lines.append(
            f"{s.variant:18} {s.seeds:5}  {100 * s.success:9.1f}  {interval:>15}  {100 * s.base:6.1f}"
            f"  {s.env_steps:10,.0f}  {s.tokens:10,.0f}  {s.minutes:7.1f}{score}"
        )
    chance = f"{'random policy':18} {'':5}  {100 * np.mean([row.random_success for row in rows]):9.1f}"
    if scored:
        chance += f"{'':60}{100 * np.mean([row.random_score or 0.0 for row in rows]):7.1f}"
    lines.append(chance)
    variants = list(by_variant(rows))
    if against in variants:
        lines += [difference_text(compare(rows, against, other)) for other in variants if other != against]
    return "\n".join(lines)


def difference_text(found: Comparison) -> str:
    """A comparison on one line: points, their interval over seeds and levels, both paired tests."""
    if found.interval is None:
        levels = "levels not recorded"
    else:
        low, high = (100 * end for end in found.interval)
        levels = f"{low:+.1f} to {high:+.1f}, p over levels {found.p_levels:.4f}"
    seeds = "no seed in common" if found.p_seeds is None else f"over seeds {found.p_seeds:.3f}, pairs: {found.seeds}"
    return f"{found.variant} − {found.other:18} {100 * found.difference:+6.1f} points  ({levels}, {seeds})"
