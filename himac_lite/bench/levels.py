"""`himac-lite bench levels`: levels generated and solved per second, ours and gym-sokoban's; cost by board size."""

from __future__ import annotations

import statistics
import time

import numpy as np

from himac_lite.bench import Figure, Report, machine, measure, peers, ratio
from himac_lite.errors import LevelError
from himac_lite.tasks.sokoban.binned import generate_bins
from himac_lite.tasks.sokoban.levels import parse_levels
from himac_lite.tasks.sokoban.solver import search, solve
from himac_lite.types import Level

SPAN = (6, 25)
"""Optimal lengths in moves of the counted levels, as in the split `core`."""

TABLE = ((6, 1), (7, 2), (8, 3), (9, 4), (10, 4), (11, 5), (13, 6))
PUSHES = (3, 12)
"""Optimal pushes of the levels in the table; every size has such levels."""

GYM_SOKOBAN = """
import json, random, sys, time
import numpy as np
from gym_sokoban.envs.room_utils import generate_room
levels, runs = map(int, sys.argv[1:])
random.seed(0), np.random.seed(0)
rates, rooms = [], []
for run in range(runs + 1):
    begun, made = time.perf_counter(), 0
    while made < levels:
        try:
            _, state, _ = generate_room(dim=(7, 7), num_steps=25, num_boxes=2, second_player=False)
        except (RuntimeError, RuntimeWarning):
            continue
        made += 1
        rooms.append(["".join("# .*$@"[c] for c in row) for row in state.tolist()])
    rates.append(levels / (time.perf_counter() - begun))
print(json.dumps({"rates": rates[1:], "rooms": rooms[levels:]}))
"""


def bench(*, runs: int, quick: bool) -> Report:
    """7×7 levels with two boxes, generated, and solved by A*; gym-sokoban's generator; a table of sizes."""
    n = 20 if quick else 400
    seeds = iter(np.random.SeedSequence(0).spawn(3 * (runs + 1)))
    span = f"optimal length {SPAN[0]}–{SPAN[1]}"

    def made() -> list[Level]:
        return generate_bins(next(seeds), {SPAN: n}, 7, 2)

    def generated() -> float:
        return float(len(made()))

    def solved_again() -> float:
        return float(sum(solve(level) is not None for level in made()))

    ours = measure("7×7/2 generated", "levels/s", generated, runs, f"{span}; optimal in moves and pushes known")
    both = measure("7×7/2 generated, and solved again", "levels/s", solved_again, runs, "A*, fewest moves")
    found = [ours, both]
    if not quick:
        theirs, printed = peers.figures(
            "gym-sokoban", "gym-sokoban 7×7/2 generated", "levels/s", GYM_SOKOBAN, 100, runs, note="of any length"
        )
        found.append(theirs)
        if theirs.values:
            share = _share(printed["rooms"])
            scaled = tuple(rate * share for rate in theirs.values)
            value = statistics.median(scaled)
            note = f"{share:.0%} of its levels are solvable with {span}"
            same = Figure("gym-sokoban, same difficulty", "levels/s", value, scaled, note)
            found += [same, ratio("generated and solved again / gym-sokoban, same difficulty", both, same)]
    for size, boxes in TABLE[:2] if quick else TABLE:
        found += _row(size, boxes, 2 if quick else 10)
    return Report("levels", tuple(found), machine())


def _share(rooms: list[list[str]]) -> float:
    """The share of levels with an optimal length within `SPAN`."""
    good = 0
    for rows in rooms:
        try:
            (level,) = parse_levels("\n".join(rows))
        except (LevelError, ValueError):
            continue
        found = solve(level)
        good += found is not None and SPAN[0] <= found.moves <= SPAN[1]
    return good / len(rooms)


def _row(size: int, boxes: int, n: int) -> list[Figure]:
    """Milliseconds per level of one size: to generate, to solve in pushes, and to solve in moves."""
    name = f"{size}×{size}/{boxes}"
    begun = time.perf_counter()
    levels = generate_bins(1, {PUSHES: n}, size, boxes, "pushes")
    made = 1000 * (time.perf_counter() - begun) / n
    out = [Figure(f"{name} generate", "ms/level", made, (), f"{PUSHES[0]}–{PUSHES[1]} pushes, mean of {n}")]
    for optimal in ("pushes", "moves"):
        times, states, done = [], [], 0
        for level in levels:
            begun = time.perf_counter()
            found = search(level, optimal, seconds=10)
            times.append(1000 * (time.perf_counter() - begun))
            states.append(found.states)
            done += found.solution is not None
        note = f"median of {n}, {done} solved within 10 s; median {statistics.median(states):,.0f} states"
        out.append(Figure(f"{name} solve, fewest {optimal}", "ms/level", statistics.median(times), tuple(times), note))
    return out
