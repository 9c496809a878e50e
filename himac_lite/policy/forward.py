"""The forward pass of an update over packed sequences: each prompt once, logits only where a token was chosen.

In Sokoban nearly every generated token is a choice. In a task in words most are what was observed: of a thousand tokens
of a flat episode forty are chosen, and a vocabulary's width of logits for each of the others would cost as much as the
model itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import DynamicLayer

from himac_lite.policy.decoding import RowCache, left_padded

SHORT = 0.25
"""A prompt that is shorter than this share of what follows it is not worth sharing: attention to a cache takes a mask,
and with a mask the half of all pairs that lies in the future is computed, too."""


def logits_after(
    model: Any, prompts: Sequence[tuple[int, ...]], target: torch.Tensor, chosen: torch.Tensor, pad_id: int
) -> torch.Tensor:
    """Logits [B, K, V], float32, that predict ``target[:, chosen]``; every different prompt is encoded once.

    prompts: B of token ids. target: int64 [B, T], what follows them, padded on the right. chosen: int64 [K], ascending.
    """
    if len({len(p) for p in prompts}) == 1 and len(prompts[0]) <= SHORT * target.shape[1]:
        return logits_at_once(model, prompts, target, chosen, pad_id)
    unique: dict[tuple[int, ...], int] = {}
    pick = torch.tensor([unique.setdefault(p, len(unique)) for p in prompts], device=target.device)
    ids, mask = left_padded(list(unique), pad_id, target.device)
    cache = RowCache(layer_class_to_replicate=DynamicLayer)
    first = _forward(model, ids, mask, cache, 1)[pick]  # [B, 1, V]: predicts the first generated token
    first, later = first[:, : int((chosen == 0).sum())], chosen[chosen > 0] - 1
    if not len(later):
        return first
    cache.batch_select_indices(pick)
    fed = target[:, :-1]  # padding on the right is harmless: attention is causal
    rest = _forward(model, fed, torch.cat([mask[pick], torch.ones_like(fed)], 1), cache, later)
    return torch.cat([first, rest], 1)


def logits_at_once(
    model: Any, prompts: Sequence[tuple[int, ...]], target: torch.Tensor, chosen: torch.Tensor, pad_id: int
) -> torch.Tensor:
    """The same in one pass without a cache."""
    ids, mask = left_padded(list(prompts), pad_id, target.device)
    fed = target[:, :-1]
    ids, mask = torch.cat([ids, fed], 1), torch.cat([mask, torch.ones_like(fed)], 1)
    return _forward(model, ids, mask, None, ids.shape[1] - target.shape[1] + chosen)


def _forward(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, cache: RowCache | None, keep: int | torch.Tensor
) -> torch.Tensor:
    """Logits [B, K, V] after the last K of `ids`, or at these places of it; `mask` covers the cache and `ids`."""
    positions = (mask.cumsum(1) - 1).clamp_min(0)[:, -ids.shape[1] :]
    logits: torch.Tensor = model(
        input_ids=ids, attention_mask=None if bool(mask.all()) else mask, position_ids=positions,
        past_key_values=cache, use_cache=cache is not None, logits_to_keep=keep,
    ).logits.float()  # fmt: skip
    return logits
