"""The Gymnasium environments: Gymnasium's own checks, episodes by hand, and the vector one against the single."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium import error
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from himac_lite.errors import ConfigError, LevelError
from himac_lite.tasks.sokoban import ENV_ID, register_envs
from himac_lite.tasks.sokoban.env import SokobanEnv
from himac_lite.tasks.sokoban.levels import load_levels
from himac_lite.tasks.sokoban.pixels import to_rgb
from himac_lite.tasks.sokoban.render import to_svg, to_text
from himac_lite.tasks.sokoban.rules import board_from_level
from himac_lite.tasks.sokoban.vector import SokobanVectorEnv
from himac_lite.types import Level

ROOT = Path(__file__).resolve().parents[3]
UP, DOWN, LEFT, RIGHT = range(4)
TWO_BOXES = Level(("#######", "#@$. .#", "# $   #", "#     #", "#######"), "two boxes", 9, 5)
ONE_PUSH = Level(("#####", "#@$.#", "#####"), "one push", 1, 1)
SMALL = [TWO_BOXES, ONE_PUSH]


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def fresh(code: str) -> str:
    """What a new process prints."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# What Gymnasium asks for


@pytest.mark.parametrize("observation", ["symbolic", "text", "rgb"])
@pytest.mark.parametrize("reward", ["sparse", "gym_sokoban"])
@pytest.mark.parametrize("render_mode", [None, "ansi", "rgb_array", "svg"])
def test_gymnasium_finds_nothing_to_object_to(observation, reward, render_mode):
    """Every complaint of the checker that is not an error is a warning, and warnings are errors here."""
    arguments = {"levels": "warmup/test", "observation": observation, "reward": reward, "render_mode": render_mode}
    check_env(gymnasium.make(ENV_ID, **arguments).unwrapped)


def test_make_by_module_name_in_a_new_process():
    code = "import gymnasium; print(gymnasium.make('himac_lite.tasks.sokoban.env:himac_lite/Sokoban-v0').unwrapped)"
    assert "SokobanEnv" in fresh(code)


def test_the_module_does_not_wait_for_the_compiler():
    assert fresh("import sys, himac_lite.tasks.sokoban.env; print('numba' in sys.modules)") == "False"


def test_registering_again_is_silent_and_changes_nothing():
    before = gymnasium.registry[ENV_ID]
    register_envs()
    assert gymnasium.registry[ENV_ID] is before
    del gymnasium.registry[ENV_ID]
    register_envs()
    assert gymnasium.registry[ENV_ID] == before


def test_make_vec_takes_the_batched_environment():
    for mode in (None, "vector_entry_point"):
        env = gymnasium.make_vec(ENV_ID, num_envs=3, vectorization_mode=mode, levels=SMALL)
        assert isinstance(env, SokobanVectorEnv)
        assert env.num_envs == 3
        assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP


MODES = [None, "vector_entry_point", "sync", "async"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("limits", "length"),
    [({"max_episode_steps": 5}, 5), ({"max_episode_steps": None}, 7), ({"max_episode_steps": -1}, 7),
     ({"max_episode_steps": 9}, 7), ({"max_episode_steps": 5, "disable_env_checker": True}, 5)],
)  # fmt: skip
def test_a_limit_of_gymnasium_counts_in_every_mode(mode, limits, length):
    """Beside max_steps=7; the upper row of the level is a dead end, so nothing is solved on the way."""
    made = gymnasium.make_vec(ENV_ID, num_envs=2, vectorization_mode=mode, levels=[TWO_BOXES], max_steps=7, **limits)
    made.reset()
    lengths = [made.step(np.array([UP, UP]))[3].tolist() for _ in range(length)]
    made.close()
    assert lengths == [[False, False]] * (length - 1) + [[True, True]]
    single = gymnasium.make(ENV_ID, levels=[TWO_BOXES], max_steps=7, **limits)
    single.reset()
    assert [single.step(UP)[3] for _ in range(length)] == [False] * (length - 1) + [True]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("limit", [0, -2, 2.5, "5"])
def test_a_limit_that_is_none_is_refused_in_every_mode(mode, limit):
    with pytest.raises((ConfigError, ValueError, TypeError), match="max_episode_steps"):
        gymnasium.make_vec(ENV_ID, num_envs=2, vectorization_mode=mode, levels=[TWO_BOXES], max_episode_steps=limit)


def test_the_spec_of_a_vector_environment_makes_it_again():
    made = gymnasium.make_vec(ENV_ID, num_envs=2, levels=SMALL, max_episode_steps=5, render_mode="ansi")
    again = gymnasium.make_vec(made.spec)
    assert (again.num_envs, again.levels, again.render_mode) == (2, made.levels, "ansi")
    again.reset()
    assert [again.step([UP, UP])[3].all() for _ in range(5)] == [False] * 4 + [True]


