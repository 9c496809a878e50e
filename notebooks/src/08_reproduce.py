# %% [markdown]
# # Reproduce: does the paper's order hold here?
#
# [Open in
# Colab](https://colab.research.google.com/github/himac-lite/himac-lite/blob/main/notebooks/08_reproduce.ipynb) ·
# [Open on Binder](https://mybinder.org/v2/gh/himac-lite/himac-lite/main?labpath=notebooks/08_reproduce.ipynb)
#
# **The question.** The paper takes HiMAC apart: a random blueprint instead of z\*, no `<sub_done>`, both roles updated
# at once, no hierarchy at all. Each costs points on ALFWorld and WebShop, in this order. Does the order hold for a
# model of a few million weights on Sokoban? And which of the differences that one *sees* in a table are differences?
#
# Nothing is trained in this notebook: it draws from records. They are made by `himac-lite reproduce ablations` and
# `himac-lite reproduce efficiency`, hours on two cores, in pieces if need be. Less than a minute to run.

# %%
import sys

if "google.colab" in sys.modules:
    # %pip install -q "himac-lite[qlora] @ git+https://github.com/himac-lite/himac-lite"
    print("himac-lite is installed")

# %% [markdown]
# ## Which records are there?
#
# A row is one variant with one seed: what it solved of the test levels, greedily, after a fixed number of environment
# steps. If the grid has not been run, or only a part of it, this cell says so, and the notebook goes on with what
# there is.

# %%
from itertools import pairwise

import numpy as np

from himac_lite.evaluation import reproduce
from himac_lite.exercises import course
from himac_lite.storage import data_dir

place = data_dir() / "runs" / "reproduce"
rows = reproduce.read_rows(place)
if not rows:
    place = data_dir() / "runs" / "core"
    rows = reproduce.rows_of_runs(place)
    steps = [row.env_steps for row in rows]
    single = " and ".join(sorted({row.variant for row in rows}))
    print(f"The grid has not been run. These are single runs of {single}")
    print(f"with {min(steps):,} to {max(steps):,} environment steps each,", end=" ")
    print("and with fewer points on their curves.\n")
there = {(row.variant, row.seed) for row in rows}
for grid in ("ablations", "efficiency"):
    wanted = reproduce.cells(grid)
    missing = [cell.name for cell in wanted if (cell.variant, cell.seed) not in there]
    print(
        f"{grid}: {len(wanted) - len(missing)} of {len(wanted)} rows",
        f"\n  missing: {', '.join(missing)}" * bool(missing),
    )

# %% [markdown]
# ## The table
#
# Two intervals, because two things are random. *Over seeds* (Student's t): would another seed have done as well on
# these levels? *Over both* (bootstrap): and on other levels too? A single seed has no interval over seeds, and that of
# two is as good as none. The base is the untrained model, playing as the variant plays. A prompted policy is not
# trained; it pays at test time, in steps a level.


# %%
def percent(interval, form="{:.1f}–{:.1f}"):
    """An interval of shares as percent."""
    return form.format(*(100 * end for end in interval))


table = sorted(reproduce.summary(rows), key=lambda s: -s.success)
for s in table:
    low, high = 100 * np.clip(s.over_seeds, 0, 1)
    over = "one seed" if s.seeds == 1 else f"{s.seeds} seeds: {low:.1f}–{high:.1f}"
    both = "not recorded" if s.over_both is None else percent(s.over_both)
    print(f"{s.variant:18} {100 * s.success:5.1f} %  {over:19}  over both: {both}")
    spent = f"{s.env_steps:,.0f} steps, {s.tokens:,.0f} tokens, {s.minutes:.0f} min"
    cost = spent if s.env_steps else "not trained"
    print(f"{'':18} base {100 * s.base:.1f} %; {cost}; {s.test_steps:.0f} steps a test level")
chance = np.mean([row.random_success for row in rows])
print(f"random policy      {100 * chance:5.1f} %")

