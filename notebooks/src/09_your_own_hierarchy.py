# %% [markdown]
# # Your own hierarchy
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/himac-lite/himac-lite/blob/main/notebooks/09_your_own_hierarchy.ipynb)
# [![Open on Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/himac-lite/himac-lite/main?labpath=notebooks/09_your_own_hierarchy.ipynb)
#
# **The question.** HiMAC is one point in a space with fourteen axes: who learns when, how a blueprint is scored, how a sub-goal ends, who gets the credit …
# What does it take to try another point?
# At most twenty lines, in one cell.
# Here are three variants, trained on the same levels with the same environment steps, and compared.
#
# This takes about five minutes on two cores, nearly all of it training.

# %%
import sys

if "google.colab" in sys.modules:
    # %pip install -q "himac-lite[qlora] @ git+https://github.com/himac-lite/himac-lite"
    print("himac-lite is installed")

# %% [markdown]
# ## A variant is a value
#
# These are all the axes, with HiMAC's value on each.
# A variant names only the axes that it changes.

# %%
from dataclasses import fields

from himac_lite.exercises import course
from himac_lite.hierarchy import PRESETS, Hierarchy

print("presets:", ", ".join(PRESETS))
values = {axis.name: getattr(PRESETS["himac"], axis.name) for axis in fields(Hierarchy)}
course.table(("axis", "himac"), [(n, getattr(v, "__name__", v)) for n, v in values.items()])

# %% [markdown]
# An impossible combination is refused when the value is created, and the error names the two axes that conflict.

# %%
from himac_lite.errors import ConfigError
from himac_lite.hierarchy import choose_random

try:
    Hierarchy(depth=1, choose=choose_random)
except ConfigError as error:
    print(error)

# %% [markdown]
# ## Credit, by hand
#
# Four blueprints of one level returned 1, 0, 0 and 0.
# HiMAC compares with the mean, ¼: before the division by the standard deviation, the success gets 0.75 and each failure gets −0.25.
# Compared with the *median*, 0, the success gets 1 and each failure gets 0: no member is blamed for what most members do.
# Which is better?
# You may try any function of the returns.
#
# ### Exercise 1: another advantage
#
# *Hint: `np.median(…, axis=1, keepdims=True)`.*

# %%
import numpy as np


def my_median_advantage(return_pn):
    """Each return minus the median of its group: [P, N] → [P, N]."""
    ### BEGIN SOLUTION
    return return_pn - np.median(return_pn, axis=1, keepdims=True)
    ### END SOLUTION


# %%
from himac_lite.exercises import check_median_advantage, check_who_learns

check_median_advantage(my_median_advantage)

# %% [markdown]
# A function that returns a wrong shape is reported at its first call, by name:

# %%
try:
    Hierarchy(micro_advantage=lambda return_pn: return_pn.mean(axis=1)).advantages("micro", np.eye(2))
except ConfigError as error:
    print(error)

# %% [markdown]
# ### Exercise 2: who learns when
#
# HiMAC alternates within every iteration.
# Your own schedule is a function of the iteration, counted from 0.
# Let the planner learn for some iterations, then the executor for some, and repeat.
# *Hint: `%`.*


# %%
def my_turns(iteration, planner, executor):
    """ "planner" or "executor": each for so many iterations, the planner first, then repeat."""
    ### BEGIN SOLUTION
    return "planner" if iteration % (planner + executor) < planner else "executor"
    ### END SOLUTION


# %%
check_who_learns(my_turns)

# %% [markdown]
# ## First: never stuck
#
# An executor that has used up its budget is lost: its sub-goal was not reached.
# So ask the planner for a new blueprint for the current board; this is **replanning**.
# The executor also earns a small bonus for each sub-goal that it completes, and our own function checks this.

# %%
# VARIANT never_stuck
from himac_lite.hierarchy import Hierarchy, subgoal_bonus
from himac_lite.tasks.sokoban.language import parse_push


def done(episode, subgoal):
    push = parse_push(subgoal.text)
    if not isinstance(push, tuple):
        return False
    start, _, target = push
    return target in episode.board.boxes and start not in episode.board.boxes


never_stuck = Hierarchy(exhausted="replan", reward=subgoal_bonus(done, 0.1))

