"""Sokoban as Gymnasium environments: `SokobanEnv`, and `SokobanVectorEnv`, which steps all boards in one NumPy call.

The single environment plays by `rules.step`, the vector one by `rules.step_batch`; a test plays both and compares
everything they return.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
from gymnasium import error, spaces
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from himac_lite.errors import ConfigError
from himac_lite.sokoban import rules
from himac_lite.sokoban.render import PLAYER, rgb_of_cells, to_ansi, to_svg, to_text
from himac_lite.sokoban.rules import BOX, TARGET, WALL, Board
from himac_lite.types import Level

ENV_ID = "himac_lite/Sokoban-v0"
CHOICES = {
    "reward": ("sparse", "gym_sokoban"),
    "observation": ("symbolic", "text", "rgb"),
    "render_mode": (None, "ansi", "rgb_array", "svg"),
}
TILE = 16  # pixels a cell in ``rgb`` observations and ``rgb_array`` frames


def register() -> None:
    """Make `gymnasium.make` and `make_vec` know ``himac_lite/Sokoban-v0``. Calling it again does nothing."""
    if ENV_ID not in gymnasium.registry:
        gymnasium.register(ENV_ID, f"{__name__}:SokobanEnv", vector_entry_point=f"{__name__}:SokobanVectorEnv")


class _Game:
    """What the two environments share: checked arguments, start positions, reward. H×W is the largest level."""

    def __init__(
        self,
        levels: str | os.PathLike[str] | Sequence[Level] = "core/train",
        reward: str = "sparse",
        max_steps: int = 50,
        observation: str = "symbolic",
        render_mode: str | None = None,
    ) -> None:
        for name, value in zip(CHOICES, (reward, observation, render_mode), strict=True):
            if value not in CHOICES[name]:
                raise ConfigError(f"{name} must be one of {', '.join(map(str, CHOICES[name]))}, not {value!r}")
        if max_steps < 1:
            raise ConfigError(f"max_steps must be at least 1, not {max_steps}")
        # Imported here because it brings the solver's compiler, which `import himac_lite` need not wait for.
        from himac_lite.sokoban.levels import load_levels, parse_levels

        if isinstance(levels, str | os.PathLike):
            self.levels = load_levels(levels)
        elif not levels:
            raise ConfigError("levels is empty; give a split such as 'core/train', an XSB file, or a list of Level")
        else:
            self.levels = [replace(v, rows=parse_levels(v.text, f"levels[{i}]")[0].rows) for i, v in enumerate(levels)]
        self._reward, self._max_steps, self._observe, self.render_mode = reward, max_steps, observation, render_mode
        self._boards = [rules.board_from_level(level) for level in self.levels]
        self._start_cells, self._start_player = rules.pack(self._boards)  # uint8 [L, H, W], int64 [L, 2]
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
        """The reward of one step. gained: change in the number of boxes on target; scalars or arrays [N]."""
        return 1.0 * solved if self._reward == "sparse" else -0.1 + gained + 10.0 * solved

    def _frame(self, board: Board, cells: np.ndarray) -> Any:
        """One picture. cells: uint8 [H, W] with the player's bit."""
        if self.render_mode == "rgb_array":
            return rgb_of_cells(cells, TILE)
        return to_svg(board) if self.render_mode == "svg" else to_ansi(board) if self.render_mode else None


