# %% [markdown]
# # 4 bit and LoRA: a model in your pocket
#
# [Open in
# Colab](https://colab.research.google.com/github/himac-lite/himac-lite/blob/main/notebooks/07_four_bit_and_lora.ipynb)
# · [Open on Binder](https://mybinder.org/v2/gh/himac-lite/himac-lite/main?labpath=notebooks/07_four_bit_and_lora.ipynb)
#
# **The question.** A model of half a billion weights takes 2 GB in ordinary numbers, and training it in the ordinary
# way takes four times that. How can it learn on one small GPU, and what is lost?
#
# Everything up to the last section runs on a CPU. The last section wants a GPU with CUDA (on Colab: *Runtime, Change
# runtime type, T4*); without one it says what it would have done.

# %%
import sys

if "google.colab" in sys.modules:
    # %pip install -q "himac-lite[qlora] @ git+https://github.com/himac-lite/himac-lite"
    print("himac-lite is installed")

# %% [markdown]
# ## One weight in 4 bit, by hand
#
# With 4 bit one can name 16 values. NF4 takes 16 between −1 and 1 that are dense where weights are: near zero. A
# **block** of 64 weights shares one scale, its largest absolute value. Toy: weights 0.02, −0.05, 0.03. The scale is
# 0.05; divided by it: 0.4, −1, 0.6; the nearest codes: 0.44, −1, 0.56; back: 0.022, −0.05, 0.028. That is all.

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
# `weights` [n], `codes` the allowed values between −1 and 1. Return the weights as they are read back. *Hint: scale,
# nearest code (`np.abs(x[:, None] - codes).argmin(axis=1)`), scale back.*


# %%
def my_quantise(weights, codes):
    """Each weight by its nearest code, in units of the largest absolute value."""
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
# The shipped model, once in full precision and once in NF4. We read one matrix of it back (bitsandbytes does that on a
# CPU too), and do the same by hand, block by block.

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
# The codes stand close together where most weights are. What if they were evenly spaced? The same by hand:

# %%
even = np.linspace(-1, 1, 16)
by_even = even[np.abs((blocks / scales)[..., None] - even).argmin(-1)] * scales
for name, values in (("NF4", by_hand), ("even codes", by_even)):
    print(f"{name:10} mean error of a weight {np.abs(values - blocks).mean():.4f}")

# %% [markdown]
# ## Does it still play?
#
# Every weight is a little wrong (you just saw how much). What does the *model* say? We ask both for the
# log-probabilities of the same blueprints.

# %%
import himac_lite
from himac_lite.rollout.play import sample_blueprints
from himac_lite.tasks.sokoban.task import SokobanTask
from himac_lite.types import Sampling

task = SokobanTask()
levels = himac_lite.load_levels("core/validation")[: 2 if course.FAST else 16]
plans = sample_blueprints(policy, task, levels, 4, Sampling(1.0, np.random.default_rng(0)))
sequences = [sequence for group in plans for sequence, _ in group]
with torch.no_grad():
    four, full = policy.log_probs(sequences, None), exact_policy.log_probs(sequences, None)
difference = (four.logp - full.logp)[four.mask].abs()
print(f"{difference.numel()} blueprint tokens:", end=" ")
print(f"log-probabilities differ by {difference.mean():.3f} on average")
print(f"probability of the typical token: {four.logp[four.mask].mean().exp():.3f} in 4 bit, ", end="")
print(f"{full.logp[four.mask].mean().exp():.3f} in full precision")

# %% [markdown]
# ## The arithmetic of memory
#
# By hand, for 64 weights: 64 × 4 bit = 32 bytes, and one scale in float32, 4 bytes. So 36 bytes for 64 weights, 4.5
# bit each.
#
# ### Exercise 2: bytes
#
# How many bytes do so many `weights` take, if every `block` of them shares a float32 scale? *Hint: a byte has 8 bit.*


# %%
def my_nf4_bytes(weights, block):
    """Bytes of the codes and of the scales."""
    ### BEGIN SOLUTION
    return weights / 2 + 4 * weights / block
    ### END SOLUTION


# %%
check_nf4_bytes(my_nf4_bytes)

# %% [markdown]
# Training needs more than weights: a gradient for each weight that learns, and Adam keeps two numbers for it. If all
# weights learn, that is 4 + 4 + 8 = 16 bytes a weight in float32. With LoRA only a few percent of them learn. (What
# the forward pass keeps for the backward pass comes on top: it grows with the tokens of a micro-batch.)