# %% [markdown]
# ## Second: a sceptical judge
#
# HiMAC scores a blueprint by one *greedy* execution and practises the best one.
# A blueprint that works only if nothing goes wrong looks as good as a robust one.
# This variant executes each blueprint twice by sampling, with the executor's real mistakes, and sometimes practises the second-best blueprint.
# (All these executions count: environment steps are counted wherever they are spent.)

# %%
# VARIANT sceptical
from dataclasses import replace

import numpy as np

from himac_lite.hierarchy import Hierarchy


def twice(arena, jobs, planner):
    done = arena.execute([job for job in jobs for _ in range(2)], arena.sampling)
    return [replace(a, ret=(a.ret + b.ret) / 2) for a, b in zip(done[::2], done[1::2], strict=True)]


def softly(return_pg, rng):
    weights = np.exp(3 * return_pg)
    return np.array([rng.choice(len(w), p=w / w.sum()) for w in weights])


sceptical = Hierarchy(score=twice, choose=softly)

# %% [markdown]
# ## Third: blame where paths part
#
# All executions of z\* start in the same way.
# Until the segment in which they first differ, no execution has earned anything.
# This variant gives those segments no credit, and the remaining segments the whole advantage.

# %%
# VARIANT parting
from himac_lite.hierarchy import Hierarchy


def where_they_part(group, advantage_n, above):
    played = [[segment.ids for segment in t.segments] for t in group.trajectories]
    common = 0
    while all(len(p) > common and p[common] == played[0][common] for p in played):
        common += 1
    pairs = zip(played, advantage_n, strict=True)
    return [[float(a) * (k >= common) for k in range(len(p))] for p, a in pairs]


parting = Hierarchy(credit=where_they_part)

# %% [markdown]
# ## The same levels, the same budget
#
# Before you run the cell, write down your prediction: which variant is first after so few steps?

# %%
import tempfile
from pathlib import Path

import himac_lite
from himac_lite.config import TRAIN_PRESETS

quick = TRAIN_PRESETS["quick"]
config = replace(quick, iterations=10**6, env_steps=25_000, probe_levels=0)
config = course.brief(replace(config, validate_every=1, validate_on=64, test_limit=128))
ours = {"never_stuck": never_stuck, "sceptical": sceptical, "parting": parting}
variants = {"himac": PRESETS["himac"], **ours}
place, made = Path(tempfile.mkdtemp()), {}
for name, variant in variants.items():
    made[name] = himac_lite.train(config, place / name, hierarchy=variant)
    print(f"{name}: {made[name].results['env_steps']:,} environment steps")
course.score_table({name: run.results["trained"] for name, run in made.items()})

# %%
curves = {}
for name, run in made.items():
    points = [line for line in run.metrics() if "validation/success" in line]
    y = [line["validation/success"] for line in points]
    curves[name] = ([line.get("env_steps", 0) for line in points], y, y, y)
results = made["himac"].results
still = {who: results[who]["success"] for who in ("random", "base")}
course.bands(curves, still, "environment steps", "validation success, 64 levels")

# %% [markdown]
# Do the intervals overlap?
# Then this was an exercise in building variants, not in ranking them.
# To rank them, do what notebook 08 does: several seeds, all the levels, and enough steps.
#
# ```
# himac_lite.train(replace(config, env_steps=410_000, seed=seed), folder, hierarchy=never_stuck)
# ```
#
# ## What can go wrong
#
# - *A reward that can be farmed.* A bonus for every push can be earned by pushing a box back and forth. A bonus that is a *potential* cannot: it pays the difference between the end and the start of a segment.
# - *Steps that are not counted.* A scorer that plays twice as often must pay for it.
# - *A variant that changes nothing.* After training, check that the new axis was used at all: how many times did the planner replan (`t.replans`)? How many segments got no credit?
#
# ## To discuss
#
# 1. `gain_over_flat` subtracts the same number from every blueprint of a level. Why does it change nothing in HiMAC, and where would it?
# 2. With one adapter per role (`sharing="each"`), the roles can no longer teach each other. When would you want that?
# 3. A third level needs its own language, between blueprints and moves. Read the docstring of `coevolution.divide`: what does the middle level of `PRESETS["three_levels"]` decide, and what would you rather have it decide?
# 4. Which axis is missing?
#
# **Next**: [the cookbook](https://github.com/himac-lite/himac-lite/blob/main/docs/cookbook.md) has one recipe per axis.
