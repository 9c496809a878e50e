# %% [markdown]
# # The loss: from one number to a step
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/himac-lite/himac-lite/blob/main/notebooks/05_the_loss.ipynb)
# [![Open on Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/himac-lite/himac-lite/main?labpath=notebooks/05_the_loss.ipynb)
#
# **The question.** A blueprint has advantage +1.7.
# In which direction do the weights move, and how far?
# And why does the log of a successful training run say `loss 0.0000`, again and again?
#
# You need: derivatives of a function of one variable, and the fact that PyTorch computes them.
# Everything here is small enough to check by hand, and we do.

# %%
import sys

if "google.colab" in sys.modules:
    # %pip install -q "himac-lite[qlora] @ git+https://github.com/himac-lite/himac-lite"
    print("himac-lite is installed")

# %% [markdown]
# ## The direction, by hand
#
# Take three actions with one logit each, all zero: every action has probability 1/3.
# We sampled action 0, and its advantage is +2.
# The policy gradient increases its log-probability: ∂ log π(0) / ∂ logit_j is (1 if j = 0, else 0) − π(j).
# So the logits should move by 2 × (2/3, −1/3, −1/3) = (**+1.33, −0.67, −0.67**).

# %%
import numpy as np
import torch

from himac_lite import objective
from himac_lite.exercises import course

logits = torch.zeros(3, requires_grad=True)
logp = torch.log_softmax(logits, 0)[0]
(2 * logp).backward()
print(logits.grad)
assert torch.allclose(logits.grad, torch.tensor([4 / 3, -2 / 3, -2 / 3]))

# %% [markdown]
# ## The distance: clipped
#
# One phase of rollouts is expensive, so we take several optimizer steps on it.
# After the first step, the policy is no longer the one that sampled.
# The **ratio** ρ = π_new / π_old measures how far it has moved.
# The clipped surrogate is
#
# J = min(ρ A, clip(ρ, 1 − ε, 1 + ε) A)
#
# By hand, with ε = 0.2 and A = +1: at ρ = 1.1, J = 1.1; at ρ = 1.5, J = 1.2, and it stays there.
# With A = −1: at ρ = 0.5, J = −0.8, and it stays there.
# But at ρ = 1.5, J = −1.5: a token that moved too far the wrong way keeps its gradient.

# %%
rho = torch.linspace(0.02, 2, 100)[None]


def surrogate_at(advantage):
    """J over ρ for one advantage: [100]."""
    behaviour = torch.zeros_like(rho)
    return objective.clipped_surrogate(rho.log(), behaviour, torch.full_like(rho, advantage))[0].numpy()


both = {"A = +1": surrogate_at(1.0), "A = −1": surrogate_at(-1.0)}
course.lines(rho[0].numpy(), both, "ratio ρ", "surrogate J", markers=False)

# %% [markdown]
# ### Exercise 1: the clipped surrogate as a loss
#
# The arguments are NumPy arrays [T]: new log-probabilities, behaviour log-probs and advantages; and the clip ε.
# Return the **loss** of each token.
# *Hint: an optimizer minimises. `np.exp`, `np.clip`, `np.minimum`.*


# %%
def my_clipped_surrogate(logp, behaviour, advantage, clip):
    """The loss of each token, [T]."""
    ### BEGIN SOLUTION
    ratio = np.exp(logp - behaviour)
    return -np.minimum(ratio * advantage, np.clip(ratio, 1 - clip, 1 + clip) * advantage)
    ### END SOLUTION


# %%
from himac_lite.exercises import check_clipped_surrogate, check_surrogate_gradient, check_token_mean

check_clipped_surrogate(my_clipped_surrogate)

# %% [markdown]
# ### Exercise 2: its gradient
#
# Return the derivative of J with respect to log π for each token.
# *Hint: dρ / d log π = ρ. Where is J constant?*


# %%
def my_surrogate_gradient(logp, behaviour, advantage, clip):
    """dJ / d log π of each token, [T]."""
    ### BEGIN SOLUTION
    ratio = np.exp(logp - behaviour)
    too_far = ((advantage > 0) & (ratio > 1 + clip)) | ((advantage < 0) & (ratio < 1 - clip))
    return np.where(too_far, 0, ratio * advantage)
    ### END SOLUTION


# %%
check_surrogate_gradient(my_surrogate_gradient)

# %% [markdown]
# There are three ways to the same derivative: the formula, a difference quotient, and PyTorch's backward pass through the library's function.
# They must agree.
# This is a **gradient check**, and it is cheap.

# %%
rng = np.random.default_rng(0)
new, old = np.log(rng.uniform(0.05, 0.9, 40)), np.log(rng.uniform(0.05, 0.9, 40))
adv = rng.normal(size=40)


def library_surrogate(x):
    """The library's J for log-probabilities x [T]."""
    return objective.clipped_surrogate(x[None], torch.tensor(old)[None], torch.tensor(adv)[None])[0]