# Episodes by hand


def start(level=0, **arguments):
    env = SokobanEnv(SMALL, **arguments)
    env.reset(options={"level": level})
    return env


def test_sparse_reward_and_termination():
    # @$. .  Push the upper box right once. Push the lower one right three times, go around below it, and push it up.
    #  $
    env = start()
    for action in [RIGHT, LEFT, DOWN, RIGHT, RIGHT, RIGHT, DOWN, RIGHT]:
        _, reward, terminated, truncated, info = env.step(action)
        assert (reward, terminated, truncated, info["success"]) == (0, False, False, False)
    _, reward, terminated, truncated, info = env.step(UP)
    assert (reward, terminated, truncated) == (1, True, False)
    assert info == {"level": 0, "moves": 9, "optimal_moves": 9, "success": True}


def test_gym_sokoban_rewards():
    env = start(reward="gym_sokoban")
    worth = []
    for action in [UP, DOWN, UP, RIGHT, RIGHT, RIGHT]:
        worth.append(env.step(action)[1])
    # Against the wall, down and up again: a step each. Then the box: onto the target, off it, and onto the second one.
    assert worth == pytest.approx([-0.1, -0.1, -0.1, 0.9, -1.1, 0.9])
    solving = start(1, reward="gym_sokoban").step(RIGHT)
    assert solving[1] == pytest.approx(-0.1 + 1 + 10)
    assert isinstance(solving[1], float)


def test_truncation_is_not_termination():
    env = start(max_steps=2)
    assert env.step(UP)[2:4] == (False, False)
    _, reward, terminated, truncated, info = env.step(UP)  # a blocked move is a step too
    assert (reward, terminated, truncated) == (0, False, True)
    assert info["moves"] == 2
    assert not info["success"]


def test_a_level_solved_by_the_last_step_is_terminated_only():
    assert start(1, max_steps=1).step(RIGHT)[2:4] == (True, False)


@pytest.mark.parametrize("ending", ["terminated", "truncated", "not begun"])
def test_no_step_outside_an_episode(ending):
    env = SokobanEnv(SMALL, max_steps=1)
    if ending != "not begun":
        env.reset(options={"level": 1 if ending == "terminated" else 0})
        assert env.step(RIGHT)[2:4] == (ending == "terminated", ending == "truncated")
    with pytest.raises(error.ResetNeeded):
        env.step(RIGHT)
    env.reset()
    env.step(LEFT)


def test_an_unknown_optimal_length_is_minus_one():
    _, info = SokobanEnv([Level(ONE_PUSH.rows)]).reset()
    assert info["optimal_moves"] == -1


# Observations and pictures


def test_symbolic_observation():
    observation, _ = SokobanEnv(SMALL).reset(options={"level": 1})
    assert observation.dtype == np.uint8
    assert observation.tolist() == [  # 1 wall, 2 target, 4 box, 8 player; filled with wall to the larger level
        [1, 1, 1, 1, 1, 1, 1],
        [1, 8, 4, 2, 1, 1, 1],
        [1, 1, 1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1, 1, 1],
    ]
    env = start()
    assert env.step(RIGHT)[0][1].tolist() == [1, 0, 8, 6, 0, 2, 1]
    assert env.step(RIGHT)[0][1].tolist() == [1, 0, 0, 10, 4, 2, 1]


def test_text_observation():
    env = start(1, observation="text")
    assert env.reset(options={"level": 1})[0] == "#####\n#@$.#\n#####"
    assert env.step(RIGHT)[0] == "#####\n# @*#\n#####"
    assert env.reset(options={"level": 0})[0] in env.observation_space


def test_rgb_observation_and_frame():
    env = start(observation="rgb", render_mode="rgb_array")
    observation = env.step(DOWN)[0]
    assert (observation == to_rgb(env.board, 16)).all()
    assert (env.render() == observation).all()


def test_render_modes():
    assert start(1, render_mode="svg").render() == to_svg(board_from_level(ONE_PUSH))
    assert "\033[" in start(1, render_mode="ansi").render()
    assert start(1).render() is None


def test_an_observation_is_the_callers_own():
    env = start()
    first, _ = env.reset(options={"level": 0})
    first[:] = 0
    assert env.reset(options={"level": 0})[0].sum() > 0
    vector = SokobanVectorEnv(2, SMALL)
    first, infos = vector.reset(options={"level": 0})
    expected = first.copy()
    vector.step([RIGHT, RIGHT])
    assert (first == expected).all()
    assert infos["moves"].tolist() == [0, 0]


