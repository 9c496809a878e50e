"""The forward pass of an update: equal prompts are encoded once, and only sampled tokens get logits.

In a text-action task most generated tokens are observations: of 1,000 tokens of a flat episode about 40 are sampled.
Logits for the others would cost as much as the rest of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import DynamicLayer

from himac_lite.policy.decoding import RowCache, left_padded, logits_of

SHORT = 0.25
"""Prompts shorter than this share of the generated part are not shared. Attention to a cache needs a mask, and with a
mask it also computes the pairs in the future."""


def logits_after(
    model: Any, prompts: Sequence[tuple[int, ...]], target: torch.Tensor, chosen: torch.Tensor, pad_id: int
) -> torch.Tensor:
    """Logits float32 [B, K, V] that predict ``target[:, chosen]``; equal prompts are encoded once.

    prompts: B lists of token ids. target: int64 [B, T], the generated part, padded on the right. chosen: int64 [K],
    ascending.
    """
    if len({len(p) for p in prompts}) == 1 and len(prompts[0]) <= SHORT * target.shape[1]:
        return logits_at_once(model, prompts, target, chosen, pad_id)
    unique: dict[tuple[int, ...], int] = {}
    pick = torch.tensor([unique.setdefault(p, len(unique)) for p in prompts], device=target.device)
    ids, mask = left_padded(list(unique), pad_id, target.device)
    cache = RowCache(layer_class_to_replicate=DynamicLayer)
    first = logits_of(model, ids, mask, cache)[pick]  # [B, 1, V], predicts the first generated token
    first, later = first[:, : int((chosen == 0).sum())], chosen[chosen > 0] - 1
    if not len(later):
        return first
    cache.batch_select_indices(pick)
    fed = target[:, :-1]  # padding on the right is harmless: attention is causal
    rest = logits_of(model, fed, torch.cat([mask[pick], torch.ones_like(fed)], 1), cache, later)
    return torch.cat([first, rest], 1)


def logits_at_once(
    model: Any, prompts: Sequence[tuple[int, ...]], target: torch.Tensor, chosen: torch.Tensor, pad_id: int
) -> torch.Tensor:
    """As `logits_after`, in one pass without a cache."""
    ids, mask = left_padded(list(prompts), pad_id, target.device)
    fed = target[:, :-1]
    ids, mask = torch.cat([ids, fed], 1), torch.cat([mask, torch.ones_like(fed)], 1)
    return logits_of(model, ids, mask, None, ids.shape[1] - target.shape[1] + chosen)
