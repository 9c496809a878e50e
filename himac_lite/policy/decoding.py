"""Batched generation with any Hugging Face causal LM, for segments of alternating actions and observations.

After a sampled token the environment can force tokens: the rest of a multi-token action, or an observation. `decode`
continues in the KV cache, encodes equal prompts once, drops finished rows, and records the behaviour log-prob of every
sampled token. A `DecodingContext` owns the cache: `Growing` here, `StaticRows` for GPUs in `static_decoding`.

Every row has its own random numbers, so its samples depend neither on the batch nor on the number of cores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from transformers.cache_utils import Cache, DynamicLayer

from himac_lite.policy.parallel import map_in_order
from himac_lite.types import Sampling

React = Callable[[int, int], "list[int] | None"]
"""(row, sampled token) → forced tokens after it (may be empty), or None if the row is finished."""

ROWS = 128
"""Rows of a batch."""
_SHRINK = 0.75
"""Finished rows are dropped when less than this share of the batch is running."""
LONG = 8
"""A row with more forced tokens than this waits for the other rows. All rows of a batch occupy the same places in the
cache, so a long observation of one row costs padding in all others."""


@dataclass
class Stream:
    """Tokens of one row after its prompt: ids, whether each was sampled, and log-probabilities (0 if forced)."""

    ids: list[int] = field(default_factory=list)
    sampled: list[bool] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)


class DecodingContext(Protocol):
    """The KV cache of one batch. A slot is a row that was not dropped.

    Returned logits are float32 [B, V], one row per slot, for the next token; they are valid until the next call.
    """

    def read(self, prompts: Sequence[Sequence[int]], pick: torch.Tensor) -> torch.Tensor:
        """Encode each prompt once; slot b continues prompt pick[b] (int64 [B], on the CPU). Returns logits."""

    def go_on(self, feeds: Sequence[Sequence[int] | None]) -> torch.Tensor:
        """Append tokens to each slot; an empty list waits, None marks a finished slot. Returns logits."""

    def worth_dropping(self, running: int) -> bool:
        """Whether the batch becomes cheaper with only this number of slots."""

    def keep(self, slots: torch.Tensor) -> None:
        """Drop all other slots. slots: int64, ascending, on the CPU."""


class RowCache(Cache):
    """A cache with selectable rows.

    shift: int64 [B, 1], added to the positions of later tokens, because a picture has fewer positions than tokens.
    """

    shift: torch.Tensor | None = None

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        super().batch_select_indices(indices)
        if self.shift is not None:
            self.shift = self.shift[indices]


class _GrowingLayer(DynamicLayer):
    """A cache layer that grows in steps instead of copying everything at every token."""

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


class Growing:
    """A context whose cache grows with its tokens."""

    def __init__(self, model: Any, pad_id: int) -> None:
        self.model, self.pad_id, self.device = model, pad_id, next(model.parameters()).device
        self.cache, self.mask = RowCache(layer_class_to_replicate=_GrowingLayer), torch.empty(0)

    def read(self, prompts: Sequence[Sequence[int]], pick: torch.Tensor) -> torch.Tensor:
        pick = pick.to(self.device)
        ids, mask = left_padded(prompts, self.pad_id, self.device)
        logits = logits_of(self.model, ids, mask, self.cache)[:, -1]
        if len(prompts) < len(pick):
            self.cache.batch_select_indices(pick)
        self.mask = mask[pick]
        return logits[pick]

    def go_on(self, feeds: Sequence[Sequence[int] | None]) -> torch.Tensor:
        # A finished row gets a full line of pad tokens: shorter, it would be padded, and all rows would need a mask.
        anything = [self.pad_id] * max(len(feed or ()) for feed in feeds)
        ids, new = left_padded([anything if f is None else f for f in feeds], self.pad_id, self.device)
        self.mask = torch.cat([self.mask, new], dim=1)
        return logits_of(self.model, ids, self.mask, self.cache)[:, -1]

    def worth_dropping(self, running: int) -> bool:
        return running < _SHRINK * len(self.mask)

    def keep(self, slots: torch.Tensor) -> None:
        slots = slots.to(self.device)
        self.cache.batch_select_indices(slots)
        self.mask = self.mask[slots]


def decode(
    model: Any,
    prompts: Sequence[Sequence[int]],
    react: React,
    *,
    pad_id: int,
    allowed: torch.Tensor | None = None,
    temperature: float = 1.0,
    rng: np.random.Generator | None = None,
    uniform: np.ndarray | None = None,
    max_sampled: int = 64,
    max_rows: int = ROWS,
    workers: int = 1,
    context: Callable[[Any, int], DecodingContext] = Growing,
) -> list[Stream]:
    """Sample one continuation per prompt; temperature 0 is greedy.

    prompts: token ids, of any lengths. allowed: int64 [A], ids that may be sampled (all by default).
    rng or uniform: the random numbers unless greedy, uniform as float64 [B, max_sampled] in [0, 1).
    max_sampled: largest number of sampled tokens per row. max_rows: rows per batch.
    workers: batches decoded in parallel; their threads call `react`, one thread per row.
    context: (model, pad_id) → the empty context of a batch.
    Raises ValueError if the random numbers are missing.
    """
    streams = [Stream() for _ in prompts]
    if temperature and uniform is None:
        uniform = Sampling(temperature, rng).generator.random((len(prompts), max_sampled))
    uniform = uniform if temperature else None

    def batch(rows: list[int]) -> None:
        numbers = None if uniform is None else torch.from_numpy(uniform[rows])
        with torch.inference_mode():
            _decode_rows(
                context(model, pad_id), [(i, tuple(prompts[i])) for i in rows], streams, react, allowed, temperature,
                numbers, max_sampled,
            )  # fmt: skip

    for _ in map_in_order(batch, row_batches(prompts, max_rows), workers):
        pass
    return streams


def row_batches(prompts: Sequence[Sequence[int]], max_rows: int = ROWS) -> list[list[int]]:
    """Batches of rows with similar lengths, for little padding, and with equal prompts, which are encoded once."""
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), tuple(prompts[i])))
    return [order[start : start + max_rows] for start in range(0, len(order), max_rows)]


def _decode_rows(
    context: DecodingContext, rows: list[tuple[int, tuple[int, ...]]], streams: list[Stream], react: React,
    allowed: torch.Tensor | None, temperature: float, uniform: torch.Tensor | None, max_sampled: int,
) -> None:  # fmt: skip
    unique: dict[tuple[int, ...], int] = {}
    pick = torch.tensor([unique.setdefault(prompt, len(unique)) for _, prompt in rows])
    live = [i for i, _ in rows]
    logits = context.read(list(unique), pick)
    running = torch.ones(len(live), dtype=torch.bool)
    written = torch.zeros(len(live), dtype=torch.int64)  # sampled tokens of each row
    held: list[list[int]] = [[] for _ in live]  # forced tokens that wait
    while True:
        number = written.clamp_max(max_sampled - 1)[:, None]  # a finished row may use any of its numbers
        drawn = None if uniform is None else uniform.gather(1, number).squeeze(1).to(logits.device)
        tokens, logps = sample(logits, allowed, temperature, drawn)
        feeds: list[list[int] | None] = []
        for slot, (row, token, logp) in enumerate(zip(live, tokens.tolist(), logps.tolist(), strict=True)):
            feeds.append([] if running[slot] else None)
            if running[slot] and not held[slot]:
                forced = react(row, token)
                _extend(streams[row], token, logp, forced or [])
                written[slot] += 1
                running[slot] = forced is not None and int(written[slot]) < max_sampled
                feed = [token, *(forced or [])] if running[slot] else None
                if feed and len(feed) > LONG:
                    held[slot], feed = feed, []
                feeds[slot] = feed
        if not running.any():
            return
        if not any(feeds):  # all running rows wait
            feeds = [held[slot] if running[slot] else None for slot in range(len(live))]
            held = [[] for _ in live]
        if context.worth_dropping(int(running.sum())):
            keep = running.nonzero().squeeze(1)
            context.keep(keep)
            uniform = None if uniform is None else uniform[keep]
            live, held, feeds = ([x[i] for i in keep.tolist()] for x in (live, held, feeds))
            running, written = running[keep], written[keep]
        logits = context.go_on(feeds)


def _extend(stream: Stream, token: int, logp: float, forced: list[int]) -> None:
    stream.ids += [token, *forced]
    stream.sampled += [True, *[False] * len(forced)]
    stream.logp += [logp, *[0.0] * len(forced)]


def left_padded(
    rows: Sequence[Sequence[int]], pad_id: int, device: torch.device, width: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows → ids and mask, int64 [B, T], padded on the left to the longest row and at least to `width`."""
    width = max(width, *map(len, rows))
    ids = torch.tensor([[pad_id] * (width - len(r)) + list(r) for r in rows], device=device)
    mask = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows], device=device)
    return ids, mask


