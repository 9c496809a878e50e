"""Decoding at fixed shapes and addresses, so that a GPU can replay a step as a CUDA graph.

A decoding step launches thousands of short kernels, and the GPU waits for Python. A CUDA graph launches them at once,
but only for the shapes and addresses of its recording. Therefore keys and values stay in one *room*, a buffer [rows,
heads, tokens, width] per layer. A step of B rows and N tokens uses its corner [:B, :, :N] with transformers'
`StaticLayer`. B and N are powers of two, so there are few shapes; unused rows and tokens are masked. The first step of
a shape runs as usual, which warms up the kernels, and the second is recorded.

Prompts are read by a growing cache, whose keys and values are copied into the room.

`torch.compile(mode="reduce-overhead")` would also give graphs, but it takes a minute per shape for a billion
parameters, and it would have to trace 4-bit kernels and LoRA layers. A recording costs one forward pass.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, StaticLayer

from himac_lite.errors import first_line
from himac_lite.policy.decoding import DecodingContext, Growing, attention_of, left_padded

Run = Callable[[], torch.Tensor]
"""Computes one step on the inputs in place: logits [B, V]."""
Capture = Callable[[Run], Run]
"""A step → a faster equivalent. It must not run the step, which would write into the cache."""

LEAST_ROWS = 8
"""Smallest number of rows of a batch, since one read of the weights serves all rows."""
LEAST_TOKENS = 64
"""Smallest number of tokens of a corner."""
WIDEST = 64
"""Largest number of tokens per row of a recorded step; wider steps keep the GPU busy without a graph."""
SHAPES = 64
"""Number of recorded steps to keep; the least recently used one is dropped."""
PREFILL = 16_384
"""Tokens of one forward pass over prompts, padding included; bounds its activations."""


def power_of_two(n: int, least: int) -> int:
    """The smallest power of two that is at least n and at least `least`, a power of two."""
    return max(least, 1 << (n - 1).bit_length())


def rounded(n: int) -> int:
    """n rounded up to three significant binary digits, at most 25 % more: 9 → 10, 17 → 20, 1025 → 1280."""
    step = 1 << max(0, n.bit_length() - 3)
    return -(-n // step) * step


class Room:
    """Keys and values [R, H, N, D] of each layer, and the mask of written tokens, int64 [R, N]."""

    def __init__(self) -> None:
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []
        self.mask = torch.empty(0, 0)
        self.used = torch.empty(0)
        """Written tokens in each layer, int64 [layers], on the device, where recorded steps increase it."""

    def make(self, cache: Any) -> None:
        """Adopt the number, shapes and dtype of a cache's layers, once."""
        if not self.keys:
            self.keys = [layer.keys[:0, :, :0] for layer in cache.layers]
            self.values = [layer.values[:0, :, :0] for layer in cache.layers]
            self.mask = torch.zeros(0, 0, dtype=torch.int64, device=self.keys[0].device)
            self.used = torch.zeros(len(self.keys), dtype=torch.int64, device=self.keys[0].device)

    @property
    def tokens(self) -> int:
        return self.mask.shape[1]

    def extend(self, rows: int, tokens: int) -> bool:
        """Grow to at least this size and keep the contents. Returns whether the buffers moved."""
        rows, tokens = max(rows, self.mask.shape[0]), max(tokens, self.tokens)
        if (rows, tokens) == tuple(self.mask.shape):
            return False
        for buffers in (self.keys, self.values):
            for i, old in enumerate(buffers):  # one at a time, so that the memory is never doubled
                # Zeros, because a masked value is multiplied by 0, and 0 · nan is nan.
                buffers[i] = old.new_zeros(rows, old.shape[1], tokens, old.shape[3])
                buffers[i][: old.shape[0], :, : old.shape[2]] = old
        mask = self.mask.new_zeros(rows, tokens)
        mask[: self.mask.shape[0], : self.tokens] = self.mask
        self.mask = mask
        return True


