"""Recorded data → plotly figures, as pure functions."""

from himac_lite.widgets.plots.curves import (
    PHASE_A,
    PHASE_B,
    SPENT,
    metric_curves,
    phase_bands,
    running_mean,
    seed_curves,
    series,
    training_curves,
)
from himac_lite.widgets.plots.groups import advantage_bars, best_of, executed_blueprint, members_of, micro_groups
from himac_lite.widgets.plots.style import (
    BLUE,
    GREEN,
    HEIGHT,
    NEGATIVE,
    POSITIVE,
    PURPLE,
    SYMBOLS,
    TEXT,
    VERMILION,
    Record,
    signed,
)

__all__ = [
    "training_curves", "metric_curves", "seed_curves", "phase_bands", "SPENT", "running_mean", "series",
    "PHASE_A", "PHASE_B", "advantage_bars", "best_of", "executed_blueprint", "members_of", "micro_groups",
    "Record", "SYMBOLS", "signed", "HEIGHT", "BLUE", "VERMILION", "GREEN", "PURPLE", "TEXT", "POSITIVE", "NEGATIVE",
]  # fmt: skip
