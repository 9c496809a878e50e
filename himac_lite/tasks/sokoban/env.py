"""`SokobanEnv`, a Gymnasium environment; `sokoban.vector` steps thousands of boards in one call.

This environment uses `rules.step`, the vector environment the kernels of `sokoban.batch`. A test plays both and
compares everything that they return.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import error

from himac_lite.errors import checked
from himac_lite.tasks.sokoban import rules
from himac_lite.tasks.sokoban.cells import texts_of_cells
from himac_lite.tasks.sokoban.game import METADATA, TILE, Game
from himac_lite.tasks.sokoban.pixels import rgb_of_cells
from himac_lite.tasks.sokoban.rules import BOX, PLAYER, Board, Outcome
from himac_lite.types import Cell


class SokobanEnv(Game, gymnasium.Env[Any, Any]):
    """Sokoban: push every box onto a target. Boxes cannot be pulled, and only one can be pushed at a time.

    ## Action Space

    `Discrete(4)`: 0 up, 1 down, 2 left, 3 right.

    A move pushes the box ahead, if the cell beyond the box is free. A move into a wall, or against a box that cannot be
    pushed, changes nothing but counts as a step.

    ## Observation Space

    H×W is the size of the largest level, including the border.

    - ``symbolic``: uint8 [H, W], the sum of the bits 1 wall, 2 target, 4 box, 8 player. A smaller level is placed in
      the upper left corner, and the rest is wall.
    - ``text``: the board's rows in XSB characters, joined by newlines (``#`` wall, ``.`` target, ``$`` box, ``*``
      box on target, ``@`` player, ``+`` player on target).
    - ``rgb``: uint8 [16·H, 16·W, 3], a picture of ``symbolic``.

    ## Starting State

    A uniformly drawn level, or level i with ``reset(options={"level": i})``, which draws nothing.

    ## Rewards

    - ``sparse``: +1 for the step that solves the level, otherwise 0.
    - ``gym_sokoban``: −0.1 per step, +1 for a box pushed onto a target, −1 for a box pushed off, +10 for solving.

    ## Episode End

    - Termination: every box stands on a target.
    - Truncation: `max_steps` steps without termination. A level solved by the last step is not truncated.

    ## Information

    `reset()` and `step()` return ``level`` (its number), ``moves`` (steps so far), ``optimal_moves`` (of the level, −1
    if the file does not say) and ``success``.

    ## Arguments

    - `levels`: a split such as ``core/train``, an XSB file, or a list of `Level`
    - `reward`: ``sparse`` or ``gym_sokoban``
    - `max_steps`: steps until truncation, at least 1; a smaller `max_episode_steps` of `gymnasium.make` or `make_vec`
      truncates earlier
    - `observation`: ``symbolic``, ``text`` or ``rgb``
    - `render_mode`: ``ansi`` (coloured text), ``rgb_array`` (16 pixels per cell) or ``svg``

    Raises `LevelError` for levels that cannot be read, `ConfigError` for another invalid argument,
    `gymnasium.error.InvalidAction` for an action that is not 0–3 and `gymnasium.error.ResetNeeded` for a step outside
    an episode.
    """

    metadata = METADATA

    _board: Board | None = None
    _over = True

    @property
    def board(self) -> Board:
        """The current position. Raises `ResetNeeded` before the first reset."""
        if self._board is None:
            raise error.ResetNeeded("call reset() first")
        return self._board

    @checked
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode, on level ``options["level"]`` if given."""
        super().reset(seed=seed)
        given = (options or {}).get("level")
        self._level = int(self.np_random.integers(len(self.levels))) if given is None else self._level_number(given)
        self._board, self._moves, self._over = self._boards[self._level], 0, False
        self._cells = self._start_cells[self._level].copy()
        return self._observation(), self._info()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Make one move; returns (observation, reward, terminated, truncated, info)."""
        if self._over:
            raise error.ResetNeeded("the episode is over or has not begun; call reset()")
        if action not in self.action_space:
            raise error.InvalidAction(f"an action is 0, 1, 2 or 3 (up, down, left, right), not {action!r}")
        before = self.board
        self._board, outcome = rules.step(before, rules.MOVES[int(action)])
        if outcome is not Outcome.BLOCKED:
            self._follow(before.player, self._board.player, outcome)
        self._moves += 1
        solved = self._board.solved
        truncated = not solved and self._moves >= self._max_steps
        self._over = solved or truncated
        reward = self._rewarded(self._board.boxes_on_target - before.boxes_on_target, solved)
        return self._observation(), reward, solved, truncated, self._info()

    def render(self) -> Any:
        """The position in `render_mode`: coloured text, uint8 [16·H, 16·W, 3] or SVG; None without a mode."""
        return self._frame(self.board, self._cells)

    def _follow(self, here: Cell, there: Cell, outcome: Outcome) -> None:
        """Move the player, and the pushed box, in the array of cells."""
        self._cells[here] ^= PLAYER
        self._cells[there] ^= PLAYER
        if outcome is Outcome.PUSHED:
            self._cells[there] ^= BOX
            self._cells[2 * there[0] - here[0], 2 * there[1] - here[1]] ^= BOX

    def _observation(self) -> Any:
        if self._observe == "text":
            return texts_of_cells(self._cells[None], np.array([(self.board.height, self.board.width)]))[0]
        return rgb_of_cells(self._cells, TILE) if self._observe == "rgb" else self._cells.copy()

    def _info(self) -> dict[str, Any]:
        optimal, solved = int(self._optimal[self._level]), self.board.solved
        return {"level": self._level, "moves": self._moves, "optimal_moves": optimal, "success": solved}
