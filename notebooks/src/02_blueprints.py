# %% [markdown]
# # Blueprints: a plan that somebody else has to carry out
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/himac-lite/himac-lite/blob/main/notebooks/02_blueprints.ipynb)
# [![Open on Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/himac-lite/himac-lite/main?labpath=notebooks/02_blueprints.ipynb)
#
# **The question.** Twenty moves in a row are too many decisions to get right (notebook 01).
# Suppose the model first writes what it wants to do, in a few sub-goals.
# What exactly should it write, who decides that a sub-goal is *done*, and what return should a failed plan get?
#
# This notebook needs no PyTorch: we look at recorded blueprints.

# %%
import sys

if "google.colab" in sys.modules:
    # %pip install -q "himac-lite @ git+https://github.com/himac-lite/himac-lite"
    print("himac-lite is installed")

# %%
import numpy as np

import himac_lite
from himac_lite import widgets
from himac_lite.exercises import course
from himac_lite.tasks.sokoban.rules import board_from_level, play
from himac_lite.tasks.sokoban.task import SokobanTask

task = SokobanTask()
core = himac_lite.load_levels("core/validation")
level = next(lv for lv in core if lv.optimal_moves >= 15)
plan = task.oracle(level)  # the solver's solution as sub-goals
print(himac_lite.solve(level).lurd)
print(plan.text.strip())
course.boards({level.title: board_from_level(level)}, 220)

# %% [markdown]
# ## Many moves, few sub-goals
#
# By hand: read the moves above; capital letters are pushes.
# Every straight run of pushes of one box is one sub-goal; the walk around the box is not mentioned.
# Now count for all levels: how many decisions does the planner make, and how many does a flat player make?

# %%
lengths = np.array([lv.optimal_moves for lv in core])
goals = np.array([len(task.oracle(lv).subgoals) for lv in core])
by_length = {n: goals[lengths == n].mean() for n in sorted(set(lengths.tolist()))}
counts = {"moves (flat)": list(by_length), "sub-goals (planner)": list(by_length.values())}
course.lines(list(by_length), counts, "optimal length", "decisions in a row")

# %% [markdown]
# If each decision is right with probability 0.9, twenty moves succeed with 0.9²⁰ = 0.12, but four sub-goals succeed with 0.9⁴ = 0.66.
# This is the main argument for a hierarchy.
# (It is not a proof: each sub-goal has to be executed as well. But that is a *short* task.)
#
# ## What may be written
#
# A language model can write anything.
# Therefore `parse_blueprint` never raises: a blueprint that cannot be executed gets a **reason** and counts as a failed member of its group.
# Guess the reasons before you run the cell.

# %%
from himac_lite.tasks.sokoban.language import parse_blueprint

attempts = {
    "a good one": "push the box at (2,3) right to (2,5)\npush the box at (4,1) up to (1,1)",
    "nothing": "",
    "poetry": "gently move the little crate home",
    "not straight": "push the box at (2,3) right to (4,5)",
    "backwards": "push the box at (2,3) right to (2,1)",
    "too much": "push the box at (2,3) right to (2,5)\n" * 13,
}
parsed = {name: parse_blueprint(text) for name, text in attempts.items()}
rows = [
    (name, b.invalid.value if b.invalid else "valid", len(b.subgoals)) for name, b in parsed.items()
]
course.table(("attempt", "reason", "sub-goals"), rows)

# %% [markdown]
# ### Exercise 1: a straight push
#
# You get two cells (row, column) and a direction.
# Is this one straight push, in that direction, of at least one step?
# *Hint: rows grow downwards. Which coordinate stays the same for `left`?*


# %%
def my_straight_push(box, direction, target):
    """Whether the target lies on a straight line in that direction, at least one step away."""
    ### BEGIN SOLUTION
    down, right = target[0] - box[0], target[1] - box[1]
    if direction in ("left", "right"):
        return down == 0 and (right > 0 if direction == "right" else right < 0)
    return right == 0 and (down > 0 if direction == "down" else down < 0)
    ### END SOLUTION


# %%
from himac_lite.exercises import check_active_subgoals, check_honest_return, check_straight_push

check_straight_push(my_straight_push)

# %% [markdown]
# ## What each role reads
#
# One model, two prompts.
# The **planner** reads the board twice: on the second reading every token can attend to the whole board.
# The **executor** reads the board *as it is when the sub-goal begins*, and the active sub-goal.
# It sees neither the rest of the blueprint nor the earlier segments: this is HiMAC's **temporal mask**.

# %%
from himac_lite.types import Role

episode = task.start(level)
print("PLANNER\n" + episode.prompt(Role.PLANNER))
print("EXECUTOR\n" + episode.prompt(Role.EXECUTOR, plan.subgoals[0]))

# %% [markdown]
# ## Who says that it is done?
#
# The executor does, with the token `<sub_done>`.
# If it never writes this token, the **budget** of actions ends the sub-goal.
# Here is a recorded blueprint with its execution.
# The player shows the active sub-goal and how each one ended.

# %%
run = widgets.recorded_run("quickstart")
record = widgets.AdvantageExplorer(run).record
widgets.RolloutPlayer(record, "macro")

# %%
board, start = board_from_level(himac_lite.tasks.sokoban.levels.parse_levels(record["level"])[0]), 0
best = record["macro"]["members"][record["macro"]["best"]]
shown = {"the start": board}
for k, segment in enumerate(best["segments"]):
    start += segment["steps"]
    shown[f"{k + 1}. {segment['subgoal']}: {segment['end']}"] = play(board, best["moves"][:start])
