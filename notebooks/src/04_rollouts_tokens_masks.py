# %% [markdown]
# # Rollouts, tokens, masks: what exactly was chosen?
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/himac-lite/himac-lite/blob/main/notebooks/04_rollouts_tokens_masks.ipynb)
# [![Open on Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/himac-lite/himac-lite/main?labpath=notebooks/04_rollouts_tokens_masks.ipynb)
#
# **The question.** You see that the model writes *up, up, right*.
# The optimizer sees numbers that were sampled from distributions.
# For every token the update must know three things: its id, whether the *model* chose it, and its probability **at that moment** (the behaviour log-prob).
# Each of the three can be wrong without an error message, and then training fails silently.
#
# You need: what a softmax is, and a little PyTorch.
# The model is small (a few million weights) and runs on any CPU.

# %%
import sys

if "google.colab" in sys.modules:
    # %pip install -q "himac-lite[qlora] @ git+https://github.com/himac-lite/himac-lite"
    print("himac-lite is installed")

# %%
import numpy as np
import torch

import himac_lite
from himac_lite.exercises import course
from himac_lite.policy.loading import load_policy
from himac_lite.policy.parallel import one_thread_a_worker
from himac_lite.runs.training import resolve_model
from himac_lite.tasks.sokoban.rules import board_from_level
from himac_lite.tasks.sokoban.task import SokobanTask
from himac_lite.types import Role

one_thread_a_worker()
policy, task = load_policy(resolve_model("sokoban-base"), device="cpu"), SokobanTask()
levels = [lv for lv in himac_lite.load_levels("core/validation") if 9 <= lv.optimal_moves <= 14]
level = levels[0]
course.boards({level.title: board_from_level(level)}, 200)

# %% [markdown]
# ## Text becomes numbers
#
# A tokenizer splits text into pieces of its vocabulary.
# This model's tokenizer is made for the game: a cell of the board, a coordinate or a whole observation is one token.
# A general tokenizer from the Hugging Face hub would need four times as many tokens.

# %%
prompt = policy.encode(task.start(level).prompt(Role.PLANNER))
print(f"{len(policy.tokenizer)} tokens in the vocabulary, {len(prompt)} in this prompt")
print(prompt[:12], "…")
print([policy.text([i]) for i in prompt[:12]], "…")
assert policy.text(prompt) == task.start(level).prompt(Role.PLANNER)

# %% [markdown]
# ## Log-probabilities, by hand
#
# A model returns one number for every token of the vocabulary, its **logit**.
# Take three tokens with logits 2, 1, 0.
# The exponentials are e² = 7.39, e¹ = 2.72 and e⁰ = 1, and their sum is 11.11.
# So the first token has probability 0.665 and log-probability log 0.665 = **−0.41**.
# At temperature 2 the logits are halved first: the exponentials are 2.72, 1.65 and 1, their sum is 5.37, and the probability is 0.506.
# A higher temperature gives a flatter distribution.

# %%
from himac_lite.objective import token_log_probs

logits = np.array([2.0, 1.0, 0.0])
for temperature in (1.0, 2.0):
    p = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
    library = token_log_probs(torch.tensor(logits)[None, None], torch.tensor([[0]]), temperature)
    print(f"temperature {temperature}: {p.round(3)}, log-probability of the first {np.log(p[0]):.3f}")
    assert np.isclose(library.item(), np.log(p[0]))

# %% [markdown]
# ### Exercise 1: the log-probability of a sampled token
#
# `logits` is [T, V], and `ids` [T] are the tokens that were sampled at `temperature`.
# Return T log-probabilities.
# *Hint: divide, then subtract `np.log(np.exp(z).sum(axis=1))`; `z[np.arange(len(ids)), ids]` selects one column per row.*