def logits_of(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, cache: RowCache | None, keep: int | torch.Tensor = 1
) -> torch.Tensor:
    """Logits float32 [B, K, V] after the last K of `ids`, or after the ids at these K places.

    ids: int64 [B, T]. mask: int64 [B, cached + T], 0 for padding. keep: K, or the places as int64 [K].
    """
    columns = torch.arange(mask.shape[1] - ids.shape[1], mask.shape[1], device=mask.device)
    logits: torch.Tensor = model(
        input_ids=ids,
        attention_mask=None if bool(mask.all()) else attention_of(model, mask, columns),  # faster without a mask
        position_ids=(mask.cumsum(1) - 1).clamp_min(0)[:, -ids.shape[1] :],
        past_key_values=cache,
        use_cache=cache is not None,
        logits_to_keep=keep,
    ).logits.float()
    return logits


def attention_of(model: Any, mask: torch.Tensor, columns: torch.Tensor) -> Any:
    """The mask of a forward pass over tokens in these columns, in the form that the model needs.

    mask: int64 [B, N], 0 for padding. columns: int64 [T]. Transformers measures a sliding window in columns, but there
    may be padding between the tokens of a row, which would narrow its window. For a model with such a window the masks
    are made here from the tokens' positions, bool or additive [B, 1, T, N].
    """
    config = getattr(model, "config", None)
    text = config.get_text_config() if config is not None else None
    window, kinds = getattr(text, "sliding_window", None), set(getattr(text, "layer_types", None) or ())
    if window is None or mask.shape[1] <= window or (kinds and "sliding_attention" not in kinds):
        return mask
    query, key, place = columns[:, None], torch.arange(mask.shape[1], device=mask.device), mask.cumsum(1)
    near = place[:, columns, None] - place[:, None, :] < window
    before = (key <= query) & (mask[:, None, :] == 1)

    def form(seen: torch.Tensor) -> torch.Tensor:
        seen = (seen | (key == query))[:, None]  # padding attends to itself, because attention to nothing is nan
        if config._attn_implementation == "sdpa":
            return seen
        return torch.zeros(seen.shape, device=seen.device).masked_fill(~seen, torch.finfo(torch.float32).min)

    made = {"full_attention": before, "sliding_attention": before & near}
    return {kind: form(made[kind]) for kind in kinds} if kinds else form(made["sliding_attention"])


def sample(
    logits: torch.Tensor, allowed: torch.Tensor | None, temperature: float, uniform: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """One token per row of logits [B, V], and its log-probability under the constraint; temperature 0 is greedy.

    uniform: float64 [B] in [0, 1) for inverse transform sampling, None if greedy.
    The log-probability of a greedy token is taken at temperature 1; it is for display and never trained.
    """
    if allowed is not None:
        logits = logits[:, allowed]
    logp = torch.log_softmax(logits / (temperature or 1.0), -1)
    if temperature == 0 or uniform is None:
        choice = logp.argmax(-1, keepdim=True)
    else:
        cumulative = logp.double().exp().cumsum(-1)
        passed = uniform[:, None] * cumulative[:, -1:]
        choice = torch.searchsorted(cumulative, passed, right=True).clamp_max(logp.shape[1] - 1)
    chosen = logp.gather(1, choice).squeeze(1)
    token = choice.squeeze(1)
    return (token if allowed is None else allowed[token]), chosen
