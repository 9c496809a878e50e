# %% [markdown]
# # Quickstart: who deserves the credit?
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/himac-lite/himac-lite/blob/main/notebooks/00_quickstart.ipynb)
# [![Open on Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/himac-lite/himac-lite/main?labpath=notebooks/00_quickstart.ipynb)
#
# A small language model plays Sokoban in two roles.
# As **planner** (the macro policy) it reads the board and writes a **blueprint**: a few sub-goals in plain words.
# As **executor** (the micro policy) it carries out one sub-goal after another and writes `<sub_done>` after each.
#
# **The question.** The planner wrote eight blueprints for one board, and some of them worked.
# Which tokens should become more likely, and by how much?
# And if a good blueprint was executed badly, which role should change?
#
# The [glossary](https://github.com/himac-lite/himac-lite/blob/main/docs/glossary.md) defines every term of the course in one sentence.

# %%
import sys

if "google.colab" in sys.modules:
    # %pip install -q "himac-lite[qlora] @ git+https://github.com/himac-lite/himac-lite"
    print("himac-lite is installed")

# %%
from himac_lite import widgets

run = widgets.recorded_run("quickstart")
explorer = widgets.AdvantageExplorer(run)
explorer

# %% [markdown]
# ## What you see
#
# The upper half is the **macro group**: eight blueprints for one board.
# The executor played each of them greedily; the return is 1 if both boxes ended on targets.
# The best blueprint is **z\***, marked with a star.
# The lower half is the **micro group**: eight sampled executions of z\*.
# Each bar is an **advantage**: how much better a member was than its own group.
#
# Try the following, and predict each result first:
#
# 1. Set the scale to *none*. Which bars shrink, and do any change their order?
# 2. Move ε to the far right. Which of the two groups loses more, and why?
# 3. Choose other levels until a group is flagged. What did its rollouts teach?
# 4. Choose another *member*, and play it on the board.

# %% [markdown]
# ## By hand
#
# There are eight returns and two successes, so the mean is 2/8 = 0.25.
# The squared distances add up to 2 × 0.75² + 6 × 0.25² = 1.5, so the standard deviation is √(1.5/8) = 0.433.
# A success gets (1 − 0.25)/0.433 = **+1.73**, and a failure gets (0 − 0.25)/0.433 = **−0.58**.

# %%
returns = [1, 0, 0, 0, 1, 0, 0, 0]
mean = sum(returns) / len(returns)
std = (sum((r - mean) ** 2 for r in returns) / len(returns)) ** 0.5
by_hand = [(r - mean) / std for r in returns]
print(f"mean {mean}, std {std:.3f}:", ", ".join(f"{a:+.2f}" for a in by_hand))

# %% [markdown]
# The library does the same for many groups at once: row p is a level, column n is a member of its group.

# %%
import numpy as np

from himac_lite.advantage import group_advantage, hierarchical_advantage
from himac_lite.widgets.plots import advantage_bars

advantage_pn = group_advantage([returns])
assert np.allclose(advantage_pn, [by_hand], atol=1e-4)
advantage_bars(returns, advantage_pn[0], best=0)

# %% [markdown]
# **What can go wrong.** If all members have the same return, there is nothing to compare.
# Every advantage is 0, and the rollouts taught nothing.
# Early in training most groups fail together; late in training most succeed together.

# %%
print(group_advantage([[0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 1]]).round(2))

# %% [markdown]
# ## Two levels, two comparisons
#
# Blueprints are compared with blueprints.
# Executions are compared with executions *of the same blueprint*, so the differences between them cannot come from the plan.
# In this way neither role gets credit or blame for the other.
# The next cell computes the advantages of the board above from its recorded returns.

# %%
record = explorer.record
return_pg = [[member["return"] for member in record["macro"]["members"]]]
return_pn = [[member["return"] for member in record["micro"]["members"]]]
credit = hierarchical_advantage(return_pg, return_pn)
print("macro", credit.macro_pg[0].round(2), f"z* is blueprint {credit.best_p[0] + 1}")
print("micro", credit.micro_pn[0].round(2))
recorded = [member["advantage"] for member in record["macro"]["members"]]
assert np.allclose(credit.macro_pg[0], recorded, atol=1e-4)

# %%
widgets.RolloutPlayer(record, "macro")