# %% [markdown]
# ## Is it a difference? By hand
#
# Pair what belongs together. Seed 0 of HiMAC and seed 0 of flat GRPO draw the same levels in the same order, so look
# at their *difference*. If nothing were different, each of these differences could as well have had the other sign.
# Three differences of 1, 2 and 3 points: the eight sums of ±1 ±2 ±3 are 6, 4, 2, 0, 0, −2, −4, −6. Two of them are as
# far from zero as 6. So p = 2/8 = 0.25.
#
# And here is the catch: with three seeds p *cannot* fall below 0.25, however large the difference. With five: 2/32 =
# 0.06.
#
# ### Exercise 1: all signs
#
# *Hint: `itertools.product((-1, 1), repeat=n)`.*


# %%
def my_sign_flip(differences):
    """Two-sided p of "the mean difference is zero": all 2^n signs are tried."""
    ### BEGIN SOLUTION
    from itertools import product

    all_signs = product((-1, 1), repeat=len(differences))
    sums = [sum(s * d for s, d in zip(signs, differences, strict=True)) for signs in all_signs]
    return np.mean([abs(total) >= abs(sum(differences)) - 1e-12 for total in sums])
    ### END SOLUTION


# %%
from himac_lite.exercises import check_sign_flip, check_steps_to

check_sign_flip(my_sign_flip)

# %% [markdown]
# ## Every variant against HiMAC
#
# The same test over *levels* has far more pairs: hundreds. It answers another question: whether these trained
# policies would keep their order on other levels. Read both columns, and be careful with the smaller p: whoever makes
# ten comparisons finds one below 0.1 by luck. In brackets: the interval of the difference, over seeds and levels.

# %%
ours = {s.variant for s in table}
names = [s.variant for s in table if s.variant != "himac" and "himac" in ours]
for name in names:
    c = reproduce.compare(rows, "himac", name)
    p_levels = "not recorded" if c.p_levels is None else f"{c.p_levels:.4f}"
    p_seeds = "no pair" if c.p_seeds is None else f"{c.p_seeds:.3f} (pairs: {c.seeds})"
    both = "" if c.interval is None else percent(c.interval, " ({:+.1f} to {:+.1f})")
    print(f"himac − {name:18} {100 * c.difference:+5.1f} points{both}")
    print(f"{'':26} p over levels {p_levels}, over seeds {p_seeds}")
if not names:
    nothing = "nothing yet to compare HiMAC with" if "himac" in ours else "no row of HiMAC yet"
    print(f"There is {nothing}.")

# %% [markdown]
# ## Where does a plan help?
#
# The same success by the length of the shortest solution, for HiMAC, the paper's ablations and flat GRPO, as far as
# they are there. The base, playing as one of them does, and the random policy stand beside them.

# %%
ablations = ("himac", "random_blueprint", "no_sub_done", "joint_update", "flat_grpo")
first = [s for name in ablations for s in table if s.variant == name] or table[:5]
solved = {s.variant: s.by_length for s in first}
told = next((s for s in first if s.base_by_length), first[0])
solved |= {
    f"base model, as {told.variant}": told.base_by_length,
    "random policy": told.random_by_length,
}
if not told.base_by_length:
    print("These rows say of base and random policy only what they solve of all levels.")
bins = list(dict.fromkeys(b for s in table for b in s.by_length))
shares = {name: [100 * shown.get(b, np.nan) for b in bins] for name, shown in solved.items() if shown}
course.bars(bins, shares, "optimal length", "% solved")

# %% [markdown]
# ## How fast?
#
# *Sample efficiency*: validation success against environment steps, and against generated tokens (a planner writes
# more of them). Mean over seeds, from three seeds on with its 95 % interval. The horizontal lines are the random policy
# and the base, on the test levels; a curve begins where the base, under its rules, is on the validation levels.

# %%
curves = {}
for s in table:
    own = [reproduce.read_curve(place, row) for row in rows if row.variant == s.variant]
    if own := [curve for curve in own if curve]:
        curves[s.variant] = own
lines = {"random policy": chance}
for mode, words in (("himac", "base model, with blueprints"), ("flat", "base model, flat")):
    # Under the rules of no_sub_done the base is another one.
    if begun := [s.base for s in table if s.mode == mode and s.variant != "no_sub_done"]:
        lines[words] = begun[0]