# Choice of level


def test_a_seed_fixes_the_levels_and_all_of_them_come_up():
    env = SokobanEnv("warmup/validation")

    def drawn(seed):
        return [env.reset(seed=seed if i == 0 else None)[1]["level"] for i in range(8)]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    env = SokobanEnv(SMALL)
    assert {env.reset()[1]["level"] for _ in range(40)} == {0, 1}


def test_levels_from_a_split_a_file_and_a_list(tmp_path):
    file = tmp_path / "mine.xsb"
    file.write_text("#####\n#@$.#\n#####\n")
    for levels in (file, str(file), [ONE_PUSH]):
        assert SokobanEnv(levels, observation="text").reset()[0] == "#####\n#@$.#\n#####"
    frozen = load_levels("warmup/test")
    env = SokobanEnv("warmup/test", observation="text")
    assert env.reset(options={"level": 511})[0] == to_text(board_from_level(frozen[511]))
    assert len(SokobanEnv().levels) == 4096, "core/train unless told"


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"reward": "dense"}, ConfigError, "reward must be one of sparse, gym_sokoban, not 'dense'"),
        ({"observation": "image"}, ConfigError, "observation must be one of symbolic, text, rgb, not 'image'"),
        ({"render_mode": "human"}, ConfigError, "render_mode must be one of None, ansi, rgb_array, svg, not 'human'"),
        ({"max_steps": 0}, ConfigError, "max_steps must be at least 1"),
        ({"levels": []}, ConfigError, "levels is empty"),
        ({"levels": "core/tset"}, LevelError, "unknown split"),
        ({"levels": [ONE_PUSH, Level(("####", "#@$.", "####"))]}, LevelError, r"levels\[1\].*open to the outside"),
    ],
)
@pytest.mark.parametrize("kind_of_env", [SokobanEnv, SokobanVectorEnv])
def test_bad_arguments(kind_of_env, arguments, kind, message):
    with pytest.raises(kind, match=message):
        kind_of_env(**{"levels": SMALL, **arguments})


@pytest.mark.parametrize("level", [2, -1, 0.5, "core/train"])
def test_bad_level_number(level):
    with pytest.raises(ConfigError, match=r"options\['level'\] must be an integer from 0 to 1"):
        SokobanEnv(SMALL).reset(options={"level": level})
    with pytest.raises(ConfigError, match=r"options\['level'\] must be an integer from 0 to 1"):
        SokobanVectorEnv(2, SMALL).reset(options={"level": [0, level]})


@pytest.mark.parametrize("action", [4, -1, 1.5, "up", None])
def test_bad_action(action):
    with pytest.raises(error.InvalidAction):
        start().step(action)
    vector = SokobanVectorEnv(2, SMALL)
    vector.reset()
    with pytest.raises(error.InvalidAction):
        vector.step([0, action])
    with pytest.raises(error.InvalidAction):
        vector.step([0])


# The vector environment


def same(a, b):
    """Equal in value, type and mask; masks and dicts of `final_info` are compared all the way down."""
    assert a.keys() == b.keys() if isinstance(a, dict) else type(a) is type(b)
    if isinstance(a, dict):
        for key in a:
            same(a[key], b[key])
    elif isinstance(a, tuple) or a.dtype == object:
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    else:
        assert a.dtype == b.dtype
        assert np.array_equal(a, b)


@pytest.mark.parametrize("observation", ["symbolic", "text", "rgb"])
@pytest.mark.parametrize("reward", ["sparse", "gym_sokoban"])
@pytest.mark.parametrize("levels", ["mixed sizes", "easy ones"])
@pytest.mark.parametrize("mode", AutoresetMode)
def test_the_batched_environment_is_the_single_one_many_times(observation, reward, levels, mode):
    """Against Gymnasium's own loop over `SokobanEnv`, which plays by the other form of the rules: everything is equal,
    over ends of both kinds and resets of single boards."""
    chosen = SMALL if levels == "mixed sizes" else [lv for lv in load_levels("warmup/test") if lv.optimal_moves <= 5]
    arguments = {"levels": chosen, "observation": observation, "reward": reward}
    arguments |= {"max_steps": 12, "render_mode": "rgb_array"}
    ours = gymnasium.make_vec(ENV_ID, num_envs=6, autoreset_mode=mode, **arguments)
    loop = gymnasium.make_vec(
        ENV_ID, num_envs=6, vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode}, **arguments
    )
    assert ours.metadata["autoreset_mode"] is loop.metadata["autoreset_mode"] is mode
    assert ours.observation_space == loop.observation_space
    assert ours.single_observation_space == loop.single_observation_space
    assert ours.action_space == loop.action_space
    rng = np.random.default_rng(0)
    ends = {"terminated": 0, "truncated": 0}

    for x, y in zip(ours.reset(seed=11), loop.reset(seed=11), strict=True):
        same(x, y)
    for _ in range(150):
        actions = rng.integers(4, size=6)
        result = ours.step(actions)
        for x, y in zip(result, loop.step(actions), strict=True):
            same(x, y)
        assert result[0] in ours.observation_space
        ends["terminated"] += result[2].sum()
        ends["truncated"] += result[3].sum()
        over = result[2] | result[3]
        if mode is AutoresetMode.DISABLED and over.any():
            for x, y in zip(*(env.reset(options={"reset_mask": over}) for env in (ours, loop)), strict=True):
                same(x, y)
    same(ours.render(), loop.render())
    for x, y in zip(ours.reset(seed=[5, 4, 3, 2, 1, 0]), loop.reset(seed=[5, 4, 3, 2, 1, 0]), strict=True):
        same(x, y)
    assert ends["truncated"] > 0
    assert ends["terminated"] > 0


