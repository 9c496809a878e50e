"""The curriculum: training draws from short levels first, if asked to."""

from __future__ import annotations

from collections.abc import Sequence

from himac_lite.tasks import Task
from himac_lite.types import Item


def curriculum(levels: Sequence[Item], task: Task, share: float, progress: float) -> Sequence[Item]:
    """The levels that training may draw from when `progress` of the budget is spent.

    Bins of optimal length are added one by one, the shortest first, evenly over the first `share` of the budget. Levels
    without a known length join with the last bin.
    """
    if not share:
        return levels
    lengths = [task.difficulty(level) for level in levels]
    bins = [b for b in task.bins if any(max(1, b[0]) <= n <= b[1] for n in lengths)]
    if (last := int(len(bins) * progress / share)) >= len(bins) - 1:
        return levels
    return [level for level, n in zip(levels, lengths, strict=True) if 0 < n <= bins[last][1]]