class SokobanEnv(_Game, gymnasium.Env[Any, Any]):
    """Sokoban: push every box onto a target. Boxes cannot be pulled, and only one can be pushed at a time.

    ## Action Space

    `Discrete(4)`: 0 up, 1 down, 2 left, 3 right.

    A move pushes the box that stands in its way, if the cell behind the box is free. A move into a wall, or against a
    box that cannot be pushed, changes nothing, but counts as a step.

    ## Observation Space

    H×W is the size of the largest of the levels, border included.

    - ``symbolic``: uint8 [H, W], the sum of the bits 1 wall, 2 target, 4 box, 8 player. Smaller levels stand in the
      upper left corner, and the rest is wall.
    - ``text``: the board's own rows in XSB characters, joined by newlines (``#`` wall, ``.`` target, ``$`` box, ``*``
      box on target, ``@`` player, ``+`` player on target).
    - ``rgb``: uint8 [16·H, 16·W, 3], a picture of ``symbolic``.

    ## Starting State

    A level drawn uniformly, or ``reset(options={"level": i})``, which draws nothing.

    ## Rewards

    - ``sparse``: +1 for the step that solves the level, else 0.
    - ``gym_sokoban``: −0.1 for every step, +1 for a box pushed onto a target, −1 for one pushed off, +10 for solving.

    ## Episode End

    - Termination: every box stands on a target.
    - Truncation: `max_steps` steps without that. A level solved by its last step is terminated and not truncated.

    ## Information

    `reset()` and `step()` return ``level`` (its number), ``moves`` (steps so far), ``optimal_moves`` (of the level, −1
    where the file does not say) and ``success``.

    ## Arguments

    - `levels`: a split such as ``core/train``, an XSB file, or a list of `Level`
    - `reward`: ``sparse`` or ``gym_sokoban``
    - `max_steps`: steps until truncation, at least 1
    - `observation`: ``symbolic``, ``text`` or ``rgb``
    - `render_mode`: ``ansi`` (coloured text), ``rgb_array`` (16 pixels a cell) or ``svg``

    Raises `LevelError` for levels that cannot be read, `ConfigError` for another value, `gymnasium.error.InvalidAction`
    for an action that is not 0–3 and `gymnasium.error.ResetNeeded` for a step outside an episode.
    """

    metadata = {"render_modes": list(CHOICES["render_mode"][1:]), "render_fps": 4}  # noqa: RUF012 (Gymnasium's way)

    _board: Board | None = None
    _over = True

    @property
    def board(self) -> Board:
        """The position now. Raises `ResetNeeded` before the first reset."""
        if self._board is None:
            raise error.ResetNeeded("call reset() first")
        return self._board

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode, on level ``options["level"]`` if that is given."""
        super().reset(seed=seed)
        given = (options or {}).get("level")
        self._level = int(self.np_random.integers(len(self.levels))) if given is None else self._level_number(given)
        self._board, self._moves, self._over = self._boards[self._level], 0, False
        return self._observation(), self._info()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Make one move; returns (observation, reward, terminated, truncated, info)."""
        if self._over:
            raise error.ResetNeeded("the episode is over or has not begun; call reset()")
        if action not in self.action_space:
            raise error.InvalidAction(f"an action is 0, 1, 2 or 3 (up, down, left, right), not {action!r}")
        before = self.board
        self._board, _ = rules.step(before, rules.MOVES[int(action)])
        self._moves += 1
        solved = self._board.solved
        truncated = not solved and self._moves >= self._max_steps
        self._over = solved or truncated
        reward = self._rewarded(self._board.boxes_on_target - before.boxes_on_target, solved)
        return self._observation(), reward, solved, truncated, self._info()

    def render(self) -> Any:
        """The position in `render_mode`: coloured text, uint8 [16·H, 16·W, 3], SVG, or None where there is no mode."""
        return self._frame(self.board, self._symbolic())

    def _symbolic(self) -> np.ndarray:
        cells = np.full(self._start_cells.shape[1:], WALL, np.uint8)
        cells[: self.board.height, : self.board.width] = rules.pack([self.board])[0][0]
        cells[self.board.player] |= PLAYER
        return cells

    def _observation(self) -> Any:
        if self._observe == "text":
            return to_text(self.board)
        return rgb_of_cells(self._symbolic(), TILE) if self._observe == "rgb" else self._symbolic()

    def _info(self) -> dict[str, Any]:
        optimal, solved = int(self._optimal[self._level]), self.board.solved
        return {"level": self._level, "moves": self._moves, "optimal_moves": optimal, "success": solved}


