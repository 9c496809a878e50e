# %% [markdown]
# # Sokoban: why is a game of four moves hard?
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/himac-lite/himac-lite/blob/main/notebooks/01_sokoban.ipynb)
# [![Open on Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/himac-lite/himac-lite/main?labpath=notebooks/01_sokoban.ipynb)
#
# **The question.** A player knows the rules perfectly and chooses a good move nine times out of ten.
# Why does it fail at almost every level?
# And after a failure of fifty moves: *which move was the mistake?*
#
# Push every box (a cross) onto a target (a ring).
# You can push but not pull, and only one box at a time.
# This notebook needs no PyTorch.

# %%
import sys

if "google.colab" in sys.modules:
    # %pip install -q "himac-lite[fast] @ git+https://github.com/himac-lite/himac-lite"
    print("himac-lite is installed")

# %%
import numpy as np

import himac_lite
from himac_lite.exercises import course
from himac_lite.tasks.sokoban.rules import board_from_level, play, step

splits = {name: himac_lite.load_levels(f"{name}/validation") for name in ("warmup", "core", "hard")}
first = {f"{name}: {len(levels)} levels like this": levels[0] for name, levels in splits.items()}
course.boards({caption: board_from_level(level) for caption, level in first.items()})

# %% [markdown]
# ## The rules, by hand
#
# A cell is (row, column), counted from the upper left corner, as the numbers on the walls show.
# A level is text: `#` wall, `$` box, `.` target, `@` player, `*` box on target, `+` player on target.
# The outcome of a move depends on only two characters: the cell *ahead* and the cell *beyond* it.

# %%
level = splits["warmup"][0]
board = board_from_level(level)
print(level.text)
after = {move: step(board, move) for move in "udlr"}
rows = [(move, outcome.name.lower(), now.player) for move, (now, outcome) in after.items()]
course.table(("move", "outcome", f"player from {board.player} to"), rows)

# %% [markdown]
# ### Exercise 1: the whole rule book
#
# `ahead` and `beyond` are two characters of the board: the next cell and the one after it.
# Return `"moved"`, `"pushed"` or `"blocked"`.
# *Hint: there are two characters for a box.*


# %%
def my_outcome(ahead, beyond):
    """What a move does: moved, pushed or blocked."""
    ### BEGIN SOLUTION
    if ahead == "#":
        return "blocked"
    if ahead not in "$*":
        return "moved"
    return "blocked" if beyond in "#$*" else "pushed"
    ### END SOLUTION


# %%
from himac_lite.exercises import check_at_least_one, check_dead_corner, check_outcome

check_outcome(my_outcome)

# %% [markdown]
# ## What the solver knows
#
# `solve` searches all positions breadth-first, so its solution has the fewest moves possible.
# Capital letters are pushes.
# Play it: the buttons work without the kernel.

# %%
from himac_lite import widgets


def as_record(level, moves, success, title):
    """One episode in the form of a run's records, for the player."""
    steps = len(moves)
    segment = {"end": "success" if success else "truncated", "steps": steps, "subgoal": ""}
    member = {"return": float(success), "advantage": 0.0, "success": success}
    member |= {"moves": moves, "steps": steps, "segments": [segment]}
    return {"level": level.text, "title": title, "micro": {"members": [member]}}


core = splits["core"]
longest = max(core, key=lambda lv: lv.optimal_moves)
solution = himac_lite.solve(longest)
print(solution.lurd, "·", solution.moves, "moves, of which", solution.pushes, "push")
widgets.RolloutPlayer(as_record(longest, solution.lurd, True, "a longest level of core"))

# %% [markdown]
# How long are the levels?
# A level of four moves needs no plan, because chance will solve it.
# Many published results on Sokoban use such levels.
# Here the levels are frozen in files and grouped by their optimal length.

# %%
from itertools import pairwise

edges = [0, 4, 8, 12, 16, 20, 25, 30, 40]
names = [f"{low + 1}–{high}" for low, high in pairwise(edges)]
moves = {name: [lv.optimal_moves for lv in levels] for name, levels in splits.items()}
share = {name: 100 * np.histogram(n, np.array(edges) + 0.5)[0] / len(n) for name, n in moves.items()}
course.bars(names, share, "optimal length in moves", "% of the split")