def bands(grid, against, words):
    """The curves of one grid's variants."""
    own = {name: c for name, c in curves.items() if name in reproduce.GRIDS[grid]}
    shown = {name: reproduce.curve_band(c, against) for name, c in own.items()}
    return course.bands(shown, lines, words, "validation success")


bands("ablations", "env_steps", "environment steps")

# %%
bands("ablations", "tokens", "tokens generated")

# %% [markdown]
# HiMAC against the flat baselines, of which GRPO is one:

# %%
bands("efficiency", "env_steps", "environment steps")

# %%
bands("efficiency", "tokens", "tokens generated")

# %% [markdown]
# ### Exercise 2: steps to a level
#
# "Reaches 65 % after so many steps" is read off a curve of points. Between two points, go along the straight line.
# *Hint: find the first point that is high enough; the one before it is not.*


# %%
def my_steps_to(spent, success, threshold):
    """What was spent when the curve first reaches the threshold (it does)."""
    ### BEGIN SOLUTION
    i = next(i for i, y in enumerate(success) if y >= threshold)
    if i == 0:
        return spent[0]
    share = (threshold - success[i - 1]) / (success[i] - success[i - 1])
    return spent[i - 1] + share * (spent[i] - spent[i - 1])
    ### END SOLUTION


# %%
check_steps_to(my_steps_to)

# %%
thresholds = (0.5, 0.65, 0.8)
print("Medians over the seeds that reach a level, and how many of them do:")
for name, own in curves.items():
    spent = [reproduce.spent_to(own, thresholds, against) for against in ("env_steps", "tokens")]
    for threshold, steps, tokens in zip(thresholds, *spent, strict=True):
        reached = [x for x in steps if x is not None]
        written = [x for x in tokens if x is not None]
        medians = "    never"
        if reached:
            medians = f"{np.median(reached):9,.0f} steps, {np.median(written):9,.0f} tokens"
        print(f"{name:18} {threshold:.0%}: {medians}  ({len(reached)} of {len(steps)})")

# %% [markdown]
# HiMAC against the *final* success of flat GRPO, its last point on the validation levels: how many steps did it need
# for that? (The aim of this package was: at most half.) A noisy curve is at any height for the first time earlier than
# for good, flat GRPO's own as well: so it stands beside.

# %%
if {"himac", "flat_grpo"} <= set(curves):
    scored = [[p for p in c if "validation/success" in p] for c in curves["flat_grpo"]]
    goal = np.mean([points[-1]["validation/success"] for points in scored])
    found = reproduce.spent_to(curves["himac"], [goal])[0]
    needed = [x for x in found if x is not None]
    spent = np.mean([row.env_steps for row in rows if row.variant == "flat_grpo"])
    print(f"flat GRPO ends at {goal:.1%} after {spent:,.0f} steps. First there:")
    for name in ("himac", "flat_grpo"):
        found = reproduce.spent_to(curves[name], [goal])[0]
        needed = [x for x in found if x is not None]
        share = f"after {np.median(needed) / spent:.0%} of them" if needed else "never"
        print(f"  {name:10} {share} (median of {len(needed)} of {len(found)} seeds)")
else:
    print("This needs a row of HiMAC and one of flat GRPO.")

# %% [markdown]
# ## Beside the paper
#
# Points lost against HiMAC. The paper's figures are second-hand (from summaries), for a model of seven billion
# weights.

# %%
paper = {
    "random_blueprint": (92.1 - 89.7, 84.1 - 81.5),
    "no_sub_done": (92.1 - 88.2, 84.1 - 79.8),
    "joint_update": (92.1 - 85.3, 84.1 - 74.8),
    "flat_grpo": (92.1 - 77.6, 84.1 - 66.1),
}
print(f"{'':18} ALFWorld  WebShop  Sokoban, here")
for name, (alfworld, webshop) in paper.items():
    lost = reproduce.compare(rows, "himac", name).difference if name in names else None
    here = "not run yet" if lost is None else f"{100 * lost:.1f}"
    print(f"{name:18} {alfworld:8.1f} {webshop:8.1f}  {here}")

