"""Rows → what a table or a curve shows: means, intervals, tests. Pure: reads nothing, draws nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

from himac_lite.evaluation.intervals import sign_flip_test, steps_to, t_interval, two_way_interval
from himac_lite.evaluation.rows import Kept, Row, Spent


@dataclass(frozen=True)
class Mean:
    """The mean of several seeds' scores."""

    success: float
    by_length: dict[str, float]
    """Success by bin of optimal length; a bin counts the seeds that have it."""
    progress: float | None
    """Share of the goal that was reached; None unless every row has it."""
    steps: float | None
    """Environment steps per test level; None unless every row has them."""


@dataclass(frozen=True)
class Summary:
    """One variant over its seeds."""

    variant: str
    seeds: int
    mode: str
    """How the variant, and its base, play: himac or flat, or prompted."""
    rules: Mapping[str, str]
    """The rule for used-up plans in ``training`` and at ``test``, where the base plays by the same."""
    trained: Mean
    base: Mean
    random: Mean
    spent: Spent
    """The mean over seeds."""
    over_seeds: tuple[float, float]
    """95 % t-interval of the success over seeds; infinite with one seed."""
    over_both: tuple[float, float] | None
    """95 % bootstrap interval over seeds and levels; None unless every row has the outcome of each level."""


@dataclass(frozen=True)
class Comparison:
    """`variant` − `other`."""

    variant: str
    other: str
    difference: float
    interval: tuple[float, float] | None
    p_levels: float | None
    """Sign-flip test over levels, each averaged over its seeds: would these trained policies keep their order on other
    levels? None unless every row has the outcome of each level."""
    p_seeds: float | None
    """Sign-flip test over the common seeds (equal seeds draw the same levels); None if there is none."""
    seeds: int
    """The number of common seeds."""


def by_variant(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each variant, by seed; variants in the order of their first rows."""
    out: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda r: r.seed):
        out.setdefault(row.variant, []).append(row)
    return {v: out[v] for v in dict.fromkeys(row.variant for row in rows)}


def outcomes(rows: Sequence[Row]) -> np.ndarray | None:
    """[S, L] the levels that each seed solved; None unless every row has them, for the same number of levels."""
    solved = [row.trained.solved for row in rows]
    if len({len(levels) for levels in solved}) != 1 or not solved[0]:
        return None
    return np.array([[int(c) for c in levels] for levels in solved])


def summary(rows: Sequence[Row], draws: int = 2000) -> list[Summary]:
    """One `Summary` per variant, in the order of the rows. draws: resamples of the bootstrap (seeded: repeatable)."""
    out = []
    for variant, own in by_variant(rows).items():
        solved_sl, trained = outcomes(own), [row.trained for row in own]
        both = None if solved_sl is None else two_way_interval(solved_sl, np.random.default_rng(0), draws=draws)
        spent = Spent(*np.mean([astuple(row.spent) for row in own], axis=0).tolist())
        out.append(
            Summary(
                variant, len(own), trained[0].mode, _rules(own), _mean(trained), _mean([row.base for row in own]),
                _mean([row.random for row in own]), spent, t_interval([s.success for s in trained]), both,
            )
        )  # fmt: skip
    return out


def _mean(scores: Sequence[Kept]) -> Mean:
    bins = dict.fromkeys(name for s in scores for name in s.by_length)
    by_length = {b: float(np.mean([s.by_length[b]["success"] for s in scores if b in s.by_length])) for b in bins}
    progress, steps = (_average([getattr(s, name) for s in scores]) for name in ("mean_progress", "mean_steps"))
    return Mean(float(np.mean([s.success for s in scores])), by_length, progress, steps)


def _rules(rows: Sequence[Row]) -> dict[str, str]:
    """The names of the rules of all rows; several names are joined."""
    return {part: " or ".join(dict.fromkeys(row.rules[part] for row in rows)) for part in ("training", "test")}


def _average(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def compare(rows: Sequence[Row], variant: str, other: str, draws: int = 2000) -> Comparison:
    """Two variants, paired by level and by seed. Raises KeyError if one has no row."""
    groups = by_variant(rows)
    a, b = groups[variant], groups[other]
    a_sl, b_sl = outcomes(a), outcomes(b)
    difference = float(np.mean([r.trained.success for r in a]) - np.mean([r.trained.success for r in b]))
    interval = p_levels = p_seeds = None
    if a_sl is not None and b_sl is not None and a_sl.shape[1] == b_sl.shape[1]:
        interval = two_way_interval(a_sl, np.random.default_rng(0), b_sl, draws)
        p_levels = sign_flip_test(a_sl.mean(0) - b_sl.mean(0), np.random.default_rng(0))
    theirs = {r.seed: r.trained.success for r in b}
    pairs = [r.trained.success - theirs[r.seed] for r in a if r.seed in theirs]
    if pairs:
        p_seeds = sign_flip_test(pairs, np.random.default_rng(0))
    return Comparison(variant, other, difference, interval, p_levels, p_seeds, len(pairs))


def curve_band(
    curves: Sequence[Sequence[Mapping[str, Any]]], against: str = "env_steps", key: str = "validation/success",
    points: int = 21,
) -> tuple[list[float], list[float], list[float], list[float]]:  # fmt: skip
    """(x, low, mean, high) of a metric over what was spent: mean over seeds, 95 % t-interval, clipped to [0, 1].

    Seeds log at different places, so each curve is interpolated at `points` equally spaced ones, up to the end of the
    shortest. With one or two seeds, low and high are the mean: an interval of two (t = 12.7) would fill the plot.
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
    """[threshold][seed] what was spent when validation success first reached the threshold; None if it never did."""
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
    """The summary as lines of text: success over seeds with its interval, the base, the cost.

    Each line ends with the score, and the base's in brackets, if all rows have it. Below: the random policy, the rules
    for used-up plans (the base plays by that of the test), and the difference between `against` and each other variant,
    if both have rows.
    """
    lines = [f"{'variant':18} seeds  success %  95 % over seeds  base %  env. steps      tokens  minutes"]
    scored = all(s.mean_progress is not None for row in rows for s in (row.trained, row.base, row.random))
    lines[0] += "  score % (base)" * scored
    for s in sorted(summary(rows, draws=1), key=lambda s: -s.trained.success):
        low, high = np.clip(s.over_seeds, 0, 1)
        interval = f"{100 * low:5.1f} – {100 * high:5.1f}" if s.seeds > 1 else "one seed"
        lines.append(
            f"{s.variant:18} {s.seeds:5}  {100 * s.trained.success:9.1f}  {interval:>15}  {100 * s.base.success:6.1f}"
            f"  {s.spent.env_steps:10,.0f}  {s.spent.tokens:10,.0f}  {s.spent.minutes:7.1f}"
        )
        if scored and s.trained.progress is not None and s.base.progress is not None:
            lines[-1] += f"  {100 * s.trained.progress:7.1f} ({100 * s.base.progress:.1f})"
    random = _mean([row.random for row in rows])
    lines.append(f"{'random policy':18} {'':5}  {100 * random.success:9.1f}")
    if scored and random.progress is not None:
        lines[-1] += f"{'':60}{100 * random.progress:7.1f}"
    ruled: dict[str, list[str]] = {}
    for variant, own in by_variant(rows).items():
        ruled.setdefault("{training}; {test}".format(**_rules(own)), []).append(variant)
    lines += [f"used-up plans in training; at test: {rules} ({', '.join(names)})" for rules, names in ruled.items()]
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
