"""A model computes exactly, or it is refused.

Rollouts decode several rows of different lengths in a cache, with padding between the tokens of a row. Updates score
the same tokens in one forward pass. Both must give the same log-probabilities; otherwise the policy gradient is wrong,
and nothing shows it. `refuse_kind` reads the config before anything is loaded. `prove` compares both paths on a few
tokens of the loaded model, so it also covers architectures that nobody has tried.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import torch

from himac_lite.errors import ModelError, first_line
from himac_lite.policy.decoding import Growing
from himac_lite.policy.forward import logits_after, logits_at_once
from himac_lite.policy.model import Policy
from himac_lite.settings import BFLOAT16

NEEDED = {"attention_mask": "attention mask", "past_key_values": "key-value cache", "position_ids": "position ids"}
"""Arguments of a model's forward pass → their names in messages."""
CACHED = {"full_attention", "sliding_attention"}
"""Types of layers whose cache has one key and one value per token."""
NARROW = 3
"""Tokens of a sliding window during the proof, so that a few tokens are enough."""
TOLERANCE, ROUNDED = 1e-3, 0.5
"""Largest difference of log-probabilities in float32, and with rounded products. An error moves them by more: the
tokens of the proof are random, and the window is narrow."""


def refuse_kind(config: Any, model_class: Any, path: str) -> None:
    """Raise ModelError for a config whose model cannot decode with a cache. model_class: the config's, or None."""

    def refuse(reason: str) -> None:
        raise ModelError(f"{path!r} ({config.model_type}) cannot be used: {reason}")

    if model_class is None:
        refuse("it is not a causal language model")
    parameters = inspect.signature(model_class.forward).parameters
    others = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for name, what in NEEDED.items():
        if name not in parameters and not (others and name == "position_ids"):  # Bloom counts them by the mask
            refuse(f"its forward pass takes no {what}")
    text = config.get_text_config()
    if getattr(text, "is_decoder", None) is False and hasattr(text, "add_cross_attention"):
        refuse("it is an encoder, whose tokens also attend to later ones")
    if other := set(getattr(text, "layer_types", None) or ()) - CACHED:
        refuse(f"its layers of type {min(other)!r} have no key and value per token")
    windows = [
        name for name, value in vars(text).items()
        if ("window" in name or "chunk" in name) and type(value) is int and value > 0
        and not any(known in name for known in ("sliding_window", "window_layers", "feed_forward"))
    ]  # fmt: skip
    if windows:
        refuse(f"its local attention ({windows[0]}) is of a kind that is not known here")


def without_dropout(config: Any) -> None:
    """Set every probability of dropout to 0: training forward passes must score what rollouts sampled."""
    for part in {id(c): c for c in (config, config.get_text_config())}.values():
        for name, value in vars(part).items():
            if "drop" in name and type(value) is float:
                setattr(part, name, 0.0)


def learned_positions(model: Any) -> int:
    """The number of positions of a model that has an embedding of positions; 0 for any other."""
    text = model.config.get_text_config()
    most = getattr(text, "max_position_embeddings", None) or 0
    own = model.get_input_embeddings()
    sizes = [m.num_embeddings for m in model.modules() if isinstance(m, torch.nn.Embedding) and m is not own]
    return most if any(most <= size <= most + 4 for size in sizes) else 0


def prove(policy: Policy) -> None:
    """Raise ModelError unless decoding with a cache, an update and one full forward pass agree on a few tokens."""
    kind = policy.peft_model.get_base_model().config.model_type
    try:
        with torch.random.fork_rng(devices=[]), _narrow(policy):
            off = _difference(policy)
    except Exception as error:  # models fail in many ways
        reason = f"its forward pass fails: {first_line(error)}"
        raise ModelError(f"{policy.name!r} ({kind}) cannot be used: {reason}") from None
    exact = policy.twin is not None and policy.precision != BFLOAT16
    if not off <= (TOLERANCE if exact else ROUNDED):  # nan is refused, too
        raise ModelError(
            f"{policy.name!r} ({kind}) cannot be used: log-probabilities of decoding in a batch and of one forward "
            f"pass differ by {off:.2g}"
        )


@contextlib.contextmanager
def _narrow(policy: Policy) -> Iterator[None]:
    """Inside the block a sliding window is short."""
    models = (policy.twin, policy.reference, policy.peft_model.get_base_model())
    configs = {id(c): c for m in models if m is not None for c in (m.config, m.config.get_text_config())}
    wide = {key: c.sliding_window for key, c in configs.items() if getattr(c, "sliding_window", None)}
    try:
        for key in wide:
            configs[key].sliding_window = NARROW
        yield
    finally:
        for key, window in wide.items():
            configs[key].sliding_window = window


@torch.no_grad()
def _difference(policy: Policy) -> float:
    """The largest difference of log-probabilities between the paths."""
    model, pad = policy.computing(), policy.tokenizer.pad_token_id or 0
    vocabulary = model_vocabulary(policy)
    numbers = torch.randint(vocabulary, (18,), generator=torch.Generator().manual_seed(0)).tolist()
    prompts, feeds = [numbers[:6], numbers[6:9], numbers[:6]], [numbers[9:10], numbers[10:14], numbers[14:16]]
    model.eval()
    worst = 0.0

    def compare(found: torch.Tensor, rows: list[list[int]]) -> None:
        nonlocal worst
        for own, row in zip(found, rows, strict=True):
            ids = torch.tensor([row], device=policy.device)
            positions = torch.arange(len(row), device=policy.device)[None]
            full = model(
                input_ids=ids, attention_mask=None, position_ids=positions, past_key_values=None, use_cache=False
            )  # fmt: skip
            off = own.log_softmax(-1) - full.logits[0, -1].float().log_softmax(-1)
            worst = max(worst, float(off.abs().max())) if bool(off.isfinite().all()) else float("nan")

    # Decoding: two rows share a prompt, one prompt is shorter, rows wait for each other, and one is dropped.
    context = Growing(model, pad)
    compare(context.read(prompts[:2], torch.tensor([0, 1, 0])), prompts)
    rows = [p + f for p, f in zip(prompts, feeds, strict=True)]
    compare(context.go_on(feeds), rows)
    context.keep(torch.tensor([0, 1]))
    rows = [rows[0] + numbers[16:17], rows[1] + numbers[16:18]]
    compare(context.go_on([numbers[16:17], numbers[16:18]]), rows)
    # The update: prompts in a cache, and with checkpointing all at once in train mode.
    target = torch.tensor([numbers[9:14], numbers[12:17]], device=policy.device)
    chosen = torch.tensor([0, 4], device=policy.device)
    wanted = [p + t[:k] for p, t in zip(prompts[:2], target.tolist(), strict=True) for k in chosen.tolist()]
    shared = [tuple(p) for p in prompts[:2]]
    compare(logits_after(model, shared, target, chosen, pad).flatten(0, 1), wanted)
    model.train()
    at_once = logits_at_once(model, shared, target, chosen, pad)
    model.eval()
    compare(at_once.flatten(0, 1), wanted)
    return worst


def model_vocabulary(policy: Policy) -> int:
    """The number of token ids that the model knows."""
    return int(policy.peft_model.get_input_embeddings().num_embeddings)