# %% [markdown]
# The paper's order, step by step: is each one as good as the next here, too? A difference whose interval holds zero
# says neither.

# %%
ranked = [name for name in ablations if name in ours]
for better, worse in pairwise(ranked):
    c = reproduce.compare(rows, better, worse)
    open_question = c.interval is None or c.interval[0] <= 0 <= c.interval[1]
    verdict = "as in the paper" if c.difference > 0 else "the other way round"
    verdict = "undecided" if open_question else verdict
    print(f"{better} − {worse}: {100 * c.difference:+.1f} points, {verdict}")
if missing := [name for name in ablations if name not in ours]:
    print("not run yet:", ", ".join(missing))

# %% [markdown]
# ## Where the order does not hold: who had something to learn?
#
# An ablation can only cost what the part that it takes away had to give. A group of which all members solve the level,
# or none, has no advantage and teaches nothing. So count: in how many groups was there anything to learn, for the
# planner (phase A) and for the executor (phase B)? Flat play has one role; it is counted as an executor.


# %%
def taught(name, role):
    """The share of groups with an advantage, over iterations and seeds; None for no such role."""
    points = [p for curve in curves.get(name, []) for p in curve]
    equal = [p[f"{role}/zero_variance"] for p in points if f"{role}/zero_variance" in p]
    return 1 - np.mean(equal) if equal else None


print(f"{'groups that taught something':30} planner  executor")
for name in ranked:
    shown = [taught(name, role) for role in ("macro", "micro")]
    told = ["–" if share is None else f"{share:.0%}" for share in shown]
    print(f"{name:30} {told[0]:>7}  {told[1]:>8}")

# %% [markdown]
# In the records that come with this package:
#
# - **A random blueprint, a joint update** cost so little that the intervals hold zero. The executor was good before any
#   reinforcement learning: given a solver's blueprints it solved 98 %. In six of seven of its groups all members end
#   alike, so that it hardly matters which blueprint they get, or that both roles change at once. What HiMAC gains here,
#   the *planner* gains. In the paper both roles begin as one general model and both have to learn.
# - **No `<sub_done>`** costs most, not second least. It begins 17 points lower: the base was taught to end a
#   sub-goal itself. With eight fixed steps it plays on when the sub-goal is reached, and in Sokoban one push too many
#   cannot be taken back. In a household or a shop a needless command costs a step.
# - **No hierarchy** is worse, as in the paper, by less: nothing on levels of up to 8 moves, 14 and 11 points on those
#   of 13 to 16 and of 17 to 25. Most of this split is short. Of the flat baselines GiGPO, which compares steps taken in
#   the same situation, comes nearest to HiMAC.
# - **No training at all**: eight blueprints for a level, the best one kept, solve about as much as HiMAC in one attempt.
#   They need seven times the steps, and a simulator to try them in.
#
# These are readings, not proofs. The first one could be tested: a base whose executor still has something to learn.

# %% [markdown]
# ## What can go wrong in such a table
#
# - *The budget.* Equal iterations are not equal environment steps: a flat iteration plays half as many episodes. Here
#   every run gets the same number of steps, and the tokens are shown beside.
# - *The tuning.* The learning rate was chosen with HiMAC. A baseline that nobody tuned is a weak baseline.
# - *The start.* Blueprints and flat play do not start at the same success. Compare the gains as well as the ends.
# - *The fixed budget of "no `<sub_done>`".* Eight steps a sub-goal is one choice; another one is another ablation.
# - *One base model.* All seeds start from the same pretrained weights. No interval here knows of another.
#
# ## To discuss
#
# 1. Three seeds cannot give p < 0.25 over seeds. What would you have to believe to call a difference real nevertheless?
# 2. Which ablation should hurt *less* here than in the paper, and why? (How good is the executor from the start?)
# 3. Against tokens instead of steps, who wins? Which axis would you pay for: a robot's steps, or a model's tokens?
# 4. Best-of-8 blueprints at test time needs no training at all. What does it cost that the trained policy does not?
#
# **Next**: 09 builds hierarchies that nobody has tried.
