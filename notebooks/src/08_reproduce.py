# %% [markdown]
# # Reproduce: does the paper's order hold here?
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/himac-lite/himac-lite/blob/main/notebooks/08_reproduce.ipynb)
# [![Open on Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/himac-lite/himac-lite/main?labpath=notebooks/08_reproduce.ipynb)
#
# **The question.** The paper removes one part of HiMAC at a time: a random blueprint instead of z\*, no `<sub_done>`, both roles updated at once, no hierarchy at all.
# Each of these ablations costs points on ALFWorld and WebShop, in this order.
# Does the order hold for a model of a few million weights on Sokoban?
# And which of the differences that you *see* in a table are real?
#
# This notebook trains nothing: it plots records.
# `himac-lite reproduce ablations` and `himac-lite reproduce efficiency` create them; this takes hours on two cores and can be interrupted.
# The notebook runs in less than a minute.

# %%
import sys

if "google.colab" in sys.modules:
    # %pip install -q "himac-lite[qlora] @ git+https://github.com/himac-lite/himac-lite"
    print("himac-lite is installed")

# %% [markdown]
# ## Which records are there?
#
# A row is one variant with one seed: the share of test levels that it solved, greedily, after a fixed number of environment steps.
# If the grid is missing or incomplete, this cell says so, and the notebook uses the rows that exist.

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
    steps = [row.spent.env_steps for row in rows]
    single = " and ".join(sorted({row.variant for row in rows}))
    print(f"The grid has not been run. These are single runs of {single}", end=" ")
    print(f"with {min(steps):,} to {max(steps):,} environment steps, with fewer points per curve.")
found = []
for grid in ("ablations", "efficiency"):
    wanted = reproduce.cells(grid)
    missing = [cell.name for cell in reproduce.missing(wanted, rows)]
    found.append((grid, f"{len(wanted) - len(missing)} of {len(wanted)}", ", ".join(missing) or "none"))
course.table(("grid", "rows", "missing"), found)

# %% [markdown]
# ## The table
#
# There are two intervals, because two things are random.
# *Over seeds* (Student's t) asks: would another seed do as well on these levels?
# *Over both* (bootstrap) asks: and on other levels too?
# A single seed has no interval over seeds, and the interval of two seeds is too wide to be useful.
# *Base* is the untrained model, which plays under the rules of the variant.
# A prompted policy is not trained; it pays at test time, in steps per level.


# %%
def percent(interval, form="{:.1f}–{:.1f}"):
    """An interval of shares as percent; a dash if there is none."""
    return "–" if interval is None else form.format(*(100 * end for end in interval))


table = sorted(reproduce.summary(rows), key=lambda s: -s.trained.success)
success, cost = [], []
for s in table:
    over_seeds = None if s.seeds == 1 else np.clip(s.over_seeds, 0, 1)
    both = percent(s.over_both)
    mean, base = f"{100 * s.trained.success:.1f}", f"{100 * s.base.success:.1f}"
    success.append((s.variant, s.seeds, mean, percent(over_seeds), both, base))
    spent = (f"{s.spent.env_steps:,.0f}", f"{s.spent.tokens:,.0f}", f"{s.spent.minutes:.0f}")
    spent = spent if s.spent.env_steps else ("not trained", "–", "–")
    cost.append((s.variant, *spent, f"{s.trained.steps:.0f}"))
chance = np.mean([row.random.success for row in rows])
success.append(("random policy", "–", f"{100 * chance:.1f}", "–", "–", "–"))
course.table(("% solved", "seeds", "mean", "over seeds", "over both", "base"), success)

# %%
course.table(("cost", "environment steps", "tokens", "minutes", "steps per test level"), cost)

# %% [markdown]
# ## Is the difference real? By hand
#
# Pair the runs that belong together.
# Seed 0 of HiMAC and seed 0 of flat GRPO play the same levels in the same order, so look at their *difference*.
# If the variants were equal, each difference could equally well have the opposite sign.
# Take three differences of 1, 2 and 3 points: the eight sums of ±1 ±2 ±3 are 6, 4, 2, 0, 0, −2, −4, −6.
# Two of them are as far from zero as 6, so p = 2/8 = 0.25.
#
# There is a catch: with three seeds p *cannot* be below 0.25, however large the difference.
# With five seeds the minimum is 2/32 = 0.06.
#
# ### Exercise 1: all signs
#
# *Hint: `itertools.product((-1, 1), repeat=n)`.*


# %%
def my_sign_flip(differences):
    """Two-sided p of "the mean difference is zero", over all 2^n signs."""
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
# The same test over *levels* has hundreds of pairs.
# It answers another question: would these trained policies keep their order on other levels?
# Read both columns, and be careful with the smaller p: among ten comparisons, one falls below 0.1 by chance.
# The interval is that of the difference, over seeds and levels.

