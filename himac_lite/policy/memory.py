"""An estimate of a run's memory from the architecture, before any weight is loaded, and the micro-batch that fits.

It counts weights, the KV cache of rollouts, the activations of one micro-batch, and the optimizer with the gradient. It
omits the CUDA context (about half a gigabyte) and fragmentation. Activations are those of a Llama-like block (RMS
norms, grouped-query attention, gated MLP) in PyTorch; other architectures differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from himac_lite.errors import ModelError, first_line
from himac_lite.policy.adapter import adapter_settings
from himac_lite.policy.conv1d import as_linear
from himac_lite.policy.decoding import ROWS
from himac_lite.policy.distributed import device as own_device
from himac_lite.policy.exactness import learned_positions
from himac_lite.policy.loading import auto_class, compute_dtype, read_model
from himac_lite.policy.parallel import cores
from himac_lite.policy.products import precision_here
from himac_lite.policy.prompts import Speech
from himac_lite.policy.static_decoding import LEAST_ROWS, power_of_two, rounded
from himac_lite.settings import BFLOAT16, DEFAULT_TOKENS, Train
from himac_lite.types import Role, SubGoal

NF4_BYTES = 0.5 + 4 / 64
"""Bytes per weight in NF4: 4 bits, and a float32 scale per block of 64."""
_KEEP_FREE = 0.9
"""Usable share of the free memory; the rest is for everything that is not counted."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a model.

    linear: weights of all linear layers except the output layer. rest: all other parameters.
    lora_per_rank: Σ (inputs + outputs) over the linear layers. layers, hidden, inner, vocab: as in the config.
    query, key: width of all query heads, and of all key heads. positions: of a learned embedding; 0: no limit.
    """

    linear: int
    rest: int
    lora_per_rank: int
    layers: int
    hidden: int
    inner: int
    vocab: int
    query: int
    key: int
    positions: int = 0


@dataclass(frozen=True)
class Tokens:
    """Lengths in tokens. prompt, answer: of the longest sequence; plan: of the longest blueprint."""

    prompt: int
    answer: int
    plan: int

    @property
    def sequence(self) -> int:
        return self.prompt + self.answer


@dataclass(frozen=True)
class Estimate:
    """Bytes of each part for micro-batches of `micro_tokens` tokens. held: the cache stays allocated in updates."""

    weights: int
    cache: int
    activations: int
    optimizer: int
    micro_tokens: int
    held: bool = False

    @property
    def total(self) -> int:
        """Largest number of bytes at a time."""
        both = self.cache + self.activations if self.held else max(self.cache, self.activations)
        return self.weights + self.optimizer + both

    def line(self) -> str:
        return (
            f"memory, an estimate: at most {gigabytes(self.total)} (weights {gigabytes(self.weights)}, KV cache of "
            f"rollouts {gigabytes(self.cache)}, activations {gigabytes(self.activations)} for micro-batches of "
            f"{self.micro_tokens} tokens, optimizer {gigabytes(self.optimizer)})"
        )


def gigabytes(n: float) -> str:
    return f"{n / 2**30:.2f} GB"


def shape_of(config: Any) -> Shape:
    """The sizes of the model of a transformers config, without allocating it."""
    with torch.device("meta"):
        model = auto_class(config).from_config(config)
    head = model.get_output_embeddings()
    as_linear(model)
    linears = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    linear = sum(m.weight.numel() for m in linears)
    text = config.get_text_config()
    hidden, heads = text.hidden_size, text.num_attention_heads
    wide = getattr(text, "head_dim", None) or hidden // heads
    return Shape(
        linear, sum(p.numel() for p in model.parameters()) - linear,
        sum(m.in_features + m.out_features for m in linears),
        text.num_hidden_layers, hidden, getattr(text, "intermediate_size", None) or 4 * hidden, text.vocab_size,
        heads * wide, (getattr(text, "num_key_value_heads", None) or heads) * wide, learned_positions(model),
    )  # fmt: skip


def tokens_of(speech: Speech, task: Any, levels: Sequence[Any], planner: bool) -> Tokens:
    """The longest sequences of these levels: blueprints and segments, or flat episodes if `planner` is false."""
    plan, prompt, answer = speech.plan_tokens(task), 0, 0
    # The longest action, for a text-action task the longest one allowed, with a long observation.
    spelled = max((len(speech.encode(text, prompt=False)) for text in task.actions), default=0)
    turn = max(spelled, getattr(task, "max_action_tokens", 1)) + len(speech.observed(" blocked (8,8)"))
    goal = SubGoal(task.longest_plan.strip().splitlines()[0]) if getattr(task, "longest_plan", "") else SubGoal("go on")
    kinds: list[tuple[Role, SubGoal | None, int]] = [(Role.FLAT, None, task.max_steps * turn)]
    if planner:
        kinds = [(Role.PLANNER, None, plan), (Role.EXECUTOR, goal, task.subgoal_budget * turn)]
    for level in levels:
        for role, subgoal, length in kinds:
            told = len(speech.prompt(task.start(level), role, subgoal))
            if told + length > prompt + answer:
                prompt, answer = told, length
    return Tokens(prompt, answer, plan if planner else 0)


def estimate(
    shape: Shape, tokens: Tokens, config: Train, dtype: torch.dtype, micro_tokens: int, on_cpu: bool, workers: int = 1
) -> Estimate:
    """The estimate for a model in NF4 (or `dtype`) with LoRA and micro-batches of `micro_tokens` tokens."""
    size, model, rollout = dtype.itemsize, config.model, config.rollout
    lora = model.rank * shape.lora_per_rank
    weights = shape.linear * (NF4_BYTES if model.four_bit else size) + shape.rest * size + 4 * lora
    gradients = 0
    if on_cpu:  # the reference, the twin's own weights, and gradients of merged weights
        weights += 4 * (2 * shape.linear + shape.rest)
        gradients = 4 * shape.linear * (1 + workers)
        if precision_here(model.precision) == BFLOAT16:  # the rounded weights of both
            weights += 2 * 2 * shape.linear
    rows, length = min(rollout.levels * rollout.group, ROWS * workers), tokens.sequence + 32
    static = rollout.static_cache == "on" or (rollout.static_cache == "auto" and not on_cpu)
    if static:
        rows, length = power_of_two(min(rows, ROWS), LEAST_ROWS), rounded(length)
    cache = rows * length * shape.layers * 2 * shape.key * size
    return Estimate(
        int(weights), int(cache), workers * activations(shape, tokens, micro_tokens, size, model.checkpointing, on_cpu),
        4 * 3 * lora + gradients, micro_tokens, static,
    )  # fmt: skip


def activations(shape: Shape, tokens: Tokens, micro_tokens: int, size: int, checkpointing: bool, on_cpu: bool) -> int:
    """Bytes of one micro-batch at the start of its backward pass.

    Per token a block stores the inputs of its two norms and of the layers after them (4 hidden), queries, keys, values
    and two copies of the attention's result (3 query, 2 key), and in the MLP both branches, the gate's activation and
    the product (4 inner). On CUDA LoRA stores the inputs of its 7 layers again in float32. With checkpointing only the
    inputs of the blocks are stored; one block at a time is recomputed, after the logits are freed.
    """
    block = size * (4 * shape.hidden + 3 * shape.query + 2 * shape.key + 4 * shape.inner)
    if not on_cpu:
        block += 4 * (5 * shape.hidden + shape.query + shape.inner)
    answers = micro_tokens * max(tokens.answer, tokens.plan) / tokens.sequence  # only answers have logits
    # In the computing type, in float32, their log-softmax, and two more for the gradient or the entropy.
    logits = shape.vocab * ((0 if size == 4 else size) + 4 * 4)
    if checkpointing:
        inputs = micro_tokens * shape.layers * size * shape.hidden
        return int(inputs + max(micro_tokens * block, answers * logits))
    return int(micro_tokens * shape.layers * block + answers * logits)


def before_loading(path: str, config: Train, task: Any, levels: Sequence[Any], planner: bool) -> Estimate:
    """The estimate of a run from the model's config and tokenizer, without weights.

    If `update.micro_tokens` is 0, the micro-batch is the largest that fits on a GPU, and `DEFAULT_TOKENS` on a CPU.
    Raises ModelError as `load_policy` does.
    """
    model_config, speech = read_model(path, config.model.revision, config.model.observation)
    if config.model.adapter:
        adapter_settings(Path(config.model.adapter))
    try:
        shape = shape_of(model_config)
        if min(shape.linear, shape.layers) < 1:
            raise ValueError("it has no layers")
    except (AttributeError, TypeError, ValueError) as error:  # an architecture that names its sizes in another way
        raise ModelError(f"the sizes of {path!r} cannot be read from its config: {first_line(error)}") from None
    tokens = tokens_of(speech, task, levels[:8], planner)
    speech.longest = shape.positions
    speech.refuse_longer(tokens.sequence)
    if not torch.cuda.is_available():
        micro = config.update.micro_tokens or DEFAULT_TOKENS
        return estimate(shape, tokens, config, torch.float32, micro, on_cpu=True, workers=cores())
    dtype = compute_dtype(torch.cuda.get_device_capability(own_device()))
    if config.update.micro_tokens:
        return estimate(shape, tokens, config, dtype, config.update.micro_tokens, on_cpu=False)
    return fit(shape, tokens, config, dtype, torch.cuda.mem_get_info(own_device())[0])


def measured_peak(device: torch.device) -> int:
    """Peak bytes that PyTorch has allocated on a GPU; 0 on a CPU."""
    return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else 0


def fit(
    shape: Shape, tokens: Tokens, config: Train, dtype: torch.dtype, free: int, *, smallest: int | None = None
) -> Estimate:
    """The estimate for the largest micro-batch that fits `free` bytes, a power of two of at most `DEFAULT_TOKENS`.

    It holds at least one sequence (or `smallest` tokens), even if that does not fit.
    """
    least = smallest or tokens.sequence
    micro = 1 << (least - 1).bit_length()
    best = estimate(shape, tokens, config, dtype, micro, on_cpu=False)
    while micro < DEFAULT_TOKENS:
        micro *= 2
        more = estimate(shape, tokens, config, dtype, micro, on_cpu=False)
        if more.total > _KEEP_FREE * free:
            break
        best = more
    return best