# %%
sizes = {"0.5 billion": 0.5e9, "1.5 billion": 1.5e9, "7 billion": 7e9}
learning = 0.02  # LoRA of rank 16 on all linear layers: roughly two percent of the weights
ways = {
    "all weights, float32 and Adam": [16 * n / 1e9 for n in sizes.values()],
    "half precision base + LoRA": [(2 * n + 16 * learning * n) / 1e9 for n in sizes.values()],
    "NF4 base + LoRA": [(4.5 / 8 * n + 16 * learning * n) / 1e9 for n in sizes.values()],
}
for name, gigabytes in ways.items():
    each = (f"{size}: {g:6.1f} GB" for size, g in zip(sizes, gigabytes, strict=True))
    print(f"{name:32}", "   ".join(each))
picture = course.bars(list(sizes), ways, "weights of the model", "GB (logarithmic)")
picture.update_yaxes(type="log", dtick=1)
picture.add_hline(y=15, line={"dash": "dot", "color": plots.TEXT})
# On a logarithmic axis words stand at the logarithm.
where = {"x": 0, "xref": "paper", "y": np.log10(15), "yanchor": "bottom"}
picture.add_annotation(text="a T4: 15 GB", showarrow=False, **where)

# %% [markdown]
# ## LoRA: learn a thin product
#
# The base W [out, in] never changes. Two small matrices learn, A [r, in] and B [out, r], and the layer computes with
# W + (alpha / r) B A. By hand for out = in = 128 and r = 16: W has 16,384 weights, A and B together 4,096. For 4,096 ×
# 4,096 it is 131,072 of 16.8 million, less than one percent: the larger the model, the thinner LoRA.
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
# B starts at zero, so before the first step the model with LoRA *is* the base. (That is why turning LoRA off gives the
# reference for the KL for free.) Here A and B of one layer of the loaded policy, merged by hand and by the library:

# %%
layer = next(m for n, m in policy.peft_model.named_modules() if n.endswith("layers.0.mlp.down_proj"))
a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
with torch.no_grad():
    print("B at the start:", b.abs().max().item())
    # as if it had learnt something
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
# A GPU computes in 16 bit. There are two kinds. **float16** has fine steps and a small range: what is larger than
# 65,504 becomes infinite, what is smaller than 6e-8 becomes zero. **bfloat16** has the range of float32 and coarse
# steps. Predict each line before you run it.

# %%
for kind in (torch.float16, torch.bfloat16, torch.float32):
    large, small = torch.tensor(70_000.0, dtype=kind), torch.tensor(1e-8, dtype=kind)
    weight, step = torch.tensor(1.0, dtype=kind), torch.tensor(0.001, dtype=kind)  # a typical step
    print(f"{str(kind)[6:]:9} 70000 → {large.item():8.0f}   1e-8 → {small.item():.0e}", end="   ")
    print(f"1 + 0.001 → {(weight + step).item():.4f}")

# %% [markdown]
# In bfloat16 a step of 0.001 on a weight of 1 *is lost*: the model trains for hours and does not move. So LoRA's
# weights and Adam's numbers stay in float32, whatever the base computes in. And a T4 has no bfloat16 units (PyTorch
# says it has: it emulates them), so there one computes in float16.
#
# ## On a GPU
#
# One step with a model from a hub: load it in 4 bit, let it write blueprints, pretend that half of them were good, and
# learn from that. It has never seen a blueprint, so it writes none that is valid. That is not the point here: look at
# the memory and the seconds. The same function runs with the shipped model on a CPU.

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
    groups = sample_blueprints(mine, task, levels[:2], 8, Sampling(1.0, np.random.default_rng(0)))
    written = time.monotonic()
    credited = [
        [coevolution.Credited(sequence, (-1.0) ** i) for i, (sequence, _) in enumerate(group, 1)]
        for group in groups
    ]
    optimizer = torch.optim.AdamW(mine.trainable(), lr=2e-4)
    settings, rng = TRAIN_PRESETS["colab"].update, np.random.default_rng(0)
    found = coevolution.learn(mine, task, optimizer, credited, settings, 1.0, rng)
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
# Compare the figure with your own arithmetic. What is the rest? (The KV cache of 16 rollouts, and what the forward
# pass keeps for the backward pass.) To train such a model, teach it to write blueprints first; `himac-lite train
# --preset colab` is the command.
#
# ## To discuss
#
# 1. One outlier in a block of 64 makes the scale large. What happens to the other 63 weights?
# 2. The base is never updated in 4 bit. Why not simply train the 4-bit weights?
# 3. The planner and the executor share one LoRA. What would two cost, in memory and in what they can share?
# 4. A rollout generates thousands of tokens for one update. Where should the time go into: faster kernels or fewer
#    tokens?
