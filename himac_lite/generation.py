"""Batched generation over any Hugging Face causal LM, for conversations that go on in the cache.

An agent's segment is action, observation, action …: after every sampled token the environment may force tokens (the
rest of a multi-token action, what was observed) that belong in the context but were not chosen by the model. `decode`
continues in the KV cache, encodes each different prompt once, drops finished rows from the batch, and records the
log-probability of every token at the temperature and under the constraint that it was sampled with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

React = Callable[[int, int], "list[int] | None"]
"""(row, sampled token) → tokens forced after it (may be empty), or None if the row is finished."""

_SHRINK = 0.75
"""Finished rows are dropped when fewer than this share of the batch is still running."""


@dataclass
class Stream:
    """What one row generated after its prompt: ids, which of them were sampled, their log-probabilities (else 0)."""

    ids: list[int] = field(default_factory=list)
    sampled: list[bool] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)


class _GrowingLayer(DynamicLayer):
    """A cache layer that doubles its room instead of copying everything at every token."""

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self.room: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states, value_states
            return self.keys, self.values
        used, new = self.keys.shape[2], key_states.shape[2]
        if self.room is None or used + new > self.room[0].shape[2]:
            shape = [*self.keys.shape[:2], used + max(new, 32), self.keys.shape[3]]
            room = (self.keys.new_empty(shape), self.values.new_empty(shape))
            room[0][:, :, :used], room[1][:, :, :used] = self.keys, self.values
            self.room = room
        self.room[0][:, :, used : used + new] = key_states
        self.room[1][:, :, used : used + new] = value_states
        self.keys, self.values = self.room[0][:, :, : used + new], self.room[1][:, :, : used + new]
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        super().batch_select_indices(indices)
        self.room = None


@torch.inference_mode()
def decode(
    model: Any,
    prompts: Sequence[Sequence[int]],
    react: React,
    *,
    pad_id: int,
    allowed: torch.Tensor | None = None,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
    max_sampled: int = 64,
    max_rows: int = 512,
) -> list[Stream]:
    """Sample one continuation per prompt; `temperature` 0 is greedy.

    prompts: token ids, of any lengths; equal ones are encoded once. allowed: int64 [A] ids that may be sampled (all by
    default). max_sampled: sampled tokens after which a row stops. max_rows: rows decoded at a time.
    """
    streams = [Stream() for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))  # similar lengths together: little padding
    for start in range(0, len(order), max_rows):
        _decode_rows(
            model, [(i, tuple(prompts[i])) for i in order[start : start + max_rows]], streams, react,
            pad_id, allowed, temperature, generator, max_sampled,
        )  # fmt: skip
    return streams


def _decode_rows(
    model: Any, rows: list[tuple[int, tuple[int, ...]]], streams: list[Stream], react: React, pad_id: int,
    allowed: torch.Tensor | None, temperature: float, generator: torch.Generator | None, max_sampled: int,
) -> None:  # fmt: skip
    device = next(model.parameters()).device
    unique: dict[tuple[int, ...], int] = {}
    which = [unique.setdefault(prompt, len(unique)) for _, prompt in rows]
    live = [i for i, _ in rows]
    cache = Cache(layer_class_to_replicate=_GrowingLayer)
    ids, mask = left_padded(list(unique), pad_id, device)
    hidden_logits = _forward(model, ids, mask, cache)
    pick = torch.tensor(which, device=device)
    if len(unique) < len(rows):
        cache.batch_select_indices(pick)
    logits, mask = hidden_logits[pick], mask[pick]
    running = torch.ones(len(live), dtype=torch.bool)
    for number in range(max_sampled):
        tokens, logps = sample(logits, allowed, temperature, generator)
        feeds: list[list[int]] = []
        for slot, (row, token, logp) in enumerate(zip(live, tokens.tolist(), logps.tolist(), strict=True)):
            forced: list[int] | None = None
            if running[slot]:
                stream = streams[row]
                stream.ids.append(token)
                stream.sampled.append(True)
                stream.logp.append(logp)
                forced = react(row, token)
                if forced is None:
                    running[slot] = False
                else:
                    stream.ids += forced
                    stream.sampled += [False] * len(forced)
                    stream.logp += [0.0] * len(forced)
            feeds.append([token, *(forced or ())])
        if not running.any() or number == max_sampled - 1:
            return
        if running.float().mean() < _SHRINK:
            keep = running.nonzero().squeeze(1)
            cache.batch_select_indices(keep.to(device))
            mask = mask[keep.to(device)]
            live = [live[i] for i in keep.tolist()]
            feeds = [feeds[i] for i in keep.tolist()]
            running = running[keep]
        ids, new = left_padded(feeds, pad_id, device)
        mask = torch.cat([mask, new], dim=1)
        logits = _forward(model, ids, mask, cache)


def left_padded(rows: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows → (ids [B, T], mask [B, T]), padded on the left."""
    width = max(map(len, rows))
    ids = torch.tensor([[pad_id] * (width - len(r)) + list(r) for r in rows], device=device)
    mask = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows], device=device)
    return ids, mask


def _forward(model: Any, ids: torch.Tensor, mask: torch.Tensor, cache: Cache) -> torch.Tensor:
    """Logits [B, V] after the last of `ids`, in float32. `mask` covers the cache and `ids`."""
    positions = (mask.cumsum(1) - 1).clamp_min(0)[:, -ids.shape[1] :]
    # With nothing padded the mask is only the causal one, and attention is faster without an explicit one.
    given = None if bool(mask.all()) else mask
    out = model(
        input_ids=ids, attention_mask=given, position_ids=positions, past_key_values=cache, use_cache=True,
        logits_to_keep=1,
    )  # fmt: skip
    logits: torch.Tensor = out.logits[:, -1].float()
    return logits


def sample(
    logits: torch.Tensor, allowed: torch.Tensor | None, temperature: float, generator: torch.Generator | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """One token a row of logits [B, V] and its log-probability under the constraint; temperature 0 takes the best.

    The log-probability of a greedy token is the one at temperature 1: it is recorded for display, not trained on.
    """
    if allowed is not None:
        logits = logits[:, allowed]
    logp = torch.log_softmax(logits / (temperature or 1.0), -1)
    if temperature == 0:
        choice = logp.argmax(-1, keepdim=True)
    else:
        choice = torch.multinomial(logp.exp().cpu(), 1, generator=generator).to(logp.device)
    chosen = logp.gather(1, choice).squeeze(1)
    token = choice.squeeze(1)
    return (token if allowed is None else allowed[token]), chosen