# %%
ours = {s.variant for s in table}
names = [s.variant for s in table if s.variant != "himac" and "himac" in ours]
differences = []
for name in names:
    c = reproduce.compare(rows, "himac", name)
    p_levels = "–" if c.p_levels is None else f"{c.p_levels:.4f}"
    p_seeds = "–" if c.p_seeds is None else f"{c.p_seeds:.3f}"
    both = percent(c.interval, "{:+.1f} to {:+.1f}")
    differences.append((name, f"{100 * c.difference:+.1f}", both, p_levels, p_seeds, c.seeds))
if not names:
    print("Nothing to compare yet: this needs rows of HiMAC and of another variant.")
course.table(
    ("himac minus", "points", "interval", "p over levels", "p over seeds", "pairs of seeds"),
    differences,
)

# %% [markdown]
# ## Where does a plan help?
#
# The plot shows success by the length of the shortest solution, for HiMAC, the paper's ablations and flat GRPO, if they were recorded.
# For comparison it shows the random policy, and the base model under the rules of one of these variants.

# %%
ablations = ("himac", "random_blueprint", "no_sub_done", "joint_update", "flat_grpo")
first = [s for name in ablations for s in table if s.variant == name] or table[:5]
solved = {s.variant: s.trained.by_length for s in first}
told = next((s for s in first if s.base.by_length), first[0])
solved |= {
    f"base model, as {told.variant}": told.base.by_length,
    "random policy": told.random.by_length,
}
if not told.base.by_length:
    print("These rows have no scores by length for the base model and the random policy.")
bins = list(dict.fromkeys(b for s in table for b in s.trained.by_length))
shares = {name: [100 * shown.get(b, np.nan) for b in bins] for name, shown in solved.items() if shown}
course.bars(bins, shares, "optimal length", "% solved")

# %% [markdown]
# ## How fast?
#
# *Sample efficiency* is validation success against environment steps, or against generated tokens (a planner generates more of them).
# A curve is the mean over seeds; from three seeds on it has a 95 % interval.
# The horizontal lines are the random policy and the base model on the test levels.
# Each curve starts at the success of the base model on the validation levels, under the rules of the variant.

# %%
curves = {}
for s in table:
    own = [reproduce.read_curve(place, row) for row in rows if row.variant == s.variant]
    if own := [curve for curve in own if curve]:
        curves[s.variant] = own
lines = {"random policy": chance}
for mode, words in (("himac", "base model, with blueprints"), ("flat", "base model, flat")):
    # Under the rules of no_sub_done the base scores differently.
    if begun := [s.base.success for s in table if s.mode == mode and s.variant != "no_sub_done"]:
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
# HiMAC against the flat baselines, one of which is flat GRPO:

# %%
bands("efficiency", "env_steps", "environment steps")

# %%
bands("efficiency", "tokens", "tokens generated")

# %% [markdown]
# ### Exercise 2: steps to a threshold
#
# "Reaches 65 % after so many steps" is read from a curve of points.
# Interpolate linearly between two points.
# *Hint: find the first point that is high enough; the point before it is not.*


# %%
def my_steps_to(spent, success, threshold):
    """The amount spent when the curve first reaches the threshold (it does reach it)."""
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
thresholds, reached_by = (0.5, 0.65, 0.8), []
for name, own in curves.items():
    spent = [reproduce.spent_to(own, thresholds, against) for against in ("env_steps", "tokens")]
    for threshold, steps, tokens in zip(thresholds, *spent, strict=True):
        reached = [x for x in steps if x is not None]
        written = [x for x in tokens if x is not None]
        medians = [f"{np.median(x):,.0f}" if x else "never" for x in (reached, written)]
        reached_by.append((name, f"{threshold:.0%}", *medians, f"{len(reached)} of {len(steps)}"))
course.table(
    ("variant", "threshold", "median steps", "median tokens", "seeds that reach it"), reached_by
)

# %% [markdown]
# How many steps does HiMAC need to reach the *final* success of flat GRPO, its last point on the validation levels?
# (The aim of this package was: at most half.)
# A noisy curve crosses any height earlier than it stays above it, and this also holds for flat GRPO, so the table shows both.

# %%
firsts = []
if {"himac", "flat_grpo"} <= set(curves):
    scored = [[p for p in c if "validation/success" in p] for c in curves["flat_grpo"]]
    goal = np.mean([points[-1]["validation/success"] for points in scored])
    spent = np.mean([row.spent.env_steps for row in rows if row.variant == "flat_grpo"])
    print(f"flat GRPO ends at {goal:.1%} after {spent:,.0f} steps")
    for name in ("himac", "flat_grpo"):
        found = reproduce.spent_to(curves[name], [goal])[0]
        needed = [x for x in found if x is not None]
        share = f"{np.median(needed) / spent:.0%}" if needed else "never"
        firsts.append((name, share, f"{len(needed)} of {len(found)}"))
else:
    print("This needs a row of HiMAC and one of flat GRPO.")
course.table(("reaches it first after", "median share of the steps", "seeds that reach it"), firsts)