x = torch.tensor(new, requires_grad=True)
library_surrogate(x).sum().backward()
above, below = (library_surrogate(torch.tensor(new + d)) for d in (1e-6, -1e-6))
quotient = (above - below) / 2e-6
ratio = np.exp(new - old)
formula = np.where(((adv > 0) & (ratio > 1.2)) | ((adv < 0) & (ratio < 0.8)), 0, ratio * adv)
print(f"backward − quotient:   {(x.grad - quotient).abs().max():.1e}")
print(f"backward − by formula: {abs(x.grad.numpy() - formula).max():.1e}")
print(f"the clip sets the gradient of {np.mean(formula == 0):.0%} of these tokens to zero")
assert np.allclose(x.grad, formula)
assert np.allclose(quotient, formula, atol=1e-5)

# %% [markdown]
# ## Why is the loss 0?
#
# At the first step of an update ρ = 1, so J = A for every token, and the loss is minus the mean advantage.
# The advantages of a group sum to zero.
# So **the loss of the first step is zero** (if all members have equally many tokens), but its gradient is not.
# The value says nothing; the gradient changes the weights.

# %%
from himac_lite.advantage import group_advantage

adv_bt = torch.tensor(group_advantage([[1, 0, 0, 0]])[0])[:, None].expand(4, 5)  # 4 members of 5 tokens
logp_bt = torch.log(torch.full((4, 5), 0.5, dtype=torch.float64)).requires_grad_()
mask_bt = torch.ones(4, 5, dtype=torch.bool)
loss = objective.policy_loss(logp_bt, logp_bt.detach(), None, adv_bt, mask_bt, denominator=20, beta=0)
loss.backward()
print(f"loss {loss.item():+.6f}, norm of the gradient {logp_bt.grad.norm():.3f}")
print("gradient at one token of each member:", logp_bt.grad[:, 0].numpy().round(3))
assert abs(loss.item()) < 1e-9 < logp_bt.grad.norm()

# %% [markdown]
# So what should you watch?
# Watch success on held-out levels, the KL from the base model, the entropy, and the share of clipped tokens, but not the loss.
# (In the recorded run the loss is not exactly zero: members differ in length, and one phase takes several steps.)

# %%
from himac_lite import widgets
from himac_lite.widgets import plots

metrics = widgets.recorded_run("quickstart").metrics()
names = ("macro/loss", "macro/kl", "macro/grad_norm", "macro/success")
values = {name: plots.series(metrics, name)[1] for name in names}
rows = [(n, *(f"{x:.3f}" for x in (*v[:4], *v[-4:]))) for n, v in values.items()]
course.table(("metric", *(f"{which} {i}" for which in ("first", "last") for i in range(1, 5))), rows)

# %% [markdown]
# ## What can go wrong: length
#
# Members have different lengths: a failed episode is long.
# How should we average over tokens?
# Take a success of 4 tokens with A = +1 and a failure of 16 tokens with A = −1.
# By hand, the weight of *one token* of the failure is:
#
# - The mean of each sequence, then over sequences (GRPO): 1/16 × 1/2 = 0.031. A long failure gets *less* blame per token, so long failures are rewarded.
# - The mean over all tokens (DAPO, and this package): 1/20 = 0.05, the same for every token.
# - A constant denominator (Dr. GRPO), say 2 × 16 = 32: 0.031 for every token.

# %%
mask_bt = torch.zeros(2, 16, dtype=torch.bool)
mask_bt[0, :4], mask_bt[1] = True, True
adv_bt = torch.tensor([[1.0], [-1.0]]).expand(2, 16)
lengths_b = mask_bt.sum(1, keepdim=True)
rows = []
for name, d in (("GRPO", 2 * lengths_b), ("over tokens", mask_bt.sum()), ("constant", 32)):
    logp_bt, old_bt = torch.zeros(2, 16, requires_grad=True), torch.zeros(2, 16)
    objective.policy_loss(logp_bt, old_bt, None, adv_bt, mask_bt, denominator=d, beta=0).backward()
    win, failure = -logp_bt.grad[:, 0]
    rows.append((name, f"{win:+.4f}", f"{failure:+.4f}"))
course.table(("weight of a token", "of the success", "of the failure"), rows)

# %% [markdown]
# ### Exercise 3: the mean over tokens
#
# You get `x` [B, T] and a mask of the same shape.
# Where the mask is false, `x` is meaningless and may even be `nan`.
# *Hint: select, do not multiply.*


# %%
def my_token_mean(x, mask):
    """The mean of x over the tokens where the mask is true."""
    ### BEGIN SOLUTION
    return x[mask].mean()
    ### END SOLUTION


# %%
check_token_mean(my_token_mean)

