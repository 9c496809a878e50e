# %% [markdown]
# # 4 bit and LoRA: a model in your pocket
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/himac-lite/himac-lite/blob/main/notebooks/07_four_bit_and_lora.ipynb)
# [![Open on Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/himac-lite/himac-lite/main?labpath=notebooks/07_four_bit_and_lora.ipynb)
#
# **The question.** A model of half a billion weights takes 2 GB in float32, and ordinary training takes four times that.
# How can it learn on one small GPU, and what is lost?
#
# Everything up to the last section runs on a CPU.
# The last section needs a GPU with CUDA (on Colab: *Runtime, Change runtime type, T4*); without one it prints what it would do.

# %%
import sys

if "google.colab" in sys.modules:
    # %pip install -q "himac-lite[qlora] @ git+https://github.com/himac-lite/himac-lite"
    print("himac-lite is installed")

# %% [markdown]
# ## One weight in 4 bit, by hand
#
# Four bits can name 16 values.
# **NF4** uses 16 values between −1 and 1 that are dense near zero, where most weights are.
# A **block** of 64 weights shares one scale, its largest absolute value.
# Take the weights 0.02, −0.05, 0.03.
# The scale is 0.05, and the scaled weights are 0.4, −1, 0.6.
# The nearest codes are 0.44, −1, 0.56, so the dequantised weights are 0.022, −0.05, 0.028.

# %%
import numpy as np
import torch

from himac_lite.exercises import course
from himac_lite.policy.loading import load_policy
from himac_lite.policy.parallel import one_thread_a_worker
from himac_lite.runs.training import resolve_model
from himac_lite.widgets import plots

one_thread_a_worker()
policy = load_policy(resolve_model("sokoban-base"), device="cpu")
in_4_bit = next(m for m in policy.peft_model.modules() if type(m).__name__ == "Linear4bit")
codes = in_4_bit.weight.quant_state.code.numpy()
print(codes.round(3))
toy = np.array([0.02, -0.05, 0.03])
nearest = codes[np.abs((toy / 0.05)[:, None] - codes).argmin(1)]
print("read back:", (nearest * 0.05).round(4))

# %% [markdown]
# ### Exercise 1: quantise a block
#
# `weights` is [n], and `codes` are the allowed values between −1 and 1.
# Return the dequantised weights.
# *Hint: scale, find the nearest code (`np.abs(x[:, None] - codes).argmin(axis=1)`), scale back.*


# %%
def my_quantise(weights, codes):
    """Each weight replaced by its nearest code, scaled by the largest absolute value."""
    ### BEGIN SOLUTION
    scale = np.abs(weights).max()
    nearest = np.abs(weights[:, None] / scale - codes).argmin(axis=1)
    return codes[nearest] * scale
    ### END SOLUTION


# %%
from himac_lite.exercises import check_merged, check_nf4_bytes, check_quantise

check_quantise(my_quantise)

# %% [markdown]
# ## A real weight matrix
#
# We load the shipped model twice, in full precision and in NF4.
# We dequantise one matrix with bitsandbytes (which works on a CPU too), and do the same by hand, block by block.

# %%
from bitsandbytes.functional import dequantize_4bit

exact_policy = load_policy(resolve_model("sokoban-base"), four_bit=False, device="cpu")


def down_projection(p):
    """The same linear layer of either model, under its LoRA."""
    layers = p.peft_model.named_modules()
    return next(m for name, m in layers if name.endswith("layers.0.mlp.down_proj")).base_layer


exact = down_projection(exact_policy).weight.detach()
packed = down_projection(policy).weight
read_back = dequantize_4bit(packed, packed.quant_state)
blocks = exact.reshape(-1, 64).numpy()
scales = np.abs(blocks).max(1, keepdims=True)
by_hand = codes[np.abs((blocks / scales)[..., None] - codes).argmin(-1)] * scales
off, error = np.abs(read_back.numpy().reshape(-1, 64) - by_hand), (read_back - exact).abs()
print(f"{tuple(exact.shape)}: {exact.numel():,} weights", end=" ")
print(f"in {packed.numel():,} bytes and {scales.size:,} scales")
print(f"bitsandbytes − by hand, at most {off.max():.1e}")
print(f"mean error of a weight {error.mean():.4f}; its mean absolute value {exact.abs().mean():.4f}")
assert off.max() < 1e-5

# %%
scaled = (blocks / scales).ravel()
edges = np.linspace(-1, 1, 81)
middle, heights = (edges[1:] + edges[:-1]) / 2, np.histogram(scaled, edges)[0]
across = "weight ÷ largest of its block"
picture = course.lines(middle, {"weights": heights}, across, "how many", markers=False)
ticks = {"symbol": "line-ns-open", "size": 22, "color": plots.VERMILION}
picture.add_scatter(x=codes, y=[0] * 16, mode="markers", name="the 16 codes", marker=ticks)
picture.update_layout(showlegend=True)

# %% [markdown]
# The codes are close together where most weights are.
# What if they were evenly spaced?
# Again by hand:

# %%
even = np.linspace(-1, 1, 16)
by_even = even[np.abs((blocks / scales)[..., None] - even).argmin(-1)] * scales
rows = [(n, f"{np.abs(v - blocks).mean():.4f}") for n, v in (("NF4", by_hand), ("even", by_even))]
course.table(("codes", "mean error of a weight"), rows)

# %% [markdown]
# ## Does it still play?
#
# Every weight has a small error, as you just saw.
# What does the *model* say?
# We ask both models for the log-probabilities of the same blueprints.

# %%
import himac_lite
from himac_lite.rollout.play import Arena
from himac_lite.tasks.sokoban.task import SokobanTask
from himac_lite.types import Sampling

task = SokobanTask()
levels = himac_lite.load_levels("core/validation")[: 2 if course.FAST else 16]
plans = Arena(policy, task).blueprints(levels, 4, Sampling(1.0, np.random.default_rng(0)))
sequences = [sequence for group in plans for sequence, _ in group]
with torch.no_grad():
    four, full = policy.log_probs(sequences), exact_policy.log_probs(sequences)
difference = (four.logp - full.logp)[four.mask].abs()
print(f"{difference.numel()} blueprint tokens:", end=" ")
print(f"log-probabilities differ by {difference.mean():.3f} on average")
print(f"probability of the typical token: {four.logp[four.mask].mean().exp():.3f} in 4 bit, ", end="")
print(f"{full.logp[four.mask].mean().exp():.3f} in full precision")

# %% [markdown]
# ## The arithmetic of memory
#
# By hand, for 64 weights: 64 × 4 bit = 32 bytes, plus one float32 scale of 4 bytes.
# So 64 weights take 36 bytes, or 4.5 bits each.
#
# ### Exercise 2: bytes
#
# How many bytes do `weights` weights take if every `block` of them shares one float32 scale?
# *Hint: a byte has 8 bits.*


# %%
def my_nf4_bytes(weights, block):
    """Bytes of the codes and of the scales."""
    ### BEGIN SOLUTION
    return weights / 2 + 4 * weights / block
    ### END SOLUTION


# %%
check_nf4_bytes(my_nf4_bytes)

# %% [markdown]
# Training needs more than the weights.
# Each trainable weight also needs a gradient, and Adam keeps two numbers for it.
# If all weights are trained, this is 4 + 4 + 8 = 16 bytes per weight in float32.
# With LoRA only a few percent of the weights are trained.
# (The activations that the forward pass keeps for the backward pass come on top; they grow with the number of tokens in a micro-batch.)

# %%
from IPython.display import display

sizes = {"0.5 billion": 0.5e9, "1.5 billion": 1.5e9, "7 billion": 7e9}
learning = 0.02  # LoRA of rank 16 on all linear layers: roughly two percent of the weights
ways = {
    "all weights, float32 and Adam": [16 * n / 1e9 for n in sizes.values()],
    "half precision base + LoRA": [(2 * n + 16 * learning * n) / 1e9 for n in sizes.values()],
    "NF4 base + LoRA": [(4.5 / 8 * n + 16 * learning * n) / 1e9 for n in sizes.values()],
}
rows = [(name, *(f"{g:.1f} GB" for g in gigabytes)) for name, gigabytes in ways.items()]
display(course.table(("training", *sizes), rows))
picture = course.bars(list(sizes), ways, "weights of the model", "GB (logarithmic)")
picture.update_yaxes(type="log", dtick=1)
picture.add_hline(y=15, line={"dash": "dot", "color": plots.TEXT})
# On a logarithmic axis a label is placed at the logarithm.
where = {"x": 0, "xref": "paper", "y": np.log10(15), "yanchor": "bottom"}
picture.add_annotation(text="a T4: 15 GB", showarrow=False, **where)

# %% [markdown]
# ## LoRA: learn a low-rank product
#
# The base weight W [out, in] never changes.
# Two small matrices are trained, A [r, in] and B [out, r], and the layer computes with W + (alpha / r) B A.
# Together they are the **adapter**.
# By hand, for out = in = 128 and r = 16: W has 16,384 weights, and A and B together have 4,096.
# For 4,096 × 4,096 they have 131,072 of 16.8 million, less than one percent: the larger the model, the smaller LoRA's share.
#
# ### Exercise 3: the merged weight
#
# *Hint: r is the number of rows of A; `@` multiplies matrices. Mind the order.*


# %%
def my_merged(w, a, b, alpha):
    """W + alpha / r · B A."""
    ### BEGIN SOLUTION
    return w + alpha / len(a) * (b @ a)
    ### END SOLUTION


# %%
check_merged(my_merged)

# %% [markdown]
# B starts at zero, so before the first step the model with LoRA *is* the base model.
# (For the same reason, the reference for the KL term costs no memory: the model with LoRA turned off is the base.)
# The next cell merges A and B of one layer of the loaded policy, by hand and with the library:

# %%
layer = next(m for n, m in policy.peft_model.named_modules() if n.endswith("layers.0.mlp.down_proj"))
a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
with torch.no_grad():
    print("B at the start:", b.abs().max().item())
    # as if it had learned something
    b += 0.01 * torch.randn(b.shape, generator=torch.Generator().manual_seed(0))
    by_hand = read_back + layer.scaling["default"] * (b @ a)
    policy.changed()
    merged = dict(policy.computing().named_parameters())["model.layers.0.mlp.down_proj.weight"]
    assert torch.allclose(merged, by_hand, atol=1e-6)
    b.zero_()
    policy.changed()
learn = sum(p.numel() for p in policy.trainable())
base = sum(p.numel() for p in exact_policy.peft_model.parameters() if not p.requires_grad)
print(f"{learn:,} LoRA weights learn; the {base:,} of the base do not")

# %% [markdown]
# ## What can go wrong: half precision
#
# A GPU computes in 16 bit, and there are two formats.
# **float16** has fine steps and a small range: values above 65,504 become infinite, and values below 6e-8 become zero.
# **bfloat16** has the range of float32, but coarse steps.
# Predict each row before you run the cell.

# %%
rows = []
for kind in (torch.float16, torch.bfloat16, torch.float32):
    large, small = torch.tensor(70_000.0, dtype=kind), torch.tensor(1e-8, dtype=kind)
    weight, step = torch.tensor(1.0, dtype=kind), torch.tensor(0.001, dtype=kind)  # a typical step
    sums = f"{large.item():.0f}", f"{small.item():.0e}", f"{(weight + step).item():.4f}"
    rows.append((str(kind).removeprefix("torch."), *sums))
course.table(("format", "70000", "1e-8", "1 + 0.001"), rows)

# %% [markdown]
# In bfloat16, a step of 0.001 on a weight of 1 *is lost*: the model trains for hours and does not change.
# So LoRA's weights and Adam's numbers stay in float32, whatever the base computes in.
# A T4 has no bfloat16 units (PyTorch reports support because it emulates them), so there the base computes in float16.
#
# ## On a GPU
#
# The next cell makes one update of a model from the Hugging Face hub.
# It loads the model in 4 bit, samples blueprints, pretends that half of them were good, and learns from that.
# The model has never seen a blueprint, so none of its blueprints is valid.
# Here only memory and time matter.
# The same function runs with the shipped model on a CPU.

# %%
import time

from himac_lite import coevolution
from himac_lite.config import TRAIN_PRESETS


def one_step(path):
    """Load, write 8 blueprints for each of two levels, learn from a made-up credit; print its cost."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    begun, mine = time.monotonic(), load_policy(resolve_model(path))
    loaded = time.monotonic()
    groups = Arena(mine, task).blueprints(levels[:2], 8, Sampling(1.0, np.random.default_rng(0)))
    written = time.monotonic()
    credited = [
        [coevolution.Credited(sequence, (-1.0) ** i) for i, (sequence, _) in enumerate(group, 1)]
        for group in groups
    ]
    optimizer = torch.optim.AdamW(mine.trainable(), lr=2e-4)
    settings, rng = TRAIN_PRESETS["colab"].update, np.random.default_rng(0)
    found = coevolution.learn(mine, optimizer, credited, settings, 1.0, rng)
    learnt = time.monotonic()
    valid = sum(not blueprint.invalid for group in groups for _, blueprint in group)
    print(f"{path} on {mine.device}: {valid} of 16 blueprints valid, gradient {found['grad_norm']:.3f}")
    print(f"load {loaded - begun:.1f} s, write {written - loaded:.1f} s,", end=" ")
    print(f"learn {learnt - written:.1f} s")
    if torch.cuda.is_available():
        print(f"at most {torch.cuda.max_memory_allocated() / 1e9:.2f} GB on the GPU")


one_step("sokoban-base")

# %%
if torch.cuda.is_available():
    for name in ("Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen3-0.6B"):
        try:
            one_step(name)
        except himac_lite.HimacError as error:  # no network, or a name that has moved
            print(error)
else:
    print("No CUDA device here. This cell would load Qwen2.5-0.5B and Qwen3-0.6B in 4 bit, write")
    print("16 blueprints with each, make one update of their LoRA weights, and print how much GPU")
    print("memory and how many seconds that took.")

# %% [markdown]
# Compare the memory with your own arithmetic.
# What is the rest?
# (It is the KV cache of 16 rollouts, and the activations that the forward pass keeps for the backward pass.)
# To train such a model, first teach it to write blueprints; the command is `himac-lite train --preset colab`.
#
# ## To discuss
#
# 1. One outlier in a block of 64 makes the scale large. What happens to the other 63 weights?
# 2. The base is never updated in 4 bit. Why not simply train the 4-bit weights?
# 3. Planner and executor share one LoRA adapter. What would two adapters cost, in memory and in what the roles can share?
# 4. A rollout generates thousands of tokens for one update. What would you improve first: faster kernels or fewer tokens?