course.boards(shown, 150)

# %% [markdown]
# ### Exercise 2: the active sub-goal
#
# `tokens` are the executor's choices in order: moves and `<sub_done>`.
# A sub-goal ends with `<sub_done>`, or when it has used up `budget` moves.
# Return the number of the active sub-goal for each token, counted from 0.
# *Hint: two variables are enough, the number of the sub-goal and the moves that it has used.*


# %%
def my_active_subgoals(tokens, budget):
    """The number of the active sub-goal for every token."""
    ### BEGIN SOLUTION
    out, goal, used = [], 0, 0
    for token in tokens:
        out.append(goal)
        used += token != "<sub_done>"
        if token == "<sub_done>" or used == budget:
            goal, used = goal + 1, 0
    return out
    ### END SOLUTION


# %%
check_active_subgoals(my_active_subgoals)

# %% [markdown]
# How do sub-goals end in the recorded run, early and late in training?
# If the *budget* ends a sub-goal, the blueprint asked for something impossible, or the executor got lost.

# %%
names = {
    "sub_done": "<sub_done>",
    "budget": "budget used up",
    "success": "level solved",
    "truncated": "out of steps",
}
ends = {}
for iteration in (run.recorded_iterations()[0], run.recorded_iterations()[-1]):
    members = [m for r in run.rollouts(iteration) for m in r["macro"]["members"]]
    found = [s["end"] for m in members for s in m["segments"]]
    ends[f"iteration {iteration}"] = [100 * found.count(end) / max(1, len(found)) for end in names]
course.bars(list(names.values()), ends, "how a sub-goal ended", "% of sub-goals")

# %% [markdown]
# Note what `<sub_done>` does *not* mean.
# The executor may write it at once and be wrong.
# A sub-goal may also be executed perfectly and still ruin the level; then the blueprint is at fault.
# The next cell looks for such a blueprint: all its sub-goals end with `<sub_done>`, but the level is not solved.

# %%
recorded = [r for i in run.recorded_iterations() for r in run.rollouts(i)]
every = [(r, n) for r in recorded for n in range(len(r["macro"]["members"]))]
useless = [
    (r, n)
    for r, n in every
    if (m := r["macro"]["members"][n])["segments"]
    and not m["success"]
    and all(s["end"] == "sub_done" for s in m["segments"])
]
print(f"{len(useless)} of {len(every)} recorded blueprints were executed to the end", end=" ")
print("and did not solve their level")
widgets.RolloutPlayer(*(useless[0][0], "macro", useless[0][1]) if useless else (record, "macro"))

# %% [markdown]
# ## What can go wrong: a planner that learns to fail early
#
# "Steps cost time, so let every step cost a little."
# This sounds harmless, and many environments are defined in this way.
# Let us score a recorded group accordingly: return = success − 0.01 × steps.
# We take the recorded level whose failures differ most in length.

# %%
from himac_lite.advantage import group_advantage
from himac_lite.widgets.plots import advantage_bars


def spread(r):
    """How much the failures of a macro group differ in length; 0 if a member succeeded."""
    if any(m["success"] for m in r["macro"]["members"]):
        return 0
    return float(np.ptp([m["steps"] for m in r["macro"]["members"]]))


failing = max(recorded, key=spread)
members = failing["macro"]["members"]
labels = [f"{len(m['segments'])} sub-goals, {m['steps']} steps" for m in members]
penalised = [m["success"] - 0.01 * m["steps"] for m in members]
advantage_n = group_advantage([penalised])[0]
advantage_bars(penalised, advantage_n, labels)

# %% [markdown]
# Nobody solved the level (if the record has such a group), yet one member has a positive advantage: the one that gave up first.
# The cheapest blueprint is one that cannot be executed at all, because it costs nothing.
# Within twenty iterations, a planner with this return writes empty blueprints.
# This happened in the first sketch of this package.
#
# ### Exercise 3: an honest return
#
# Let steps cost something in a success.
# Let a failure cost the same **however early it ends**: as much as if it had used all `max_steps`.
# *Hint: an `if`.*


# %%
def my_honest_return(success, steps, max_steps, penalty):
    """1 − penalty × steps for a success; a failure costs the penalty for all max_steps."""
    ### BEGIN SOLUTION
    if success:
        return 1 - penalty * steps
    return -penalty * max_steps
    ### END SOLUTION


# %%
check_honest_return(my_honest_return)

# %% [markdown]
# Now the same group with the honest return: all returns are equal, and all advantages are zero.
# The group teaches nothing, which is better than teaching something wrong.
# This package goes one step further and has no cost per step: the return is 1 for success and 0 otherwise.

# %%
honest = [1 - 0.01 * m["steps"] if m["success"] else -0.01 * task.max_steps for m in members]
advantage_bars(honest, group_advantage([honest])[0], labels)

# %% [markdown]
# ## To discuss
#
# 1. Who should decide that a sub-goal is done: the executor, a rule that checks the board, or a clock? What could each of them do wrong?
# 2. The executor does not see the earlier segments. When would it need them?
# 3. Here a sub-goal is a push. What would be a sub-goal for "book a flight", and how long should it be?
# 4. Suppose a blueprint with the single sub-goal "solve the level" were legal. What would happen to the hierarchy?
#
# **Next**: notebook 03 turns returns into advantages, at both levels.