# %%
def my_sampled_log_prob(logits, ids, temperature):
    """log π(ids[t]) at this temperature, for every t."""
    ### BEGIN SOLUTION
    z = logits / temperature
    return z[np.arange(len(ids)), ids] - np.log(np.exp(z).sum(axis=1))
    ### END SOLUTION


# %%
from himac_lite.exercises import (
    check_constrained_log_prob,
    check_next_token_log_probs,
    check_sampled_log_prob,
)

check_sampled_log_prob(my_sampled_log_prob)

# %% [markdown]
# ### Exercise 2: logits and tokens aligned
#
# A model reads `ids` and returns one row of logits per token.
# Row t was computed *after* reading ids[t], so it predicts ids[t + 1].
# Return the log-probabilities of ids[1:] at temperature 1.
# *Hint: which row of logits predicts ids[1]? Which row predicts a token that we do not have?*


# %%
def my_next_token_log_probs(logits, ids):
    """log π(ids[t + 1] | ids[: t + 1]) for every t but the last."""
    ### BEGIN SOLUTION
    z = logits[:-1]
    return z[np.arange(len(z)), ids[1:]] - np.log(np.exp(z).sum(axis=1))
    ### END SOLUTION


# %%
check_next_token_log_probs(my_next_token_log_probs)

# %% [markdown]
# A shift by one raises no error: every token simply gets the probability of another token.
# On a real blueprint you can see the effect.
#
# ## Eight blueprints
#
# The planner samples freely, at temperature 1.
# Below each token is its behaviour log-prob, recorded when it was sampled; a value near 0 means certainty.
# Where is the planner uncertain: in the words or in the coordinates?

# %%
from himac_lite.rollout.play import Arena
from himac_lite.types import Sampling

arena = Arena(policy, task)  # where this policy plays
sampling = Sampling(1.0, np.random.default_rng(0))
groups = arena.blueprints(levels[:8], 8, sampling)
group = max(groups, key=lambda g: len({b.text for _, b in g}))  # the level on which it is least sure
sequence, blueprint = max(group, key=lambda pair: len(pair[1].subgoals))
print(f"{len({b.text for _, b in group})} different blueprints among 8,", end=" ")
print(f"{sum(not b.invalid for _, b in group)} valid")
n = sequence.prompt_len
course.marked([policy.text([i]) for i in sequence.ids[n:]], sequence.action_mask[n:], sequence.logp[n:])

# %%
scores = policy.log_probs([sequence])
shifted = [*sequence.logp[n + 1 :], 0.0]  # the same numbers, one place too early
now = scores.logp[0].detach()
print(f"recomputed − recorded, in step:     {(now - scores.behaviour[0]).abs().max():.1e}")
print(f"recomputed − recorded, out of step: {(now - torch.tensor(shifted)).abs().max():.1e}")

# %% [markdown]
# ## The executor: actions and observations
#
# The executor's sequence is a conversation.
# It chooses an action, the environment writes an observation, and so on until `<sub_done>`.
# Only the underlined tokens were chosen, and the mask must say so.
# If you train on observations, you train the model to predict the world, which is a different task.

# %%
plan = task.oracle(level)
(trajectory,) = arena.execute([(level, plan)], sampling)
segment = trajectory.segments[0]
m = segment.prompt_len
print(plan.subgoals[0].text, "·", segment.end.value)
course.marked([policy.text([i]) for i in segment.ids[m:]], segment.action_mask[m:], segment.logp[m:])

# %% [markdown]
# ## Under a constraint
#
# The executor may only write one of the four moves or `<sub_done>`; all other tokens are forbidden during sampling.
# Its probabilities therefore sum to 1 over *five* tokens, not over the vocabulary.
# By hand, with the toy logits 2, 1, 0: if only the last two tokens are allowed, the second has e¹ / (e¹ + e⁰) = 0.731, not 2.72 / 11.11 = 0.245.
#
# ### Exercise 3: the log-probability under a constraint
#
# `logits` is [V], `allowed` is a tuple of ids, and `token` is one of them.
# *Hint: subtract log Σ exp over the allowed logits only.*


