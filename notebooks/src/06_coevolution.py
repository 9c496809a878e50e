# %% [markdown]
# # Co-evolution: who learns first?
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/himac-lite/himac-lite/blob/main/notebooks/06_coevolution.ipynb)
# [![Open on Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/himac-lite/himac-lite/main?labpath=notebooks/06_coevolution.ipynb)
#
# **The question.** The planner's return depends on the executor, and the executor practises only what the planner writes.
# Each role is part of the other's environment.
# If both learn at the same moment, each adapts to a partner that has already changed.
# Does that matter?
# HiMAC says yes, and trains them *in turn*: this is **co-evolution**.
# First you see the problem in a toy.
# Then you train both ways on your own machine, and check whether the difference is visible there.
#
# This takes about five minutes on two cores, most of it live training.

# %%
import sys

if "google.colab" in sys.modules:
    # %pip install -q "himac-lite[qlora] @ git+https://github.com/himac-lite/himac-lite"
    print("himac-lite is installed")

# %% [markdown]
# ## Two who want to meet, by hand
#
# The planner says *left* with probability p, and the executor goes *left* with probability q.
# They get 1 if they agree, so the expected return is pq + (1 − p)(1 − q).
# Let p = 0.9 and q = 0.1: the expected return is 0.18.
# The planner's gradient is 2q − 1 = −0.8: it should say *right*.
# The executor's gradient is 2p − 1 = +0.8: it should go *left*.
#
# Both are right, but if both move at once, they miss each other.
# If the planner moves first and the executor adapts to the *new* planner, they meet.

# %%
import numpy as np

from himac_lite.exercises import course


def meet(together, steps=60, rate=0.5):
    """Expected return while two logits climb their exact gradients, at once or in turn."""
    a, b, out = np.log(9), -np.log(9), []  # p = 0.9, q = 0.1
    for _ in range(steps):
        p, q = 1 / (1 + np.exp(-a)), 1 / (1 + np.exp(-b))
        out.append(p * q + (1 - p) * (1 - q))
        a += rate * p * (1 - p) * (2 * q - 1)
        if not together:
            p = 1 / (1 + np.exp(-a))
        b += rate * q * (1 - q) * (2 * p - 1)
    return out


toy = {"in turn": meet(together=False, steps=120), "at once": meet(together=True, steps=120)}
course.lines(range(120), toy, "update", "expected return", markers=False)

# %% [markdown]
# If both learn at once, p = 1 − q holds forever, so the expected return can never exceed one half.
# The toy is idealised (a little noise would end the deadlock), but the problem is real.
# In a real model the two roles also share *weights*, which can help or hurt.
#
# ## One iteration, verb by verb
#
# Explore, credit, learn; adapt, credit, learn.
# These are the library's own functions, on very few levels.
# Watch which numbers belong to which phase.

# %%
import torch

import himac_lite
from himac_lite import advantage, coevolution
from himac_lite.config import TRAIN_PRESETS
from himac_lite.policy.loading import load_policy
from himac_lite.policy.parallel import one_thread_a_worker
from himac_lite.rollout.play import Arena
from himac_lite.runs.training import resolve_model
from himac_lite.tasks.sokoban.task import SokobanTask
from himac_lite.types import Sampling

one_thread_a_worker()
policy = load_policy(resolve_model("sokoban-base"), device="cpu")
task = SokobanTask()
levels = [lv for lv in himac_lite.load_levels("core/train") if lv.optimal_moves >= 10]
levels = levels[: 3 if course.FAST else 8]
arena = Arena(policy, task, sampling=Sampling(1.0, np.random.default_rng(0)))
settings = TRAIN_PRESETS["quick"].update
optimizer = torch.optim.AdamW(policy.trainable(), lr=settings.lr)
rng = np.random.default_rng(0)

macro = coevolution.explore(arena, levels, 8)  # phase A
return_pg = coevolution.scores_of(macro)
print("macro returns, a level a row\n", return_pg.astype(int))
plans = coevolution.credit_blueprints(macro, advantage.group_advantage(return_pg))
print(f"{len(plans)} of {len(levels)} groups have a difference; they train blueprint tokens")
if plans:
    learnt = coevolution.learn(policy, optimizer, plans, settings, 1.0, rng)
    print({name: round(value, 4) for name, value in learnt.items()})

# %% [markdown]
# ### Exercise 1: z\*
#
# From the macro returns [P, G], choose one blueprint per level: the index of the best, or the first on a tie.
# *Hint: `argmax` along the right axis.*


# %%
def my_best_blueprint(return_pg):
    """The number of z* for every level, [P]."""
    ### BEGIN SOLUTION
    return return_pg.argmax(axis=1)
    ### END SOLUTION


# %%
from himac_lite.exercises import check_best_blueprint, check_learning_rate, check_wilson

check_best_blueprint(my_best_blueprint)

# %%
best_p = advantage.best(return_pg)
# phase B: the planner has just moved
z_stars = coevolution.choose(task, macro, best_p)
micro = coevolution.adapt(arena, levels, 8, z_stars)
return_pn = coevolution.returns_of(micro)
print("z* of each level", best_p + 1, "\nmicro returns\n", return_pn.astype(int))
actions = coevolution.credit_actions(micro, advantage.group_advantage(return_pn))
print(f"{len(actions)} of {len(levels)} groups have a difference; they train action tokens")
if actions:
    coevolution.learn(policy, optimizer, actions, settings, 1.0, rng)

