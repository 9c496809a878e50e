"""Speed of rollouts and updates with Qwen2.5 architectures in 4 bit and random weights, on this device.

Speed does not depend on skill, so no download is needed. The weights are drawn, saved, and loaded like any checkpoint.
Prompts are those of instruct models (chat template, plain language), with a tokenizer trained on the spot. Random
actions rarely solve a level, so nearly all episodes reach the step limit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from himac_lite.bench import Figure, machine, measure, memory_since, ratio, start_memory
from himac_lite.bench.loop import generate_each_turn
from himac_lite.coevolution import adapt
from himac_lite.hierarchy.credit import credit_actions
from himac_lite.policy.decoding import left_padded
from himac_lite.policy.loading import load_policy
from himac_lite.policy.memory import measured_peak, shape_of
from himac_lite.policy.model import Policy
from himac_lite.policy.static_decoding import StaticDecoding
from himac_lite.policy.update import learn
from himac_lite.pretraining.tokenizers import build_text_tokenizer
from himac_lite.rollout.play import Arena
from himac_lite.settings import Update
from himac_lite.tasks import Task
from himac_lite.tasks.sokoban.instructions import words
from himac_lite.tasks.sokoban.levels import load_levels
from himac_lite.tasks.sokoban.rules import board_from_level
from himac_lite.tasks.sokoban.task import SokobanTask
from himac_lite.types import Level, Role, Sampling

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The chat format of Qwen's models."""


@dataclass(frozen=True)
class Size:
    """One architecture: hidden and inner width, layers, query heads, key heads, vocabulary size."""

    name: str
    hidden: int
    inner: int
    layers: int
    heads: int
    key_heads: int = 2
    vocabulary: int = 151_936


@dataclass(frozen=True)
class Load:
    """The workload: levels × group episodes of `steps` steps, and as many answers of `answer` tokens."""

    levels: int = 8
    group: int = 8
    steps: int = 20
    answer: int = 64


SIZES = (Size("Qwen2.5-0.5B", 896, 4864, 24, 14), Size("Qwen2.5-1.5B", 1536, 8960, 28, 12))
TINY = Size("Qwen2.5 of 2 layers", 64, 128, 2, 4, vocabulary=1024)
"""For tests and `--quick`."""


def config_of(size: Size, **ids: Any) -> Any:
    from transformers import Qwen2Config

    return Qwen2Config(
        vocab_size=size.vocabulary, hidden_size=size.hidden, intermediate_size=size.inner,
        num_hidden_layers=size.layers, num_attention_heads=size.heads, num_key_value_heads=size.key_heads,
        max_position_embeddings=4096, tie_word_embeddings=True, bos_token_id=None, **ids,
    )  # fmt: skip


