"""Interactive widgets: group advantages at both levels, recorded episodes, training curves, blueprints over training.

Everything is computed from recorded arrays, without torch and without a model. Text of a model is escaped, never
markup. A control's callback takes a lock, because ipykernel 7 may run it in another thread while a cell is busy.
"""

from himac_lite.widgets.base import recorded_run
from himac_lite.widgets.dashboard import TrainingDashboard
from himac_lite.widgets.explorer import AdvantageExplorer
from himac_lite.widgets.player import RolloutPlayer, playback
from himac_lite.widgets.strip import CoEvolutionStrip

__all__ = ["AdvantageExplorer", "RolloutPlayer", "TrainingDashboard", "CoEvolutionStrip", "playback", "recorded_run"]