# %% [markdown]
# ## No way back
#
# In most games a bad move costs time.
# In Sokoban it can cost the game: a box in a corner never comes out again.
# From then on no move helps, but nothing tells you so.
#
# ### Exercise 2: the dead corner
#
# `rows` are the rows of a level, and `cell` is a floor cell.
# Is a box in this cell lost for good, because the cell is a corner and not a target?
# *Hint: with `r, c = cell`, the cell above is `rows[r - 1][c]`. A corner has a wall above or below **and** a wall to the left or right. Which characters are targets?*


# %%
def my_dead_corner(rows, cell):
    """Whether a box in this cell can never move again and the cell is not a target."""
    ### BEGIN SOLUTION
    r, c = cell
    upright = "#" in (rows[r - 1][c], rows[r + 1][c])
    level_with = "#" in (rows[r][c - 1], rows[r][c + 1])
    return upright and level_with and rows[r][c] not in ".*+"
    ### END SOLUTION


# %%
check_dead_corner(my_dead_corner)

# %% [markdown]
# Corners are only the beginning.
# The solver marks every cell from which a lone box can no longer reach any target; often that is a whole side of a room.
# These cells are marked `x` below.
# Why can a cell along a wall be dead although it is not a corner?

# %%
from himac_lite.tasks.sokoban.distances import distances
from himac_lite.tasks.sokoban.geometry import Geometry
from himac_lite.tasks.sokoban.plain import push_distances
from himac_lite.tasks.sokoban.searches import FAR

start = board_from_level(longest)
geometry = Geometry.of(start)
pushes = push_distances(geometry).min(axis=0)  # to the nearest
dead = {cell for cell, distance in zip(geometry.cells, pushes, strict=True) if distance == FAR}
for r, row in enumerate(longest.rows):
    print(row, "  ", "".join("x" if (r, c) in dead else ch for c, ch in enumerate(row)))
print(f"{len(dead)} of {len(geometry.cells)} floor cells are dead for a box")

# %% [markdown]
# ## Nine good moves out of ten
#
# Toy numbers: if every move must be right, and each is right with probability q, then n moves are right with probability qⁿ.
# With q = 0.9 this is 0.9⁴ = 0.66 for a short level and 0.9²⁰ = 0.12 for a long one.
# The player is the same; only the level is longer.
# (Real levels forgive a detour, but never a box in a corner.)

# %%
n = np.arange(1, 26)
chances = {f"q = {q}": q**n for q in (0.99, 0.95, 0.9)}
course.lines(n, chances, "moves that must be right", "probability", markers=False)

# %% [markdown]
# How well does pure chance do?
# The next cell plays fifty random moves on every level of `warmup` and `core`, all boards at once in Gymnasium's vector environment.
# A learning curve has to be compared with this.

# %%
import gymnasium


def random_success(levels, moves=50):
    """Which levels uniformly random play solves: bool [L]."""
    envs = gymnasium.make_vec(
        "himac_lite/Sokoban-v0", num_envs=len(levels), levels=levels, max_steps=moves
    )
    envs.reset(seed=0, options={"level": list(range(len(levels)))})
    rng, solved = np.random.default_rng(0), np.zeros(len(levels), bool)
    running = np.ones(len(levels), bool)
    for _ in range(moves):
        _, _, terminated, truncated, _ = envs.step(rng.integers(0, 4, len(levels)))
        solved |= running & terminated  # a finished board starts another level, which does not count
        running &= ~(terminated | truncated)
    return solved


rows = []
for name in ("warmup", "core"):
    solved = random_success(splits[name])
    short = np.array([lv.optimal_moves <= 6 for lv in splits[name]])
    rows.append((name, f"{solved.mean():.1%}", f"{solved[short].mean():.1%}"))
course.table(("random play", "all levels", "levels of up to six moves"), rows)

# %% [markdown]
# ### Exercise 3: eight attempts
#
# One attempt succeeds with probability p.
# What is the probability that at least one of n independent attempts succeeds?
# *Hint: first compute the probability that none does.*


# %%
def my_at_least_one(p, n):
    """The probability that at least one of n attempts succeeds."""
    ### BEGIN SOLUTION
    return 1 - (1 - p) ** n
    ### END SOLUTION


