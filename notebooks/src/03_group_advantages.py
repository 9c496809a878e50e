# %% [markdown]
# # Group advantages: better than whom?
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/himac-lite/himac-lite/blob/main/notebooks/03_group_advantages.ipynb)
# [![Open on Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/himac-lite/himac-lite/main?labpath=notebooks/03_group_advantages.ipynb)
#
# **The question.** There are eight attempts at one level, and one succeeds.
# How much credit does the success get, and how much blame do the failures get?
# This sounds like one formula, but there are at least five, and they disagree by a factor of six.
# The second half is harder: if a plan was good but its execution was not, *which of the two* should change?
#
# You need: mean and standard deviation, and a little NumPy.
# This notebook needs no PyTorch.

# %%
import sys

if "google.colab" in sys.modules:
    # %pip install -q "himac-lite @ git+https://github.com/himac-lite/himac-lite"
    print("himac-lite is installed")

# %% [markdown]
# ## One success in eight, by hand
#
# The mean is 1/8.
# The squared distances add up to 0.875² + 7 × 0.125² = 0.875, so the std is √(0.875 / 8) = 0.331.
# The success gets 0.875 / 0.331 = **+2.65**, and each failure gets −0.125 / 0.331 = **−0.38**.
# The sum is zero: a group advantage only distributes credit among its members.

# %%
import numpy as np

from himac_lite.advantage import group_advantage

returns = np.array([1, 0, 0, 0, 0, 0, 0, 0])
by_hand = (returns - returns.mean()) / returns.std()
print(by_hand.round(2), "sum", round(abs(by_hand.sum()), 6))
assert np.allclose(group_advantage([returns])[0], by_hand, atol=1e-4)

# %% [markdown]
# ## Five things called "the group advantage"
#
# Papers and trainers use the same name for different formulas.
# Here each choice is a keyword, so you can see it.
# First predict which of them is the largest.

# %%
from himac_lite.advantage import group_advantage_over_steps
from himac_lite.exercises import course

steps = np.array([[10, 50, 50, 50, 50, 50, 50, 50]])  # failures are long: they use all steps
variants = {
    "GRPO": group_advantage([returns]),
    "GRPO with ddof=1, as torch.std": group_advantage([returns], ddof=1),
    "Dr. GRPO: no division": group_advantage([returns], scale="none"),
    "RLOO: mean of the others": group_advantage([returns], baseline="leave_one_out", scale="none"),
    "GRPO, one row per step": group_advantage_over_steps([returns], steps),
}
rows = [(name, f"{a_pn[0, 0]:+.2f}", f"{a_pn[0, 1]:+.2f}") for name, a_pn in variants.items()]
course.table(("formula", "success", "failure"), rows)

# %% [markdown]
# The last row is a real implementation.
# Some trainers keep one row per *step* and take mean and std over those rows.
# Long failures then fill most of the rows, so a success looks rarer than it was.
# With 2 wins of 4 steps and 6 losses of 15 steps, a win gets +1.62 in one trainer and +3.34 in the other, from the same episodes.
# This is a **length bias**, and no error message reports it.

# %%
wins_and_losses = [[1, 1, 0, 0, 0, 0, 0, 0]]
lengths = np.array([[4, 4, 15, 15, 15, 15, 15, 15]])
over_trajectories = group_advantage(wins_and_losses, ddof=1)[0, 0]
over_steps = group_advantage_over_steps(wins_and_losses, lengths, ddof=1)[0, 0]
print(f"a win gets {over_trajectories:+.2f} over trajectories, {over_steps:+.2f} over steps")

# %% [markdown]
# ### Exercise 1: leave one out
#
# RLOO compares a member with the mean of the *others*.
# Write it for one group, a NumPy array.
# *Hint: the sum of the others is the whole sum minus the member's own return.*


