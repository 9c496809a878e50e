"""Base class of the two Sokoban environments: checked arguments, spaces, start positions, rewards and frames."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from gymnasium import spaces

from himac_lite.errors import ConfigError, checked
from himac_lite.tasks.sokoban import rules
from himac_lite.tasks.sokoban.cells import pack
from himac_lite.tasks.sokoban.levels import load_levels, parse_levels
from himac_lite.tasks.sokoban.pixels import rgb_of_cells
from himac_lite.tasks.sokoban.render import to_ansi, to_svg
from himac_lite.tasks.sokoban.rules import BOX, PLAYER, TARGET, WALL, Board
from himac_lite.types import Level

CHOICES = {
    "reward": ("sparse", "gym_sokoban"),
    "observation": ("symbolic", "text", "rgb"),
    "render_mode": (None, "ansi", "rgb_array", "svg"),
}
METADATA = {"render_modes": list(CHOICES["render_mode"][1:]), "render_fps": 4}
TILE = 16
"""Pixels per cell in ``rgb`` observations and ``rgb_array`` frames."""
LONGEST = 10**9
"""Largest step limit of an episode."""


@checked
class Game:
    """Levels and settings of an environment. H×W is the size of the largest of the L levels."""

    render_mode: str | None

    def __init__(
        self,
        levels: str | os.PathLike[str] | Iterable[Any] = "core/train",
        reward: str = "sparse",
        max_steps: int = 50,
        observation: str = "symbolic",
        render_mode: str | None = None,
    ) -> None:
        for name, value in zip(CHOICES, (reward, observation, render_mode), strict=True):
            if value not in CHOICES[name]:
                raise ConfigError(f"{name} must be one of {', '.join(map(str, CHOICES[name]))}, not {value!r}")
        if not 1 <= max_steps <= LONGEST:
            raise ConfigError(f"max_steps must be at least 1 and at most {LONGEST}, not {max_steps}")
        self.levels = load_levels(levels) if isinstance(levels, str | os.PathLike) else _own_levels(list(levels))
        self._reward, self._max_steps, self._observe, self.render_mode = reward, max_steps, observation, render_mode
        self._boards = [rules.board_from_level(level) for level in self.levels]
        self._start_cells, self._start_player = pack(self._boards)  # uint8 [L, H, W], int64 [L, 2]
        self._optimal = np.array([-1 if lv.optimal_moves is None else lv.optimal_moves for lv in self.levels])  # [L]
        height, width = self._start_cells.shape[1:]
        self.action_space: spaces.Space[Any] = spaces.Discrete(4)
        self.observation_space: spaces.Space[Any] = {
            "symbolic": spaces.Box(0, WALL | TARGET | BOX | PLAYER, (height, width), np.uint8),
            "text": spaces.Text(height * (width + 1) - 1, charset=" #.$*@+\n"),
            "rgb": spaces.Box(0, 255, (height * TILE, width * TILE, 3), np.uint8),
        }[observation]

    def _level_number(self, given: Any) -> int:
        if not isinstance(given, int | np.integer) or not 0 <= given < len(self.levels):
            raise ConfigError(f"options['level'] must be an integer from 0 to {len(self.levels) - 1}, not {given!r}")
        return int(given)

    def _rewarded(self, gained: Any, solved: Any) -> Any:
        """The reward of one step. gained: change in the number of boxes on target. Scalars or arrays [N]."""
        return 1.0 * solved if self._reward == "sparse" else -0.1 + gained + 10.0 * solved

    def _frame(self, board: Board, cells: np.ndarray) -> Any:
        """One frame. cells: the same position, uint8 [H, W]."""
        if self.render_mode == "rgb_array":
            return rgb_of_cells(cells, TILE)
        return to_svg(board) if self.render_mode == "svg" else to_ansi(board) if self.render_mode else None


def _own_levels(levels: list[Any]) -> list[Level]:
    """A user's levels, each checked and enclosed like one of a file."""
    others = [level for level in levels if not isinstance(level, Level)]
    if others or not levels:
        found = f"has {others[0]!r:.80}" if others else "is empty"
        raise ConfigError(f"levels {found}; give a split such as 'core/train', an XSB file, or a list of Level")
    return [replace(level, rows=parse_levels(level.text, f"levels[{i}]")[0].rows) for i, level in enumerate(levels)]