# %%
check_at_least_one(my_at_least_one)

# %% [markdown]
# ## What can go wrong: a language model plays flat
#
# The shipped base model played some levels *flat*: one move after another, without a plan, eight times each.
# The episodes were recorded, so you need no model here.
# For every position of a layout, the solver knows the number of moves to the nearest solution.
# So after every move we can say whether the level can still be solved.
# We take the recorded level with the most different kinds of ending, and play an episode that failed.

# %%
from himac_lite.types import Level


def distance_lines(record):
    """For each episode: moves to a solution at the start and after each move; nan if there is none."""
    layout = board_from_level(Level(tuple(record["level"].split("\n"))))
    table, out = distances(layout), []
    for member in record["micro"]["members"]:
        moves = member["moves"]
        found = [table.distance(play(layout, moves[:k])) for k in range(len(moves) + 1)]
        out.append([np.nan if d is None else d for d in found])
    return out


def ending(member, line):
    """How an episode ended: solved, unsolvable, or out of steps on a solvable board."""
    return "solved" if member["success"] else "unsolvable" if np.isnan(line[-1]) else "out of steps"


flat = widgets.recorded_run("flat")
episodes = []  # per level: its record, and (ending, number, line) of each of its episodes
for record in flat.rollouts(flat.recorded_iterations()[0]):
    pairs = enumerate(zip(record["micro"]["members"], distance_lines(record), strict=True))
    episodes.append((record, [(ending(member, line), i, line) for i, (member, line) in pairs]))
record, ended = max(episodes, key=lambda e: len({kind for kind, _, _ in e[1]}))
print(record["title"], "·", ", ".join(kind for kind, _, _ in ended))
failed = next((i for kind, i, _ in ended if kind != "solved"), 0)
widgets.RolloutPlayer(record, "micro", failed)

# %% [markdown]
# Now one episode of each kind, from start to end.
# A line that falls by one per move is perfect play, and a zigzag is aimless walking.
# A line that *stops* early has become unsolvable: the game was lost at that move, whatever came after.

# %%
firsts = {}
for kind, i, line in ended:
    firsts.setdefault(kind, (i, line))
width = max(len(line) for _, line in firsts.values())
curves = {
    f"episode {i + 1}: {kind}": [*line, *[np.nan] * (width - len(line))]
    for kind, (i, line) in firsts.items()
}
course.lines(range(width), curves, "move", "moves to a solution")

# %% [markdown]
# How did all the recorded flat failures end, and how many moves were made after the fatal one?

# %%
every = [episode for _, ended in episodes for episode in ended]
failures = [(kind, np.isnan(line).sum()) for kind, _, line in every if kind != "solved"]
after = [moves for kind, moves in failures if kind == "unsolvable"]
print(f"{len(failures)} failures: {len(after)} had become unsolvable,", end=" ")
print(f"{len(failures) - len(after)} could still be solved")
if after:
    print(f"moves made after the fatal one: {np.mean(after):.0f} on average")

# %% [markdown]
# **This is the cause that the figures show.**
# Some failures are one fatal push, followed by many moves that could not matter.
# In the others nothing is lost: the player forgets where it was going and walks until the steps run out.
# Training, however, sees one number for the whole episode, return 0, and blames all moves equally.
#
# Does length matter?
# The next plot shows the recorded flat and hierarchical scores of the base model on the test levels, by optimal length.
# Both use the same weights with different prompts.

# %%
scores = {}
for name, words in (("flat", "base model, flat"), ("quickstart", "base model, with a blueprint")):
    score = widgets.recorded_run(name).results["base"]
    scores[f"{words} ({score['n']} levels)"] = score["by_length"]
common = [b for b in next(iter(scores.values())) if all(b in s for s in scores.values())]
solved = {name: [100 * s[b]["success"] for b in common] for name, s in scores.items()}
course.bars(common, solved, "optimal length", "% solved")

# %% [markdown]
# ## To discuss
#
# 1. Suppose every box on a target earns a reward. Does that help to find the fatal move, or does it teach something else?
# 2. Could the model be told that a position is dead? Who could tell it outside a game?
# 3. qⁿ says that long tasks fail. Which would you change, q or n?
#
# **Next**: notebook 02 makes n small. A plan of three sub-goals is three decisions, not twenty.