# %%
def my_leave_one_out(returns):
    """Each return minus the mean of the N − 1 others."""
    ### BEGIN SOLUTION
    others = (returns.sum() - returns) / (len(returns) - 1)
    return returns - others
    ### END SOLUTION


# %%
from himac_lite.exercises import check_credit, check_leave_one_out, check_useful_group

check_leave_one_out(my_leave_one_out)

# %% [markdown]
# ## What the std does to hard levels
#
# Let k of 8 members succeed.
# The plot shows the advantage of one success for every k.
# Division by the std gives a rare success (k = 1) a large advantage, and by symmetry a rare failure too (k = 7: it gets −2.65).
# Is that good?
# A group with one success may be a hard level that was solved at last, or a lucky accident.
# GRPO gives a large advantage in both cases; Dr. GRPO does not.
# This is the **std bias**.

# %%
from himac_lite.widgets import plots

ks = range(1, 8)
groups = [[1] * k + [0] * (8 - k) for k in ks]
success = {
    "GRPO (÷ std)": group_advantage(groups)[:, 0],
    "Dr. GRPO": group_advantage(groups, scale="none")[:, 0],
    "RLOO": group_advantage(groups, baseline="leave_one_out", scale="none")[:, 0],
}
course.lines(list(ks), success, "successes among 8", "advantage of one success")

# %% [markdown]
# ## When a group says nothing
#
# If all eight members succeed, or all eight fail, no member is better than another.
# All advantages are zero, and eight episodes taught nothing.
# The library returns exact zeros here.
# A careless 0/0 would give nan, and one nan destroys the whole update.

# %%
print(group_advantage([[1, 1, 1, 1], [0, 0, 0, 0], [0, 1, 0, 0]]).round(2))

# %% [markdown]
# ### Exercise 2: how often does a group teach something?
#
# Each member solves a level independently, with probability p.
# What is the probability that n members do **not** all get the same return?
# *Hint: subtract the two cases in which they do.*


# %%
def my_useful_group(p, n):
    """The probability that n returns of 0 or 1 are not all equal."""
    ### BEGIN SOLUTION
    return 1 - p**n - (1 - p) ** n
    ### END SOLUTION


# %%
check_useful_group(my_useful_group)

# %% [markdown]
# Now a simulation of the formula: 4,000 groups for every p, and the share of groups that `zero_variance` keeps.
# Which training levels would you choose?
# And what happens to a level that the model has learned to solve?

# %%
from himac_lite.advantage import zero_variance

rng = np.random.default_rng(0)
p_axis = np.linspace(0.02, 0.98, 25)
useful = {
    f"groups of {n}": [1 - zero_variance(rng.random((4000, n)) < p).mean() for p in p_axis]
    for n in (2, 4, 8, 16)
}
course.lines(p_axis, useful, "probability p that a member succeeds", "share of groups that teach")

# %% [markdown]
# And in the recorded run?
# The plot shows the share of groups *without* a difference, at both levels.
# (The lines are running means over ten iterations.)

# %%
from himac_lite import widgets

run = widgets.recorded_run("quickstart")
shares = {"macro/zero_variance": "phase A: blueprints", "micro/zero_variance": "phase B: executions"}
plots.metric_curves(run.metrics(), shares, "groups without a difference")

# %% [markdown]
# ## Why two levels?
#
# Now the harder half.
# Suppose half of the plans for a level are good and half are bad.
# A good plan solves the level if it is executed well, but the executor makes a mistake 30 % of the time.
# A bad plan works 5 % of the time, by accident.
#
# - *One level*: eight episodes, each with its own plan and its own sampled execution. A good plan with a bad execution is blamed.
# - *Two levels*: each plan is scored by one **greedy** execution, without sampling noise (let us say that this score is right nine times in ten). Executions are compared with executions of the *same* plan.
#
# How often does a good plan get a negative advantage?