class SokobanVectorEnv(_Game, VectorEnv[Any, Any, np.ndarray]):
    """`num_envs` boards of `SokobanEnv`, N for short, stepped together. Other arguments, spaces and rewards as there.

    - Autoreset is ``NEXT_STEP``: the step after the end of an episode ignores its action, returns reward 0 and the
      first observation of a new episode.
    - ``reset(seed=s)`` seeds board i with s + i, or give a list; ``options={"level": i}``, or a number for each board.
    - ``symbolic`` and ``rgb`` observations are arrays [N, …], ``text`` is a tuple of N strings; infos are arrays [N].
    """

    metadata = {**SokobanEnv.metadata, "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, num_envs: int = 1, *args: Any, **kwargs: Any) -> None:
        if num_envs < 1:
            raise ConfigError(f"num_envs must be at least 1, not {num_envs}")
        super().__init__(*args, **kwargs)
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = self.observation_space, self.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._rngs = [seeding.np_random()[0] for _ in range(num_envs)]
        self._level = np.full(num_envs, -1)  # −1: not yet reset
        self._cells = np.zeros((num_envs, *self._start_cells.shape[1:]), np.uint8)
        self._player = np.zeros((num_envs, 2), np.int64)
        self._moves, self._over = np.zeros(num_envs, np.int64), np.zeros(num_envs, np.bool_)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode on every board."""
        seeds = [None if seed is None else int(seed) + i for i in range(self.num_envs)] if np.ndim(seed) == 0 else seed
        given: Any = (options or {}).get("level")
        levels = [given] * self.num_envs if np.ndim(given) == 0 else list(given)
        for name, values in (("seed", seeds), ("options['level']", levels)):
            if len(values) != self.num_envs:
                raise ConfigError(f"{name} must be one number or {self.num_envs} of them, not {len(values)}")
        for i, own in enumerate(seeds):
            if own is not None:
                self._rngs[i] = seeding.np_random(own)[0]
        self._begin(np.arange(self.num_envs), levels)
        return self._observation(), self._infos()

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One move on every board. actions: int [N]; returns (observations, float64 [N], bool [N], bool [N], infos)."""
        if (self._level < 0).any():
            raise error.ResetNeeded("call reset() first")
        actions = np.asarray(actions)
        if actions.shape != (self.num_envs,) or not np.isin(actions, range(4)).all():
            raise error.InvalidAction(f"actions must be {self.num_envs} integers from 0 to 3, not {actions!r}")
        ended, before = self._over, self._on_target()
        rules.step_batch(self._cells, self._player, actions.astype(np.int64))
        self._moves += 1
        terminated = rules.solved_batch(self._cells)
        truncated = ~terminated & (self._moves >= self._max_steps)
        rewards = np.asarray(self._rewarded(self._on_target() - before, terminated), np.float64)
        for result in (rewards, terminated, truncated):
            result[ended] = 0
        self._over = terminated | truncated
        self._begin(np.flatnonzero(ended), [None] * self.num_envs)
        return self._observation(), rewards, terminated, truncated, self._infos()

    def render(self) -> tuple[Any, ...] | None:
        """A frame of every board in `render_mode`, or None where there is no mode."""
        if self.render_mode is None:
            return None
        return tuple(self._frame(self._board(i), cells) for i, cells in enumerate(self._symbolic()))

    def _begin(self, which: np.ndarray, levels: Sequence[Any]) -> None:
        """Put the boards `which` at the start of the given levels; None draws one with the board's own generator."""
        for i in which.tolist():
            drawn = levels[i] is None
            self._level[i] = self._rngs[i].integers(len(self.levels)) if drawn else self._level_number(levels[i])
        level = self._level[which]
        self._cells[which], self._player[which] = self._start_cells[level], self._start_player[level]
        self._moves[which], self._over[which] = 0, False

    def _on_target(self) -> np.ndarray:
        """int64 [N]: boxes on target."""
        return np.count_nonzero((self._cells & (BOX | TARGET)) == (BOX | TARGET), axis=(1, 2))

    def _symbolic(self) -> np.ndarray:
        cells = self._cells.copy()
        cells[np.arange(self.num_envs), self._player[:, 0], self._player[:, 1]] |= PLAYER
        return cells

    def _observation(self) -> Any:
        if self._observe == "text":
            return tuple(to_text(self._board(i)) for i in range(self.num_envs))
        return rgb_of_cells(self._symbolic(), TILE) if self._observe == "rgb" else self._symbolic()

    def _board(self, i: int) -> Board:
        boxes = frozenset((r, c) for r, c in np.argwhere(self._cells[i] & BOX).tolist())
        r, c = self._player[i].tolist()
        return replace(self._boards[self._level[i]], boxes=boxes, player=(r, c))

    def _infos(self) -> dict[str, Any]:
        level, solved = self._level.copy(), rules.solved_batch(self._cells)
        infos = {"level": level, "moves": self._moves.copy(), "optimal_moves": self._optimal[level], "success": solved}
        return infos | {f"_{key}": np.ones(self.num_envs, np.bool_) for key in infos}


register_envs = register
register()
