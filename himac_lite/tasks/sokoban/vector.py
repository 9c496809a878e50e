"""`SokobanVectorEnv`: N boards stepped by the kernels of `sokoban.batch`, without a loop over environments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import error
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from himac_lite.errors import ConfigError, checked
from himac_lite.tasks.sokoban import batch
from himac_lite.tasks.sokoban.cells import texts_of_cells, unpack
from himac_lite.tasks.sokoban.game import METADATA, TILE, Game
from himac_lite.tasks.sokoban.pixels import sprites
from himac_lite.tasks.sokoban.rules import BOX, TARGET, Board

_DRAWN = 32  # level numbers drawn at once for each board: the same numbers as single draws, much cheaper


@checked
class SokobanVectorEnv(Game, VectorEnv[Any, Any, np.ndarray]):
    """`num_envs` boards of `SokobanEnv` (N for short), stepped together. Other arguments, spaces and rewards are equal.

    - `autoreset_mode`, as in Gymnasium. ``NEXT_STEP`` (default): the step after the end of an episode ignores its
      action, returns reward 0 and the first observation of a new episode. ``SAME_STEP``: the step that ends an episode
      returns the first observation of the next one, and the last observation in ``infos["final_obs"]`` and
      ``infos["final_info"]``. ``DISABLED``: the caller resets all boards, or some by ``{"reset_mask": bool [N]}``.
    - `max_episode_steps`: as in `gymnasium.make`, a step limit beside `max_steps`; None or −1: no other limit.
      `disable_env_checker` is accepted like there; a vector environment has no checker.
    - ``reset(seed=s)`` seeds board i with s + i; ``seed`` may be a list. ``options={"level": i}``: one number or N.
    - ``symbolic`` and ``rgb`` observations are arrays [N, …], ``text`` is a tuple of N strings; infos are arrays [N].
    """

    metadata = {**METADATA, "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012 (Gymnasium's way)

    def __init__(
        self,
        num_envs: int = 1,
        *args: Any,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        max_episode_steps: int | None = None,
        disable_env_checker: bool | None = None,
        **kwargs: Any,
    ) -> None:
        if num_envs < 1:
            raise ConfigError(f"num_envs must be at least 1, not {num_envs}")
        super().__init__(*args, **kwargs)
        if max_episode_steps is not None and max_episode_steps != -1:
            if max_episode_steps < 1:
                raise ConfigError(f"max_episode_steps must be at least 1, or None or -1, not {max_episode_steps}")
            self._max_steps = min(self._max_steps, max_episode_steps)
        self._mode = _autoreset_mode(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self._mode}
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = self.observation_space, self.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._rngs = [seeding.np_random()[0] for _ in range(num_envs)]
        self._drawn, self._used = np.zeros((num_envs, _DRAWN), np.int64), np.full(num_envs, _DRAWN)
        self._level = np.full(num_envs, -1)  # −1: not yet reset
        self._cells = np.zeros((num_envs, *self._start_cells.shape[1:]), np.uint8)
        self._player = np.zeros((num_envs, 2), np.int64)
        self._start_missing = np.count_nonzero((self._start_cells & (BOX | TARGET)) == BOX, axis=(1, 2))
        self._missing, self._moves = np.zeros(num_envs, np.int64), np.zeros(num_envs, np.int64)
        self._over = np.zeros(num_envs, np.bool_)
        self._sizes = np.array([(board.height, board.width) for board in self._boards])

    @checked
    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode on every board, or on the boards of ``options["reset_mask"]``."""
        options = options or {}
        seeds, levels = self._each("seed", seed), self._each("options['level']", options.get("level"))
        if not all(s is None or (isinstance(s, int | np.integer) and s >= 0) for s in seeds):
            raise ConfigError(f"seed must be an integer of at least 0, or {self.num_envs} of them, not {seed!r:.80}")
        if isinstance(seed, int | np.integer):
            seeds = [int(seed) + i for i in range(self.num_envs)]
        which = self._chosen(options.get("reset_mask"))
        for i in which.tolist():
            if seeds[i] is not None:
                self._rngs[i], self._used[i] = seeding.np_random(int(seeds[i]))[0], _DRAWN
        self._begin(which, levels)
        return self._observation(), self._infos(which)

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One move on every board. actions: int [N]. Returns observations, float64 [N], bool [N], bool [N], infos."""
        if self._level.min() < 0:
            raise error.ResetNeeded("call reset() first")
        actions = np.asarray(actions)
        if (
            actions.shape != (self.num_envs,)
            or actions.dtype.kind not in "iu"
            or not 0 <= actions.min() <= actions.max() <= 3
        ):
            raise error.InvalidAction(f"actions must be {self.num_envs} integers from 0 to 3, not {actions!r}")
        if self._mode is AutoresetMode.DISABLED and self._over.any():
            raise error.ResetNeeded(
                f"the episodes of boards {np.flatnonzero(self._over).tolist()} are over; call reset()"
            )
        ended, gained = self._over, np.empty(self.num_envs, np.int64)
        terminated, truncated = np.empty(self.num_envs, np.bool_), np.empty(self.num_envs, np.bool_)
        batch.in_parts(
            batch.step_episodes, self.num_envs, self._cells, self._player, actions.astype(np.int64), ended,
            self._missing, self._moves, gained, terminated, truncated, self._max_steps,
        )  # fmt: skip
        rewards = np.asarray(self._rewarded(gained, terminated), np.float64)
        self._over = terminated | truncated
        final: dict[str, Any] = {}
        if self._mode is AutoresetMode.NEXT_STEP:
            rewards[ended] = 0
            self._begin(np.flatnonzero(ended))
        elif self._mode is AutoresetMode.SAME_STEP and self._over.any():
            final = self._final(np.flatnonzero(self._over))
            self._begin(np.flatnonzero(self._over))
        return self._observation(), rewards, terminated, truncated, {**final, **self._infos()}

    def render(self) -> tuple[Any, ...] | None:
        """A frame of every board in `render_mode`; None without a mode."""
        if self.render_mode is None:
            return None
        return tuple(self._frame(self._board(i), self._cells[i]) for i in range(self.num_envs))

    def _each(self, name: str, given: Any) -> list[Any]:
        """The value of each board: one for all, or N of them."""
        given = given.tolist() if isinstance(given, np.ndarray) else given
        values = list(given) if isinstance(given, list | tuple) else [given] * self.num_envs
        if len(values) != self.num_envs:
            raise ConfigError(f"{name} must be one number or {self.num_envs} of them, not {len(values)}")
        return values

    def _chosen(self, mask: Any) -> np.ndarray:
        """The numbers of the boards to reset."""
        if mask is None:
            return np.arange(self.num_envs)
        mask = np.asarray(mask)
        if mask.dtype != np.bool_ or mask.shape != (self.num_envs,) or not mask.any():
            raise ConfigError(
                f"options['reset_mask'] must be bool [{self.num_envs}] with at least one True, not {mask!r}"
            )
        return np.flatnonzero(mask)

    def _begin(self, which: np.ndarray, levels: Sequence[Any] | None = None) -> None:
        """Reset the boards `which` to the given levels; None draws a level with the board's own generator."""
        if not len(which):
            return
        drawn = which if levels is None else np.array([i for i in which.tolist() if levels[i] is None], np.int64)
        for i in drawn[self._used[drawn] == _DRAWN].tolist():
            self._drawn[i], self._used[i] = self._rngs[i].integers(len(self.levels), size=_DRAWN), 0
        if levels is not None:
            for i in which.tolist():
                self._level[i] = -1 if levels[i] is None else self._level_number(levels[i])
        self._level[drawn] = self._drawn[drawn, self._used[drawn]]
        self._used[drawn] += 1
        batch.begin_episodes(
            0, len(which), which, self._level, self._start_cells, self._start_player, self._start_missing, self._cells,
            self._player, self._missing, self._moves,
        )  # fmt: skip
        self._over[which] = False

    def _observation(self, which: np.ndarray | None = None) -> Any:
        """Observations of all boards, or of some of them."""
        cells = self._cells if which is None else self._cells[which]
        if self._observe == "text":
            return texts_of_cells(cells, self._sizes[self._level if which is None else self._level[which]])
        if self._observe == "symbolic":
            return cells.copy()
        n, height, width = cells.shape
        out = np.empty((n, height, TILE, width, TILE * 3), np.uint8)
        batch.in_parts(batch.paint_tiles, n, cells, sprites(TILE).reshape(16, TILE, TILE * 3), out)
        return out.reshape(n, height * TILE, width * TILE, 3)

    def _board(self, i: int) -> Board:
        return unpack(self._cells[i], self._boards[self._level[i]])

    def _infos(self, which: np.ndarray | None = None) -> dict[str, Any]:
        """Infos of all boards, or of some: the others have zeros, and False in the masks."""
        level = self._level.copy()
        infos = {"level": level, "moves": self._moves.copy(), "optimal_moves": self._optimal[level]}
        infos["success"] = self._missing == 0
        mask = np.ones(self.num_envs, np.bool_)
        if which is not None and len(which) < self.num_envs:
            mask[:] = False
            mask[which] = True
            for values in infos.values():
                values[~mask] = 0
        return infos | {f"_{key}": mask.copy() for key in infos}

    def _final(self, which: np.ndarray) -> dict[str, Any]:
        """The last observations and infos of the episodes that just ended."""
        observations = np.full(self.num_envs, None, object)
        for i, observation in zip(which.tolist(), self._observation(which), strict=True):
            observations[i] = observation
        infos = self._infos(which)
        mask = infos["_level"]
        return {"final_obs": observations, "_final_obs": mask.copy(), "final_info": infos, "_final_info": mask.copy()}


def _autoreset_mode(given: AutoresetMode | str) -> AutoresetMode:
    for mode in AutoresetMode:
        if given in (mode, mode.name, mode.value):
            return mode
    raise ConfigError(f"autoreset_mode must be one of {', '.join(m.name for m in AutoresetMode)}, not {given!r}")