# %%
groups_n, size = 20_000, 8
good = rng.random((groups_n, size)) < 0.5  # [P, N]: was the plan good?
sampled = np.where(rng.random((groups_n, size)) < 0.7, good, rng.random((groups_n, size)) < 0.05)
greedy = np.where(rng.random((groups_n, size)) < 0.9, good, ~good)
rows = []
for name, r in (("one level: sampled execution", sampled), ("macro group: greedy execution", greedy)):
    a = group_advantage(r.astype(float))
    blamed, gap = (a[good] < 0).mean(), a[good].mean() - a[~good].mean()
    rows.append((name, f"{blamed:.0%}", f"{gap:.2f}"))
course.table(("score of a plan", "good plans blamed", "advantage of good − bad plans"), rows)

# %% [markdown]
# Change 0.9 to 0.7 and run the cell again: if the greedy score is wrong that often, the macro group has no benefit left.
# A greedy score of a plan is only as good as the greedy executor.
# Remember this for notebook 06.
#
# ## Both levels on a recorded board
#
# **Macro**: blueprints against blueprints; z\* is the best of them.
# **Micro**: executions of z\* against each other.
# The explorer opens on the first recorded level where both groups have a difference (if there is one).

# %%
explorer = widgets.AdvantageExplorer(run)
explorer

# %%
from himac_lite.advantage import hierarchical_advantage

record = explorer.record
return_pg = [[member["return"] for member in record["macro"]["members"]]]
return_pn = [[member["return"] for member in record["micro"]["members"]]]
credit = hierarchical_advantage(return_pg, return_pn)
print("macro", return_pg[0], "→", credit.macro_pg[0].round(2))
print("micro", return_pn[0], "→", credit.micro_pn[0].round(2))
print("z* is blueprint", credit.best_p[0] + 1)

# %% [markdown]
# ### Exercise 3: credit at two levels
#
# You get two arrays: returns of blueprints [P, G] and of executions [P, N]; a row is a level.
# Return one array [P, G + N]: macro advantages, then micro advantages.
# *Hint: `axis=1, keepdims=True`; `np.concatenate(…, axis=1)`. Which mean belongs to which group?*


# %%
def my_credit(return_pg, return_pn, eps):
    """Macro advantages beside micro advantages, [P, G + N]."""
    ### BEGIN SOLUTION
    columns = [
        (r - r.mean(axis=1, keepdims=True)) / (r.std(axis=1, keepdims=True) + eps)
        for r in (return_pg, return_pn)
    ]
    return np.concatenate(columns, axis=1)
    ### END SOLUTION


# %%
check_credit(my_credit)

# %% [markdown]
# ## What can go wrong: the lucky z\*
#
# z\* has the *maximum* of eight noisy scores, and the maximum of noise is optimistic.
# Take eight plans that all work half of the time: the best of the eight greedy scores is almost always 1.
# Then execute that plan eight times.
# What do we see?

# %%
true_chance = 0.5
scores = rng.random((10_000, 8)) < true_chance
print(f"score of z*: {scores.max(1).mean():.2f}")
print(f"mean return of its executions: {(rng.random((10_000, 8)) < true_chance).mean():.2f}")

# %% [markdown]
# The micro group is still correct: it compares executions of one blueprint.
# But the curve "score of z\*" is too optimistic as a measure of the policy.
# Therefore this package scores every model greedily, on levels that no update has seen.
#
# ## To discuss
#
# 1. In the macro group of a level, one blueprint succeeds and seven fail. In the micro group of its z\*, all eight succeed. Which role learns what?
# 2. For the same number of episodes, would you rather have 32 levels × 8 members or 8 levels × 32 members? Look at the curves of exercise 2.
# 3. In which of the five formulas does multiplying all returns by 10 change the update?
# 4. Does the recorded run have more groups without a difference in phase B or in phase A? What may be the reason?
#
# **Next**: notebook 04 looks at what an advantage is attached to: tokens, their probabilities and their masks.