def test_without_autoreset_an_episode_that_is_over_needs_a_reset():
    env = SokobanVectorEnv(2, SMALL, autoreset_mode="DISABLED")
    env.reset(options={"level": [0, 1]})
    env.step([UP, RIGHT])
    with pytest.raises(error.ResetNeeded, match=r"boards \[1\] are over"):
        env.step([UP, UP])
    env.reset(options={"reset_mask": np.array([False, True]), "level": 1})
    assert env.step([UP, RIGHT])[4]["moves"].tolist() == [2, 1], "the other board plays on"
    with pytest.raises(ConfigError, match="reset_mask"):
        env.reset(options={"reset_mask": np.array([False, False])})
    with pytest.raises(ConfigError, match="autoreset_mode must be one of NEXT_STEP, SAME_STEP, DISABLED, not 'LATER'"):
        SokobanVectorEnv(2, SMALL, autoreset_mode="LATER")


def test_a_large_batch_is_shared_among_threads_and_plays_the_same(monkeypatch):
    """Parts are played by several threads; each board must go where it goes in a small batch."""
    from himac_lite.tasks.sokoban import batch

    actions = np.random.default_rng(0).integers(4, size=(30, 40))

    def played(part):
        monkeypatch.setattr(batch, "_PART", part)
        monkeypatch.setattr(batch, "_cores", lambda: 3)
        env = SokobanVectorEnv(40, "warmup/test", max_steps=8, reward="gym_sokoban")
        env.reset(seed=3)
        return [[x.tolist() for x in env.step(row)[:4]] for row in actions]

    assert played(10) == played(1_000)


def test_autoreset_on_the_next_step():
    env = SokobanVectorEnv(2, SMALL, max_steps=3, observation="text")
    env.reset(seed=0, options={"level": [0, 1]})
    observations, rewards, terminated, truncated, infos = env.step([LEFT, RIGHT])
    assert observations[1] == "#####\n# @*#\n#####", "the last observation of the episode, not the first of the next"
    assert (rewards.tolist(), terminated.tolist(), truncated.tolist()) == ([0, 1], [False, True], [False, False])
    assert (infos["moves"].tolist(), infos["success"].tolist()) == ([1, 1], [False, True])
    observations, rewards, terminated, truncated, infos = env.step([LEFT, RIGHT])
    assert infos["moves"].tolist() == [2, 0], "this step began an episode, whatever the action was"
    assert (rewards[1], terminated[1], truncated[1]) == (0, False, False)
    assert observations[1] == to_text(board_from_level(SMALL[infos["level"][1]]))
    assert env.step([LEFT, UP])[4]["moves"].tolist() == [3, 1]


def test_vector_needs_a_reset_and_the_right_numbers():
    env = SokobanVectorEnv(3, SMALL)
    with pytest.raises(error.ResetNeeded):
        env.step([0, 0, 0])
    with pytest.raises(ConfigError, match="seed must be one number or 3 of them, not 2"):
        env.reset(seed=[1, 2])
    with pytest.raises(ConfigError, match=r"options\['level'\] must be one number or 3 of them, not 2"):
        env.reset(options={"level": [0, 1]})
    with pytest.raises(ConfigError, match="num_envs must be at least 1"):
        SokobanVectorEnv(0, SMALL)


def test_no_seed_differs_from_run_to_run():
    first, second = (SokobanVectorEnv(64, "warmup/train").reset()[1]["level"].tolist() for _ in range(2))
    assert first != second