# %% [markdown]
# ### Exercise 2: the learning rate
#
# A run has a budget, and `spent` is the share that is used up.
# The learning rate falls linearly towards 0, but it never falls below `floor` times its start value.
# *Hint: `max`.*


# %%
def my_learning_rate(spent, start, floor):
    """The learning rate when this share of the budget is spent."""
    ### BEGIN SOLUTION
    return start * max(floor, 1 - spent)
    ### END SOLUTION


# %%
check_learning_rate(my_learning_rate)

# %% [markdown]
# ## Live: in turn
#
# Now a real run on this machine: the shipped model in 4 bit, with trainable LoRA weights.
# The curve is updated during training.
# Before you start it, write down your prediction: what success rate, and which phase improves first?

# %%
import tempfile
from dataclasses import replace
from pathlib import Path

from IPython.display import display

from himac_lite import widgets

config = replace(TRAIN_PRESETS["quick"], minutes=1.25, validate_every=5, validate_on=64, test_limit=128)
config = course.brief(config)  # the tests shorten it
place = Path(tempfile.mkdtemp())
live = widgets.TrainingDashboard(place / "in-turn", live=True)
display(live)
in_turn = himac_lite.train(config, place / "in-turn", progress=live.refresh)
live.refresh()

# %% [markdown]
# ## Live: at once
#
# The same budget, the same levels and the same seed.
# Only the variant differs: both roles are updated in one step, from rollouts of the same weights.

# %%
live = widgets.TrainingDashboard(place / "at-once", live=True)
display(live)
joint = replace(config, variant="joint_update")
at_once = himac_lite.train(joint, place / "at-once", progress=live.refresh)
live.refresh()

# %% [markdown]
# ## Is the difference real?
#
# A success rate on 128 levels is a random quantity.
# **Wilson's interval** estimates where the true rate lies; p = k/n, and z = 1.96 for 95 %:
#
# (p + z²/2n ± z √(p(1 − p)/n + z²/4n²)) / (1 + z²/n)
#
# By hand, for 5 of 10: the middle is (0.5 + 0.192) / 1.384 = 0.5, and the half-width is 1.96 × √(0.025 + 0.0096) / 1.384 = 0.263.
# So the interval is 24 % to 76 %: ten levels say almost nothing.
#
# ### Exercise 3: the interval
#
# *Hint: return two numbers, the lower one first.*


# %%
def my_wilson(successes, n):
    """Wilson's 95 % interval (low, high) of a success rate."""
    ### BEGIN SOLUTION
    p, z = successes / n, 1.96
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return (p + z**2 / (2 * n) - half) / (1 + z**2 / n), (p + z**2 / (2 * n) + half) / (1 + z**2 / n)
    ### END SOLUTION


# %%
check_wilson(my_wilson)

# %%
both = {"in turn": in_turn.results, "at once": at_once.results}
for name, spent in both.items():
    print(f"{name}: {spent['iterations']} iterations, {spent['env_steps']:,} environment steps")
course.score_table({f"{name}, {who}": both[name][who] for name in both for who in ("base", "trained")})

# %% [markdown]
# Do the intervals of the two trained models overlap?
# Then this comparison shows *nothing* about the order of updates, however clear the toy was: it has one seed, little more than a minute of training, and about a hundred levels.
# The paper reports a loss of several points without the alternation, for models a thousand times as large.
# "We cannot tell" is a result too.
# What you *can* compare is the trained model with its base.
#
# ## What can go wrong in longer runs
#
# Below are the recorded runs of this package: HiMAC and flat GRPO from the same base model, with several seeds and equal environment steps.
# Look at all seeds before you believe a mean.

# %%
from himac_lite.storage import data_dir

recorded = sorted(f.parent for f in (data_dir() / "runs" / "core").glob("*/results.json"))
by_variant, scores = {}, {}
for folder in recorded:
    results = himac_lite.load_run(folder).results
    scores |= {f"{folder.name}, {who}": results[who] for who in ("base", "trained")}
    by_variant.setdefault(folder.name.rsplit("-", 1)[0], []).append(results["trained"]["by_length"])
display(course.score_table(scores))
bins = list(next(iter(by_variant.values()))[0])
means = {
    f"{v}, {len(s)} seeds": [100 * np.mean([one[b]["success"] for one in s]) for b in bins]
    for v, s in by_variant.items()
}
course.bars(bins, means, "optimal length", "% solved by the trained model")

# %% [markdown]
# And one recorded run in full.
# Choose *groups without a difference* and *KL from the base model* in its menu.
# How many rollouts taught nothing, and how far did each role move from the base?

# %%
widgets.TrainingDashboard(widgets.recorded_run("quickstart"))

# %% [markdown]
# ## To discuss
#
# 1. z\* is the best of eight. What does the executor never practise, and when would that hurt?
# 2. Both roles share one set of LoRA weights. What may phase B do to the planner, although no blueprint token is trained? Which curve would show it?
# 3. Where in the recorded bars does the hierarchy help most: on short levels or on long ones? Is that what notebook 01 predicted?
# 4. Your run was short. Which single number would you use to decide whether a longer run is worth it?
#
# **Next**: notebook 07 asks how a model of half a billion weights fits on one small GPU.