# %% [markdown]
# ### Exercise 1: the advantage of a group
#
# Write the function for one group; `returns` is a NumPy array.
# If your answer is wrong, the check names the likely mistake.
# *Hint: `returns.mean()`, `returns.std()`; add ε where it prevents 0/0.*


# %%
def my_group_advantage(returns, eps):
    """(R − mean) / (std + ε) for every member of one group."""
    ### BEGIN SOLUTION
    return (returns - returns.mean()) / (returns.std() + eps)
    ### END SOLUTION


# %%
from himac_lite.exercises import check_group_advantage, check_trained_tokens

check_group_advantage(my_group_advantage)

# %% [markdown]
# ## Which tokens learn?
#
# An advantage is one number for a whole blueprint or a whole execution.
# It trains the tokens that the model *chose*.
# In phase A these are the blueprint's tokens; in phase B they are the actions and `<sub_done>`.
# The prompt was given, and the environment wrote the observation after each action.
# Chosen tokens are underlined below.

# %%
from himac_lite.exercises import course

best = record["macro"]["members"][record["macro"]["best"]]
print(f"planner, phase A, advantage {best['advantage']:+.2f}")
course.marked(best["tokens"], best["sampled"])

# %%
execution = next(member for member in record["micro"]["members"] if member["sequences"])
print(f"executor, phase B, first sub-goal, advantage {execution['advantage']:+.2f}")
course.marked(execution["sequences"][0]["tokens"], execution["sequences"][0]["sampled"])

# %% [markdown]
# ### Exercise 2: the mask of trained tokens
#
# `kinds` holds the kind of each token of one sequence: `prompt`, `plan`, `end` (the planner's end token), `action`, `observation` or `sub_done`.
# `phase` is `"A"` or `"B"`.
# Return a list that is True for each token that this phase trains.
# *Hint: who chose the token, and which role learns in this phase?*


# %%
def my_trained_tokens(kinds, phase):
    """True for each token that this phase trains."""
    ### BEGIN SOLUTION
    chosen = {"A": ("plan", "end"), "B": ("action", "sub_done")}[phase]
    return [kind in chosen for kind in kinds]
    ### END SOLUTION


# %%
check_trained_tokens(my_trained_tokens)

# %% [markdown]
# ## Did it learn?
#
# This is the recorded run, from its first iteration to its last.
# A point is one iteration; points jump because each iteration plays other levels, and the lines are running means.
# The validation curve plays the same levels every time, greedily.
# The two horizontal lines show the random policy and the untrained base model; without them a curve has no scale.

# %%
widgets.TrainingDashboard(run)

# %% [markdown]
# Look at *groups without a difference* too.
# What share of the rollouts taught nothing, and why does it fall or rise?
#
# ## Train one yourself
#
# The same method for one minute on this machine: the shipped model in 4 bit, trainable LoRA weights, and both phases in turn.
# The curve is updated during training.

# %%
import tempfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from IPython.display import display

import himac_lite
from himac_lite.config import TRAIN_PRESETS

config = replace(TRAIN_PRESETS["quick"], minutes=1, validate_every=5, validate_on=64, test_limit=128)
config = course.brief(config)  # the tests shorten it

mine = None
needed = ("torch", "transformers", "peft", "bitsandbytes")
missing = ", ".join(name for name in needed if find_spec(name) is None)
if missing:
    print(f"Training needs {missing} (pip install 'himac-lite[qlora]'). All cells above work without.")
else:
    folder = Path(tempfile.mkdtemp()) / "run"
    live = widgets.TrainingDashboard(folder, live=True)
    display(live)
    mine = himac_lite.train(config, folder, progress=live.refresh)
    live.refresh()

# %% [markdown]
# Below are the scores on test levels that neither the base model nor this run has seen.
# One minute is short: look at the intervals before you believe a difference.

# %%
if mine:
    display(course.score_table({name: mine.results[name] for name in ("random", "base", "trained")}))
    display(widgets.AdvantageExplorer(mine))

# %% [markdown]
# ## To discuss
#
# 1. In a group of eight, one success gets +2.65, but each of four successes gets +1.00. Is a rare success worth more?
# 2. z\* is chosen by one greedy execution. What if that execution was lucky?
# 3. Phase B practises only the best blueprints. What does the executor never learn?
# 4. Both roles share one set of weights. What may happen to the planner in phase B, although none of its tokens is trained?