# %% [markdown]
# ## Beside the paper
#
# The table shows the points lost against HiMAC.
# The paper's figures are second-hand (from summaries), for a model of seven billion weights.

# %%
paper = {
    "random_blueprint": (92.1 - 89.7, 84.1 - 81.5),
    "no_sub_done": (92.1 - 88.2, 84.1 - 79.8),
    "joint_update": (92.1 - 85.3, 84.1 - 74.8),
    "flat_grpo": (92.1 - 77.6, 84.1 - 66.1),
}
lost_points = []
for name, (alfworld, webshop) in paper.items():
    lost = reproduce.compare(rows, "himac", name).difference if name in names else None
    here = "not run yet" if lost is None else f"{100 * lost:.1f}"
    lost_points.append((name, f"{alfworld:.1f}", f"{webshop:.1f}", here))
course.table(("points lost", "ALFWorld, paper", "WebShop, paper", "Sokoban, here"), lost_points)

# %% [markdown]
# Now the paper's order, step by step: is each variant as good as the next one here, too?
# If the interval of a difference contains zero, the order is undecided.

# %%
ranked, order = [name for name in ablations if name in ours], []
for better, worse in pairwise(ranked):
    c = reproduce.compare(rows, better, worse)
    open_question = c.interval is None or c.interval[0] <= 0 <= c.interval[1]
    verdict = "as in the paper" if c.difference > 0 else "reversed"
    verdict = "undecided" if open_question else verdict
    order.append((f"{better} − {worse}", f"{100 * c.difference:+.1f}", verdict))
if missing := [name for name in ablations if name not in ours]:
    print("not run yet:", ", ".join(missing))
course.table(("difference", "points", "order"), order)

# %% [markdown]
# ## Where the order does not hold: who had something to learn?
#
# An ablation can only cost what the removed part contributed.
# A group whose members all solve the level, or all fail, has no advantage and teaches nothing.
# So count the groups that taught something, for the planner (phase A) and for the executor (phase B).
# Flat play has one role, which is counted as an executor.


# %%
def taught(name, role):
    """The share of groups with an advantage, over iterations and seeds; None without this role."""
    points = [p for curve in curves.get(name, []) for p in curve]
    equal = [p[f"{role}/zero_variance"] for p in points if f"{role}/zero_variance" in p]
    return 1 - np.mean(equal) if equal else None


shares = {name: [taught(name, role) for role in ("macro", "micro")] for name in ranked}
found = [(n, *("–" if x is None else f"{x:.0%}" for x in both)) for n, both in shares.items()]
course.table(("groups that taught something", "planner", "executor"), found)

# %% [markdown]
# In the records of this package:
#
# - **A random blueprint and a joint update** cost so little that their intervals contain zero. The executor was good before any reinforcement learning: with a solver's blueprints it solved 98 %. In six of seven of its groups all members end alike. So it hardly matters which blueprint they get, or that both roles change at once. What HiMAC gains here, the *planner* gains. In the paper both roles start as one general model, and both have to learn.
# - **No `<sub_done>`** costs most, not second least. It starts 17 points lower, because the base was taught to end a sub-goal itself. With eight fixed steps it continues after the sub-goal is reached, and in Sokoban one push too many cannot be undone. In a household or a shop a needless command only costs a step.
# - **No hierarchy** is worse, as in the paper, but by less: nothing on levels of up to 8 moves, and 14 and 11 points on those of 13 to 16 and of 17 to 25. Most of this split is short. Of the flat baselines, GiGPO is closest to HiMAC; it compares steps taken in the same situation.
# - **No training at all**: the best of eight blueprints per level solves about as much as HiMAC in one attempt. This needs seven times the steps, and a simulator to try the blueprints in.
#
# These are interpretations, not proofs.
# The first one could be tested with a base model whose executor still has something to learn.

# %% [markdown]
# ## What can go wrong in such a table
#
# - *The budget.* Equal iterations are not equal environment steps: a flat iteration plays half as many episodes. Here every run gets the same number of steps, and the table also shows the tokens.
# - *The tuning.* The learning rate was chosen with HiMAC. An untuned baseline is a weak baseline.
# - *The start.* Blueprints and flat play do not start at the same success. Compare the gains as well as the final scores.
# - *The fixed budget of "no `<sub_done>`".* Eight steps per sub-goal is one choice; another number is another ablation.
# - *One base model.* All seeds start from the same pretrained weights. No interval here covers another base model.
#
# ## To discuss
#
# 1. Three seeds cannot give p < 0.25 over seeds. What would you have to believe to call a difference real anyway?
# 2. Which ablation should hurt *less* here than in the paper, and why? (How good is the executor at the start?)
# 3. Which variant wins against tokens instead of steps? Which axis would you pay for: a robot's steps, or a model's tokens?
# 4. Best-of-8 blueprints at test time needs no training at all. What does it cost that the trained policy does not?
#
# **Next**: notebook 09 builds hierarchies that nobody has tried.
