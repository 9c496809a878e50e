"""Records → plotly figures. Pure: nothing is read but what is handed in, nothing is drawn but what is returned."""

from himac_lite.widgets.plots.curves import (
    FLAT,
    PHASE_A,
    PHASE_B,
    SPENT,
    metric_curves,
    phase_bands,
    running_mean,
    seed_band,
    seed_curves,
    series,
    training_curves,
)
from himac_lite.widgets.plots.groups import advantage_bars, executed_blueprint
from himac_lite.widgets.plots.style import (
    BLUE,
    GREEN,
    HEIGHT,
    LONGEST_LABEL,
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
    "training_curves", "metric_curves", "seed_curves", "seed_band", "phase_bands", "SPENT", "running_mean", "series",
    "PHASE_A", "PHASE_B", "FLAT",
    "advantage_bars", "executed_blueprint",
    "Record", "SYMBOLS", "signed", "HEIGHT", "LONGEST_LABEL",
    "BLUE", "VERMILION", "GREEN", "PURPLE", "TEXT", "POSITIVE", "NEGATIVE",
]  # fmt: skip