class _Corner(StaticLayer):
    """A static cache layer inside a room."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, used: torch.Tensor) -> None:
        super().__init__(max_cache_len=keys.shape[2])
        self.keys, self.values, self.cumulative_length = keys, values, used
        self.dtype, self.device, self.batch_size = keys.dtype, keys.device, keys.shape[0]
        self.is_initialized = True


class Step:
    """The forward pass of one shape. Its inputs are ids and positions, int64 [B, T], and the room."""

    def __init__(self, model: Any, room: Room, rows: int, tokens: int, width: int) -> None:
        self.model = model
        self.ids, self.positions = room.mask.new_zeros(rows, width), room.mask.new_zeros(rows, width)
        self.mask = room.mask[:rows, :tokens]
        layers = zip(room.keys, room.values, room.used, strict=True)
        self.cache = Cache(layers=[_Corner(k[:rows, :, :tokens], v[:rows, :, :tokens], n) for k, v, n in layers])
        self.calls = 0
        self.recorded: Run | None = None

    def run(self) -> torch.Tensor:
        written: Any = self.cache.layers[0]
        columns = written.cumulative_length + torch.arange(self.ids.shape[1], device=self.ids.device)
        out = self.model(
            input_ids=self.ids, attention_mask=attention_of(self.model, self.mask, columns),
            position_ids=self.positions, past_key_values=self.cache, use_cache=True, logits_to_keep=1,
        )  # fmt: skip
        logits: torch.Tensor = out.logits[:, -1].float()
        return logits


class StaticDecoding:
    """The room and the recorded steps of one model, for one batch at a time."""

    def __init__(self, capture: Capture | None = None) -> None:
        """capture: records a step (`CudaGraphs` on a GPU); None: never record."""
        self.capture, self.room, self.refused = capture, Room(), ""
        self._steps: dict[tuple[Any, ...], Step] = {}
        self._places: list[int] = []

    def context(self, model: Any, pad_id: int, adapter: str = "") -> DecodingContext:
        """The empty context of a batch; `Growing` if the model does not support static shapes.

        adapter: name of the adapter in use; each has its own recorded steps.
        """
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        if not self.refused and not getattr(base, "_can_compile_fullgraph", False):
            self.refuse(f"transformers does not say that {type(base).__name__} can be compiled")
        if self.refused:
            return Growing(model, pad_id)
        places = [p.data_ptr() for p in model.parameters()]  # recorded steps refer to addresses
        if places != self._places:
            self._places = places
            self._steps.clear()
        return StaticRows(self, model, pad_id, adapter)

    def refuse(self, reason: str) -> None:
        """Stop using static decoding, with one warning."""
        self.refused = reason
        warnings.warn(f"decoding continues without CUDA graphs: {self.refused}", RuntimeWarning, stacklevel=3)

    def extend(self, rows: int, tokens: int) -> None:
        if self.room.extend(rows, tokens):
            self._steps.clear()

    def step(self, model: Any, adapter: str, rows: int, tokens: int, width: int) -> Step:
        key = (adapter, rows, tokens, width)
        step = self._steps.pop(key, None) or Step(model, self.room, rows, tokens, width)
        if width <= WIDEST:
            self._steps[key] = step  # last: most recently used
            if len(self._steps) > SHAPES:
                del self._steps[next(iter(self._steps))]
        return step

    def compute(self, step: Step) -> torch.Tensor:
        """Logits [B, V] of a step whose inputs are in place, valid until the next step."""
        step.calls += 1
        if step.calls == 2 and self.capture is not None and not self.refused:
            try:
                step.recorded = self.capture(step.run)
            except Exception as error:  # models fail to record in many ways
                self.refuse(first_line(error))
        return step.run() if step.recorded is None else step.recorded()


class StaticRows:
    """The `DecodingContext` of one batch in the room."""

    def __init__(self, owner: StaticDecoding, model: Any, pad_id: int, adapter: str) -> None:
        self.owner, self.model, self.pad_id, self.adapter = owner, model, pad_id, adapter
        self.slots = self.rows = self.used = 0
        self.lengths = torch.empty(0)
        """Tokens of each row without padding, int64 [B]."""

    def read(self, prompts: Sequence[Sequence[int]], pick: torch.Tensor) -> torch.Tensor:
        room, self.slots, self.used = self.owner.room, len(pick), max(map(len, prompts))
        self.rows = power_of_two(self.slots, LEAST_ROWS)
        at_a_time, parts = max(1, PREFILL // self.used), []
        for start in range(0, len(prompts), at_a_time):
            part = Growing(self.model, self.pad_id)
            some = prompts[start : start + at_a_time]
            parts.append(part.read(some, torch.arange(len(some))))
            if start == 0:
                room.make(part.cache)
                self.owner.extend(self.rows, rounded(self.used + WIDEST))
                room.mask[: self.rows] = 0
            mine = ((pick >= start) & (pick < start + at_a_time)).nonzero().squeeze(1)
            mine, prompt = mine.to(part.device), (pick[mine] - start).to(part.device)
            columns = slice(self.used - part.mask.shape[1], self.used)  # all prompts end in the same column
            room.mask[mine, columns] = part.mask[prompt]
            layers: Any = part.cache.layers
            for keys, values, layer in zip(room.keys, room.values, layers, strict=True):
                keys[mine, :, columns] = layer.keys[prompt]
                values[mine, :, columns] = layer.values[prompt]
        room.mask[self.slots : self.rows, self.used - 1] = 1  # unused rows, because attention to nothing is nan
        room.used.fill_(self.used)
        self.lengths = room.mask[: self.rows, : self.used].sum(1)
        return torch.cat(parts)[pick.to(room.mask.device)]

    def go_on(self, feeds: Sequence[Sequence[int] | None]) -> torch.Tensor:
        width, room = rounded(max(len(feed or ()) for feed in feeds)), self.owner.room
        self.owner.extend(self.rows, rounded(self.used + width))
        tokens = min(power_of_two(self.used + width, LEAST_TOKENS), room.tokens)
        step = self.owner.step(self.model, self.adapter, self.rows, tokens, width)
        fed = [[self.pad_id] if feed is None else feed for feed in feeds] + [[self.pad_id]] * (self.rows - self.slots)
        ids, new = left_padded(fed, self.pad_id, room.mask.device, width)
        room.mask[: self.rows, self.used : self.used + width] = new
        step.ids.copy_(ids)
        step.positions.copy_((self.lengths[:, None] + new.cumsum(1) - 1).clamp_min(0))
        self.lengths += new.sum(1)
        self.used += width
        return self.owner.compute(step)[: self.slots]

    def worth_dropping(self, running: int) -> bool:
        return power_of_two(running, LEAST_ROWS) < self.rows

    def keep(self, slots: torch.Tensor) -> None:
        room, n = self.owner.room, len(slots)
        slots = slots.to(room.mask.device)
        for buffer in (*room.keys, *room.values):
            buffer[:n, :, : self.used] = buffer[slots, :, : self.used]
        room.mask[:n, : self.used] = room.mask[slots, : self.used]
        self.slots, self.rows = n, power_of_two(n, LEAST_ROWS)
        self.lengths[:n] = self.lengths[slots]
        self.lengths = self.lengths[: self.rows]


class CudaGraphs:
    """Records steps as CUDA graphs in one shared pool of memory; they are replayed one at a time."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, run: Run) -> Run:
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        # Other threads of a notebook's kernel may use the GPU during the recording.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            logits = run()

        def replay() -> torch.Tensor:
            graph.replay()
            return logits

        return replay