# %% [markdown]
# There is a second trap: large batches are split into micro-batches to save memory.
# If each micro-batch divides by its *own* number of tokens, the gradient depends on the split.
# One denominator must serve the whole update.
# Here are the same 6 sequences, whole and split:

# %%
torch.manual_seed(0)
lengths = torch.tensor([3, 12, 5, 12, 2, 9])
mask_bt = torch.arange(12) < lengths[:, None]
adv_bt = torch.randn(6, 1).expand(6, 12)
weights = torch.randn(6, 12)


def gradient(parts, own_denominator):
    """The gradient of one shared parameter, summed over micro-batches."""
    theta = torch.zeros((), requires_grad=True)
    for part in parts:
        logp_bt = theta * weights[part]
        d = mask_bt[part].sum() * len(parts) if own_denominator else mask_bt.sum()
        old_bt = torch.zeros_like(logp_bt)
        loss = objective.policy_loss(
            logp_bt, old_bt, None, adv_bt[part], mask_bt[part], denominator=d, beta=0
        )
        loss.backward()
    return theta.grad.item()


whole, cut = [slice(0, 6)], [slice(0, 2), slice(2, 3), slice(3, 6)]
print(f"whole {gradient(whole, False):+.5f}  cut, one denominator {gradient(cut, False):+.5f}")
print(f"cut, each its own denominator {gradient(cut, True):+.5f}")
assert np.isclose(gradient(whole, False), gradient(cut, False))

# %% [markdown]
# ## Not too far from the base: KL
#
# A penalty β KL(π ‖ π_ref) keeps the policy near its base model.
# It is estimated from the sampled tokens with d = log π_ref − log π: **k1** = −d, **k2** = d²/2, **k3** = eᵈ − 1 − d.
# The next cell takes two distributions over three tokens and 20,000 samples, and compares the estimates with the exact value Σ π log(π / π_ref).

# %%
p, q = torch.tensor([0.6, 0.3, 0.1]), torch.tensor([0.4, 0.4, 0.2])
exact = (p * (p / q).log()).sum()
y = torch.multinomial(p, 20_000, replacement=True, generator=torch.Generator().manual_seed(0))
rows = [("exact", f"{exact:.4f}", "", "")]
for k in ("k1", "k2", "k3"):
    found = objective.kl(p[y].log()[None], q[y].log()[None], estimator=k)
    rows.append((k, f"{found.mean():.4f}", f"{found.std():.3f}", f"{found.min():+.3f}"))
course.table(("estimator", "mean", "std of one sample", "smallest sample"), rows)

# %% [markdown]
# k1 is unbiased but noisy, and single samples can be negative.
# k3 is unbiased, less noisy, and never negative; this is why GRPO uses it.
#
# ## All together: a bandit
#
# Four arms pay a reward with different probabilities.
# The policy has four logits, and it is trained with groups of eight pulls, group advantages and the library's loss, for forty updates of two steps each.
# Only the log-probabilities differ from the training of a language model.

# %%
chances = torch.tensor([0.2, 0.4, 0.6, 0.8])
logits = torch.zeros(4, requires_grad=True)
optimizer = torch.optim.Adam([logits], lr=0.1)
generator, history, losses = torch.Generator().manual_seed(0), [], []
for _ in range(40):
    with torch.no_grad():
        old_logp = torch.log_softmax(logits, 0)
        pulled = torch.multinomial(old_logp.exp(), 64, replacement=True, generator=generator)
        arms = pulled.reshape(8, 8)
        rewards = (torch.rand(8, 8, generator=generator) < chances[arms]).double()
        adv_pn = torch.tensor(group_advantage(rewards.numpy()), dtype=torch.float32)
    for step in range(2):
        logp_pn = torch.log_softmax(logits, 0)[arms]
        everywhere = torch.ones(8, 8, dtype=torch.bool)
        loss = objective.policy_loss(
            logp_pn, old_logp[arms], None, adv_pn, everywhere, denominator=64, beta=0
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses += [loss.item()] if step == 0 else []
    history.append(torch.softmax(logits, 0).tolist())
print(f"largest first-step loss in 40 updates: {max(map(abs, losses)):.1e}")
arms_shown = {f"arm {i}, pays {c:.0%}": [h[i] for h in history] for i, c in enumerate(chances)}
course.lines(range(1, 41), arms_shown, "update", "probability", markers=False)

# %% [markdown]
# The loss of every first step was zero, and still the policy learned.
#
# ## To discuss
#
# 1. Clip-higher (DAPO) uses ε = 0.28 upwards and 0.2 downwards. For which tokens does it matter?
# 2. With one step per update the ratio is always 1. What does the clip do then?
# 3. Which of the three denominators would you choose if the model learned to write longer and longer blueprints?
# 4. A group without a difference has advantage 0, but with β > 0 its loss is not 0. Should it be part of the update?
#
# **Next**: notebook 06 trains planner and executor in turn, on your machine.
