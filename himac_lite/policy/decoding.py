"""Batched generation over any Hugging Face causal LM, for conversations that go on in the cache.

An agent's segment is action, observation, action …: after every sampled token the environment may force tokens (the
rest of a multi-token action, what was observed) that belong in the context but were not chosen by the model. `decode`
continues in the KV cache, encodes each different prompt once, drops finished rows from the batch, and records the
log-probability of every token at the temperature and under the constraint that it was sampled with. How the cache is
kept is the business of a `DecodingContext`: `Growing` here, another for GPUs in `static_decoding`.

Every row draws from random numbers of its own, so that what it samples depends neither on which rows share its batch
nor on how many cores there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from transformers.cache_utils import Cache, DynamicLayer

from himac_lite.policy.parallel import map_in_order

React = Callable[[int, int], "list[int] | None"]
"""(row, sampled token) → tokens forced after it (may be empty), or None if the row is finished."""

ROWS = 128
"""Rows of a batch."""
_SHRINK = 0.75
"""Finished rows are dropped when fewer than this share of the batch is still running."""
LONG = 8
"""What a row is to read waits, if it has more tokens, until the others have come as far: in a batch all rows take the
same places in the cache, so a page that one row reads alone is padding, and is computed, in all others."""


@dataclass
class Stream:
    """What one row generated after its prompt: ids, which of them were sampled, their log-probabilities (else 0)."""

    ids: list[int] = field(default_factory=list)
    sampled: list[bool] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)


class DecodingContext(Protocol):
    """What the rows of one batch have read, as keys and values of a model. A slot is a row that is still there.

    Logits [B, V] are float32, one row a slot, of what follows; they are good until the next call.
    """

    def read(self, prompts: Sequence[Sequence[int]], pick: torch.Tensor) -> torch.Tensor:
        """Encode each prompt once; slot b goes on from prompt pick[b] (int64 [B], on the CPU). Returns logits."""
        ...

    def go_on(self, feeds: Sequence[Sequence[int] | None]) -> torch.Tensor:
        """Each slot reads its tokens; one without any waits. None: finished, may read anything. Returns logits."""
        ...

    def worth_dropping(self, running: int) -> bool:
        """Whether the batch becomes cheaper if only so many slots are kept."""
        ...

    def keep(self, slots: torch.Tensor) -> None:
        """Drop all slots but these (int64, ascending, on the CPU)."""
        ...


class RowCache(Cache):
    """A cache whose rows can be picked, with what else belongs to a row.

    shift: int64 [B, 1], added to the positions of what is fed later: pictures take up fewer positions than tokens.
    """

    shift: torch.Tensor | None = None

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        super().batch_select_indices(indices)
        if self.shift is not None:
            self.shift = self.shift[indices]


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


class Growing:
    """A context whose cache is as large as it must be: any number of rows and tokens."""

    def __init__(self, model: Any, pad_id: int) -> None:
        self.model, self.pad_id, self.device = model, pad_id, next(model.parameters()).device
        self.cache, self.mask = RowCache(layer_class_to_replicate=_GrowingLayer), torch.empty(0)

    def read(self, prompts: Sequence[Sequence[int]], pick: torch.Tensor) -> torch.Tensor:
        pick = pick.to(self.device)
        ids, mask = left_padded(prompts, self.pad_id, self.device)
        logits = _forward(self.model, ids, mask, self.cache)
        if len(prompts) < len(pick):
            self.cache.batch_select_indices(pick)
        self.mask = mask[pick]
        return logits[pick]

    def go_on(self, feeds: Sequence[Sequence[int] | None]) -> torch.Tensor:
        # A finished row that is still in the batch is fed anything: were it padded, all rows would need a mask.
        anything = [self.pad_id] * max(len(feed or ()) for feed in feeds)
        ids, new = left_padded([anything if f is None else f for f in feeds], self.pad_id, self.device)
        self.mask = torch.cat([self.mask, new], dim=1)
        return _forward(self.model, ids, self.mask, self.cache)

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
    """Sample one continuation per prompt; `temperature` 0 is greedy.

    prompts: token ids, of any lengths; equal ones are encoded once. allowed: int64 [A] ids that may be sampled (all by
    default). rng: needed unless greedy, or its numbers instead, uniform: float64 [B, max_sampled] in [0, 1).
    max_sampled: sampled tokens after which a row stops. max_rows: rows of a batch.
    workers: batches decoded at a time; `react` is then called from several threads, for one row from one at a time.
    context: (model, pad_id) → the empty context of a batch.
    """
    streams = [Stream() for _ in prompts]
    if temperature and uniform is None:
        if rng is None:
            raise ValueError("sampling at a temperature needs rng, a numpy.random.Generator")
        uniform = rng.random((len(prompts), max_sampled))
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
    """Rows that are decoded together: similar lengths (little padding) and equal prompts (encoded once)."""
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
    written = torch.zeros(len(live), dtype=torch.int64)  # tokens that each row has sampled
    held: list[list[int]] = [[] for _ in live]  # what each row waits to read
    while True:
        number = written.clamp_max(max_sampled - 1)[:, None]  # a finished row may draw any of its numbers
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
        if not any(feeds):  # nobody has anything else to do
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
    """Rows → (ids [B, T], mask [B, T]), padded on the left to the longest, or to `width` if that is more."""
    width = max(width, *map(len, rows))
    ids = torch.tensor([[pad_id] * (width - len(r)) + list(r) for r in rows], device=device)
    mask = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows], device=device)
    return ids, mask


def _forward(model: Any, ids: torch.Tensor, mask: torch.Tensor, cache: RowCache) -> torch.Tensor:
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
    logits: torch.Tensor, allowed: torch.Tensor | None, temperature: float, uniform: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """One token a row of logits [B, V] and its log-probability under the constraint; temperature 0 takes the best.

    uniform: float64 [B] in [0, 1), needed unless greedy: the token is where the cumulative distribution passes it.
    The log-probability of a greedy token is the one at temperature 1: it is recorded for display, not trained on.
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
