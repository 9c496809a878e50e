"""`himac-lite bench env`: steps per second of our Sokoban environments, Jumanji's and gym-sokoban's.

The boards are 10×10 with 4 boxes, as in Jumanji, and actions are random. Our environment and Jumanji's step 4,096
boards at once with autoreset. gym-sokoban has one board and generates a level at each reset, which is not measured.
Steps are counted after compilation.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from himac_lite.bench import Report, machine, measure, peers, ratio
from himac_lite.tasks.sokoban.batch import step_batch
from himac_lite.tasks.sokoban.cells import pack
from himac_lite.tasks.sokoban.levels import parse_levels
from himac_lite.tasks.sokoban.rules import board_from_level
from himac_lite.tasks.sokoban.vector import SokobanVectorEnv

BOARDS, STEPS, MAX_STEPS = 4096, 200, 120
LEVELS = """
##########
##########
###  .####
### $   ##
##  #$.$##
## .  @ ##
##  $ #.##
###    ###
##########
##########

##########
#  .    ##
#   $ #  #
# $   # .#
#   @ #$##
#.#   $ ##
#  # .   #
##    ####
##########
##########
"""

JUMANJI = """
import json, sys, time
import jax, jax.numpy as jnp
from jumanji.environments.routing.sokoban import Sokoban
from jumanji.environments.routing.sokoban.generator import ToyGenerator
from jumanji.wrappers import VmapAutoResetWrapper
boards, steps, runs = map(int, sys.argv[1:])
env = VmapAutoResetWrapper(Sokoban(generator=ToyGenerator()))
state, _ = jax.jit(env.reset)(jax.random.split(jax.random.PRNGKey(0), boards))
actions = jax.random.randint(jax.random.PRNGKey(1), (steps, boards), 0, 4)
def one(state, action):
    state, timestep = env.step(state, action)
    return state, timestep.reward
@jax.jit
def play(state, actions):
    state, rewards = jax.lax.scan(one, state, actions)
    return state, rewards.sum()
rates = []
for run in range(runs + 1):
    begun = time.perf_counter()
    state, total = play(state, actions)
    total.block_until_ready()
    rates.append(boards * steps / (time.perf_counter() - begun))
print(json.dumps({"rates": rates[1:]}))
"""

GYM_SOKOBAN = """
import json, sys, time
from gym_sokoban.envs.sokoban_env import SokobanEnv
mode, steps, runs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
env = SokobanEnv(dim_room=(10, 10), num_boxes=4, max_steps=10**9)
env.reset()
rates = []
for run in range(runs + 1):
    begun = time.perf_counter()
    for i in range(steps):
        env.step(1 + i * 7 % 8, observation_mode=mode)
    rates.append(steps / (time.perf_counter() - begun))
print(json.dumps({"rates": rates[1:]}))
"""


def bench(*, runs: int, quick: bool) -> Report:
    """The rules alone, `VectorEnv` with symbolic and RGB observations, and the peers."""
    boards, steps = (256, 20) if quick else (BOARDS, STEPS)
    rules = measure(f"rules, {boards:,} boards", "steps/s", _rules(boards, steps), runs, "step_batch")
    vector = measure(f"VectorEnv, {boards:,} boards", "steps/s", _vector(boards, steps, "symbolic"), runs, "symbolic")
    frames = measure("VectorEnv, 256 boards", "frames/s", _vector(256, 5, "rgb"), runs, "rgb, 160×160 pixels")
    found = [rules, vector, frames]
    if not quick:
        jumanji, _ = peers.figures(
            "jumanji", f"Jumanji, {boards:,} boards", "steps/s", JUMANJI, boards, steps, runs, note="JAX on the CPU"
        )
        tiny, _ = peers.figures(
            "gym-sokoban", "gym-sokoban, tiny images", "steps/s", GYM_SOKOBAN, "tiny_rgb_array", 3000, runs
        )
        large, _ = peers.figures(
            "gym-sokoban", "gym-sokoban, its default images", "frames/s", GYM_SOKOBAN, "rgb_array", 200, runs
        )
        pairs = {
            "rules / Jumanji": (rules, jumanji),
            "VectorEnv / Jumanji": (vector, jumanji),
            "rules / gym-sokoban tiny": (rules, tiny),
            "VectorEnv / gym-sokoban tiny": (vector, tiny),
            "rgb frames / gym-sokoban default": (frames, large),
        }
        found += [jumanji, tiny, large]
        found += [ratio(name, ours, other) for name, (ours, other) in pairs.items() if other.values]
    return Report("env", tuple(found), machine())


def _rules(boards: int, steps: int) -> Callable[[], float]:
    levels = [board_from_level(level) for level in parse_levels(LEVELS)]
    cells, player = pack([levels[i % len(levels)] for i in range(boards)])
    return _played(lambda action: step_batch(cells, player, action), boards, steps)


def _vector(boards: int, steps: int, observation: str) -> Callable[[], float]:
    env = SokobanVectorEnv(boards, parse_levels(LEVELS), max_steps=MAX_STEPS, observation=observation)
    env.reset(seed=0)
    return _played(env.step, boards, steps)


def _played(step: Callable[[np.ndarray], object], boards: int, steps: int) -> Callable[[], float]:
    """A run of random actions that returns the number of steps."""
    actions = np.random.default_rng(0).integers(4, size=(steps, boards))

    def run() -> float:
        for action in actions:
            step(action)
        return float(actions.size)

    return run
