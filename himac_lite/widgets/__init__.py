"""Things to touch: group advantages at both levels, recorded episodes on their board, a run's curves, its blueprints.

Everything is computed from recorded arrays: no torch, no model. What a model wrote is shown as text, never as markup.
A control's callback may run while a cell is busy (ipykernel 7 gives it a thread of its own), so it takes a lock.
"""

from himac_lite.widgets.base import recorded_run
from himac_lite.widgets.dashboard import TrainingDashboard
from himac_lite.widgets.explorer import AdvantageExplorer
from himac_lite.widgets.player import RolloutPlayer, playback
from himac_lite.widgets.strip import CoEvolutionStrip

__all__ = ["AdvantageExplorer", "RolloutPlayer", "TrainingDashboard", "CoEvolutionStrip", "playback", "recorded_run"]