def make_policy(size: Size) -> Policy:
    """A policy in 4 bit with fresh LoRA and activation checkpointing, as in the presets of hub models."""
    from transformers import AutoModelForCausalLM

    boards = [board_from_level(level) for level in load_levels("core/train")[:64]]
    said = [words(role, board) for board in boards for role in (Role.PLANNER, Role.FLAT)]
    tokenizer = build_text_tokenizer((f"{w.rules}\n{w.situation}\n" for w in said), 900)
    tokenizer.add_special_tokens({"eos_token": "<|im_end|>", "additional_special_tokens": ["<|im_start|>"]})
    tokenizer.chat_template = CHATML
    config = config_of(size, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder, torch.random.fork_rng():
        torch.manual_seed(0)
        with _device():
            AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return load_policy(folder, checkpointing=True)


def rollouts(size: Size, runs: int, load: Load = Load()) -> list[Figure]:
    """Episodes and free answers per second with CUDA graphs, with a growing cache and by `generate()`, with memory.

    On a CPU the steps have the same fixed shapes, but no graphs.
    """
    policy, task = make_policy(size), SokobanTask(max_steps=load.steps)
    levels = load_levels("core/validation")[: load.levels]
    jobs = [level for level in levels for _ in range(load.group)]
    prompts = [policy.prompt(task.start(level), Role.FLAT) for level in jobs]
    static, graphs = policy.static or StaticDecoding(), "CUDA graphs" if torch.cuda.is_available() else "static cache"

    def with_cache(cache: StaticDecoding | None, work: Callable[..., float]) -> Callable[[], float]:
        def run() -> float:
            policy.static = cache
            return work(policy, task, jobs, load)

        return run

    def loop() -> float:
        return float(len(generate_each_turn(policy, task, jobs)))

    def one_call() -> float:
        return answers_by_generate(policy, prompts, load.answer)

    name, told = size.name, f"{len(jobs)} episodes of {load.steps} steps, prompts of {len(prompts[0])} tokens"
    out = [_weights(size, policy)]
    kinds: tuple[tuple[str, str, Callable[..., float], Callable[[], float], str], ...] = (
        ("episodes", "episodes/s", episodes, loop, "every turn"),
        ("answers", "tokens/s", answers, one_call, f"once, {load.answer} tokens"),
    )
    for what, unit, ours, theirs, how in kinds:
        # The growing cache comes first, because the static cache is never freed.
        grown, grown_memory = _with_peak(f"{name}, {what}: growing cache", unit, with_cache(None, ours), runs, told)
        peer, peer_memory = _with_peak(f"{name}, {what}: generate() {how}", unit, theirs, max(1, runs // 2))
        fixed, fixed_memory = _with_peak(f"{name}, {what}: {graphs}", unit, with_cache(static, ours), runs)
        out += [fixed, fixed_memory, grown, grown_memory, peer, peer_memory]
        out += [ratio(f"{name}, {what}: {graphs} / growing", fixed, grown)]
        out += [ratio(f"{name}, {what}: {graphs} / generate()", fixed, peer)]
        if static.refused:
            out.append(Figure(f"{name}: CUDA graphs", "", float("nan"), note=f"refused: {static.refused}"[:160]))
        static = StaticDecoding(static.capture)
        policy.static = None
    return out


def updates(size: Size, runs: int, load: Load = Load()) -> list[Figure]:
    """Tokens per second of an update of flat episodes, its share of the device's matrix-product speed, peak memory.

    FLOPs are 8 N per token, with N the weights of the linear layers: forward, recomputed forward, backward through
    frozen weights, and the reference. Attention, logits and LoRA are not counted.
    """
    policy, task = make_policy(size), SokobanTask(max_steps=load.steps)
    levels, rng = load_levels("core/validation")[: load.levels], np.random.default_rng(0)
    groups = adapt(Arena(policy, task, sampling=Sampling(1.0, rng)), levels, load.group)
    credited = credit_actions(groups, rng.standard_normal((load.levels, load.group)))
    tokens = float(sum(len(item.sequence.ids) for group in credited for item in group))
    optimizer, settings = torch.optim.AdamW(policy.trainable(), lr=0.0), replace(Update(), epochs=1, lr=0.0)
    policy.static = None

    def update() -> float:
        learn(policy, optimizer, credited, settings, 1.0, np.random.default_rng(0))
        return tokens

    updated, memory = _with_peak(f"{size.name}, update", "tokens/s", update, runs, "prompts of all rows counted")
    dtype = torch.float32 if policy.twin else policy.peft_model.get_base_model().dtype
    products = measure(f"{size.name}, matrix products", "GFLOP/s", lambda: _multiply(policy.device, dtype, size), runs)
    flops = 8.0 * shape_of(config_of(size)).linear * updated.value
    share = Figure(f"{size.name}, update: share of the products", "%", 100 * flops / 1e9 / products.value)
    return [updated, memory, products, share]


def episodes(policy: Policy, task: Task, jobs: Sequence[Level], load: Load) -> float:
    return float(len(Arena(policy, task).play_flat(jobs, Sampling(1.0, np.random.default_rng(0)))))


def answers(policy: Policy, task: Task, jobs: Sequence[Level], load: Load) -> float:
    """Sample free text after each prompt, as for blueprints; returns the number of sampled tokens."""
    prompts = [policy.prompt(task.start(level), Role.FLAT) for level in jobs]
    streams = policy.decode(
        prompts, lambda row, token: [], allowed=None, sampling=Sampling(1.0, np.random.default_rng(0)),
        max_sampled=load.answer,
    )  # fmt: skip
    return float(sum(len(s.ids) for s in streams))


def answers_by_generate(policy: Policy, prompts: Sequence[Sequence[int]], length: int) -> float:
    """The same by one call of `model.generate`, which encodes every copy of a prompt and keeps its own cache."""
    ids, mask = left_padded(prompts, policy.tokenizer.pad_token_id, policy.device)
    torch.manual_seed(0)
    with torch.inference_mode():
        model: Any = policy.computing()
        out = model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=length, min_new_tokens=length, do_sample=True, top_k=0,
            pad_token_id=policy.tokenizer.pad_token_id,
        )  # fmt: skip
    return float(out[:, ids.shape[1] :].numel())


def here() -> str:
    """`machine`, with the GPU if there is one."""
    if not torch.cuda.is_available():
        return machine()
    total = torch.cuda.get_device_properties(0).total_memory / 2**30
    return f"{machine()}, {torch.cuda.get_device_name(0)} ({total:.0f} GB), PyTorch {torch.__version__}"


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _weights(size: Size, policy: Policy) -> Figure:
    """Bytes of all parameters in memory: NF4 without its scales (one eighth more), other weights as loaded, LoRA."""
    held, shape = sum(p.nbytes for p in policy.peft_model.parameters()), shape_of(config_of(size))
    dense = (shape.linear + shape.rest) * 2 / 1e6
    return Figure(f"{size.name}: weights in 4 bit and LoRA", "MB", held / 1e6, note=f"{dense:,.2f} MB in 16 bit")


def _with_peak(name: str, unit: str, run: Callable[[], float], runs: int, note: str = "") -> tuple[Figure, Figure]:
    """A measured figure and the peak memory during it: of the GPU, or of the process if there is no GPU."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    start_memory()
    figure = measure(name, unit, run, runs, note)
    if torch.cuda.is_available():
        return figure, Figure(f"{name}: peak memory", "MB", measured_peak(_device()) / 1e6, note="of the GPU")
    return figure, replace(memory_since(f"{name}: peak memory"), note="of the process")


def _multiply(device: torch.device, dtype: torch.dtype, size: Size) -> float:
    """Multiply [2048, hidden]·[hidden, inner] and back for half a second; returns GFLOP."""
    x = torch.randn(2048, size.hidden, device=device, dtype=dtype)
    w = torch.randn(size.hidden, size.inner, device=device, dtype=dtype)
    v, count, begun = w.T.contiguous(), 0, time.perf_counter()
    while time.perf_counter() - begun < 0.5:
        for _ in range(8):
            (x @ w) @ v
        if device.type == "cuda":
            torch.cuda.synchronize()
        count += 8
    return 4.0 * 2048 * size.hidden * size.inner * count / 1e9