# %%
def my_constrained_log_prob(logits, allowed, token):
    """log π(token) when only the allowed ids can be sampled."""
    ### BEGIN SOLUTION
    return logits[token] - np.log(np.exp(logits[list(allowed)]).sum())
    ### END SOLUTION


# %%
check_constrained_log_prob(my_constrained_log_prob)

# %% [markdown]
# ## What can go wrong: the ratio that is not 1
#
# Before the first step of an update, the new policy *is* the old one.
# So the ratio ρ = π_new / π_old of every chosen token must be exactly 1 (up to rounding).
# This is the cheapest and best test of a rollout.
# Here are 16 executions, scored in four ways; only one is right.

# %%
from dataclasses import replace

jobs = [(lv, task.oracle(lv)) for lv in levels[: 4 if course.FAST else 16]]
warm = Sampling(1.5, np.random.default_rng(1))  # at temperature 1.5, to make the mistake visible
segments = [s for t in arena.execute(jobs, warm) for s in t.segments]
free = [replace(s, allowed=None) for s in segments]  # without the actions that it could choose from
behaviour = policy.log_probs(segments, 1.5)


def ratios(scored):
    """ρ of every chosen token: [M]."""
    return torch.exp(scored.logp - behaviour.behaviour)[behaviour.mask].detach().numpy()


with torch.no_grad():
    found = {
        "as it was sampled": ratios(behaviour),
        "temperature forgotten": ratios(policy.log_probs(segments, 1.0)),
        "constraint forgotten": ratios(policy.log_probs(free, 1.5)),
        "both forgotten": ratios(policy.log_probs(free, 1.0)),
    }
for name, rho in found.items():
    outside = np.mean(abs(rho - 1) > 0.2)
    print(f"{name:22} ρ from {rho.min():.3f} to {rho.max():.3f}, outside [0.8, 1.2]: {outside:.0%}")
assert np.allclose(found["as it was sampled"], 1, atol=5e-3)

# %%
edges = np.linspace(-0.025, 2.025, 42)  # 1 is in the middle of a bin, not on an edge
heights = {name: np.histogram(rho.clip(0, 2), edges)[0] / len(rho) for name, rho in found.items()}
middle = (edges[1:] + edges[:-1]) / 2
course.lines(middle, heights, "ratio ρ before the first step", "share of tokens", markers=False)

# %% [markdown]
# The clip of the next notebook cuts off tokens outside [0.8, 1.2].
# With a forgotten temperature, a part of the batch has no gradient before anything was learned, and no error is raised.
#
# ## How much does sampling cost?
#
# Sampling explores, but it also makes mistakes.
# Here the same blueprints are executed greedily (temperature 0) and by sampling.
# How often does the executor complete a *good* blueprint (the solver's) in each case?

# %%
few, rows = levels[: 8 if course.FAST else 48], []
for temperature in (0.0, 1.0, 2.0):
    how = Sampling(temperature, np.random.default_rng(2))
    done = arena.execute([(lv, task.oracle(lv)) for lv in few], how)
    solved, steps = np.mean([t.success for t in done]), np.mean([t.steps for t in done])
    rows.append((f"{temperature:.0f}", f"{solved:.0%} of {len(few)}", f"{steps:.1f}"))
course.table(("temperature", "solved", "mean steps"), rows)

# %% [markdown]
# ## To discuss
#
# 1. Token ids are carried from the rollout to the loss, and text is only for people. What could happen if the text were tokenized again?
# 2. The executor's prompt is longer than its answer, and the eight members of a group share it. What can be saved?
# 3. The last action of a solved level has no observation after it, and a sub-goal that uses up its budget ends without `<sub_done>`. Which tokens are trained in each case?
# 4. Why is a macro group executed greedily, but a micro group sampled?
#
# **Next**: notebook 05 combines advantages and log-probabilities in the loss.
