"""Any causal LM in 4 bit with LoRA as one policy for all roles; `loading` makes it.

The parameters are an NF4 base (`BitsAndBytesConfig`) and a peft LoRA adapter. On CUDA this model also computes. On a
CPU it would dequantise every weight for every token. There a full-precision *merged twin* with
W = dequantise(NF4) + s·B·A computes the same function, and the gradient of W is mapped to A and B. A second copy, the
*reference*, is the dequantised base with the start adapter, if there is one.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from himac_lite.errors import ModelError
from himac_lite.objective import entropy, token_log_probs
from himac_lite.policy.chat import Chat
from himac_lite.policy.decoding import ROWS, DecodingContext, Growing, React, Stream, decode, row_batches
from himac_lite.policy.distributed import ALONE, Team
from himac_lite.policy.forward import logits_after, logits_at_once
from himac_lite.policy.parallel import cores
from himac_lite.policy.pictures import Pictures, Seeing
from himac_lite.policy.products import round_again
from himac_lite.policy.prompts import Speech
from himac_lite.policy.static_decoding import StaticDecoding
from himac_lite.settings import BFLOAT16, FLOAT32
from himac_lite.types import Role, Sampling, TokenSequence

OF_EXECUTOR = "executor"
"""Name of the executor's own adapter; peft saves it in a folder of this name."""


@dataclass
class Policy(Speech):
    """One language model for planner, executor and flat play.

    peft_model: owner of the parameters. twin, reference: the models that compute on a CPU; None on CUDA.
    adapted: name of a twin's weight → the layer with its A and B. adapter: name of the adapter in use (`act_as`).
    static: decoding at fixed shapes; None: the cache grows.
    start: LoRA parameters of the start adapter; None for a fresh one, which changes nothing.
    micro_tokens: tokens per micro-batch that fit in memory; 0: use the setting.
    checkpointing: recompute activations in the backward pass.
    precision: of the twin's and the reference's products (`products`).
    longest: tokens that the model has positions for; 0: no limit. vocabulary: as in `Speech`.
    """

    peft_model: Any
    tokenizer: Any
    twin: Any = None
    reference: Any = None
    adapted: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    adapter: str = "default"
    chat: Chat | None = None
    pictures: Pictures | None = None
    static: StaticDecoding | None = None
    start: list[torch.Tensor] | None = None
    checkpointing: bool = False
    micro_tokens: int = 0
    scaler: Any = field(default_factory=lambda: torch.amp.GradScaler("cpu", enabled=False))
    team: Team = ALONE
    precision: str = FLOAT32
    longest: int = 0
    vocabulary: int = 0
    _stale: bool = True
    _text_cache: dict[str, list[int]] = field(default_factory=dict)
    _lock: Any = field(default_factory=threading.Lock)

    # Generation

    def decode(
        self, prompts: Sequence[Sequence[int]], react: Callable[[int, int], list[int] | None], *,
        allowed: Sequence[int] | None, sampling: Sampling, max_sampled: int, max_rows: int = ROWS,
    ) -> list[Stream]:  # fmt: skip
        """`decoding.decode` with the current weights; each process of a team decodes its share of the rows."""
        if not prompts:
            return []
        # On a CPU processes share whole batches, for the same bits as one process; on CUDA they share prompts.
        rows = self.team.rows(prompts, row_batches(prompts, max_rows) if self.twin is not None else None)
        react = react if not self.longest else self._counted(prompts, react)
        uniform = self.team.numbers(sampling, len(prompts), max_sampled, rows)
        model = self.computing()
        model.eval()
        own = decode(
            model, [prompts[i] for i in rows], lambda row, token: react(rows[row], token),
            pad_id=self.tokenizer.pad_token_id or 0,
            allowed=None if allowed is None else torch.tensor(list(allowed), device=self.device),
            temperature=sampling.temperature, rng=sampling.rng, uniform=uniform, max_sampled=max_sampled,
            max_rows=max_rows, workers=self.workers if self.static is None else 1, context=self._context,
        )  # fmt: skip
        return self.team.whole(rows, own, react)

    def _counted(self, prompts: Sequence[Sequence[int]], react: React) -> React:
        """`react`, with an error when a row is longer than the model's positions."""
        used = [len(prompt) for prompt in prompts]

        def counting(row: int, token: int) -> list[int] | None:
            forced = react(row, token)
            used[row] += 1 + len(forced or ())
            self.refuse_longer(used[row])
            return forced

        self.refuse_longer(max(used))
        return counting

    def refuse_longer(self, tokens: int) -> None:
        """Raise ModelError for a sequence that is longer than the model's positions."""
        if self.longest and tokens > self.longest:
            raise ModelError(
                f"{self.name!r} has positions for {self.longest} tokens, and a sequence is longer: choose smaller "
                "levels, or lower rollout.max_steps and rollout.subgoal_budget"
            )

    def _context(self, model: Any, pad_id: int) -> DecodingContext:
        static = None if self.pictures else self.static  # a picture shifts later positions
        return static.context(model, pad_id, self.adapter) if static else Growing(model, pad_id)

    # Log-probabilities for the update

    def log_probs(
        self, batch: Sequence[TokenSequence], temperature: float = 1.0, reference: bool = False
    ) -> TokenScores:
        """Log-probabilities of the generated part of sequences of one role, with gradient to `leaves`.

        The sequences must share the constraint of sampling, under which they are scored. Equal prompts are encoded
        once, except with `checkpointing`, which excludes a cache.

        reference: score under the reference, without gradient.
        Raises ValueError if the constraints differ.
        """
        allowed = batch[0].allowed
        if any(s.allowed != allowed for s in batch):
            raise ValueError("the sequences of a batch must share one constraint: split the batch by `allowed`")
        self.refuse_longer(max(len(s.ids) for s in batch))
        width = max(len(s.ids) - s.prompt_len for s in batch)
        pad = self.tokenizer.pad_token_id or 0

        def tail(values: Sequence[Any], sequence: TokenSequence, filler: Any) -> list[Any]:
            own = list(values[sequence.prompt_len :])
            return own + [filler] * (width - len(own))

        target = torch.tensor([tail(s.ids, s, pad) for s in batch], device=self.device)  # [B, T]
        mask = torch.tensor([tail(s.action_mask, s, False) for s in batch], device=self.device)
        behaviour = torch.tensor([tail(s.logp, s, 0.0) for s in batch], device=self.device)
        prompts = [s.ids[: s.prompt_len] for s in batch]
        chosen = mask.any(0).nonzero().squeeze(1)  # [K], columns with a sampled token
        with torch.no_grad() if reference else contextlib.nullcontext():
            logits = self._logits(prompts, target, chosen, reference)  # [B, K, V]
            own = target[:, chosen]
            if allowed is not None:
                # Sampling used the constrained softmax. The mask removes forced tokens.
                lookup = torch.zeros(logits.shape[-1], dtype=torch.long, device=self.device)
                choices = torch.tensor(allowed, device=self.device)
                lookup[choices] = torch.arange(len(allowed), device=self.device)
                logits, own = logits[..., choices], lookup[own]
            nothing = torch.zeros_like(behaviour)
            logp = nothing.index_copy(1, chosen, token_log_probs(logits, own, temperature))
        return TokenScores(logp, behaviour, mask, nothing.index_copy(1, chosen, entropy(logits.detach(), temperature)))

    def _logits(
        self, prompts: Sequence[tuple[int, ...]], target: torch.Tensor, chosen: torch.Tensor, reference: bool
    ) -> torch.Tensor:
        """Logits [B, K, V] that predict ``target[:, chosen]`` after each prompt."""
        pad = self.tokenizer.pad_token_id or 0
        if self.checkpointing and not reference:
            model = self.computing()
            model.train()  # transformers recomputes only in train mode; there is no dropout
            return logits_at_once(model, prompts, target, chosen, pad)
        off: Any = contextlib.nullcontext()
        if reference and self.twin is None:
            off = self.peft_model.disable_adapter() if self.start is None else self.as_it_began()
        with off:
            model = self.computing(reference)
            if self.checkpointing:  # in train mode transformers would drop the cache
                model.eval()
            return logits_after(model, prompts, target, chosen, pad)

    # Weights

    def act_as(self, role: Role) -> None:
        """Use the adapter of this role from now on."""
        own = role in (Role.EXECUTOR, Role.DRIVEN) and OF_EXECUTOR in self.peft_model.peft_config
        name = OF_EXECUTOR if own else "default"
        if name != self.adapter:
            self.adapter, self._stale = name, True
            self.peft_model.set_adapter(name)

    @property
    def device(self) -> torch.device:
        return next(self.peft_model.parameters()).device

    def trainable(self) -> list[torch.nn.Parameter]:
        """The LoRA parameters of all adapters, in a fixed order."""
        return [p for _, p in self.named_trainable()]

    def named_trainable(self) -> list[tuple[str, torch.nn.Parameter]]:
        return sorted((n, p) for n, p in self.peft_model.named_parameters() if "lora_" in n)

    def in_use(self) -> list[torch.nn.Parameter]:
        """The LoRA parameters of the adapter in use."""
        return [p for n, p in self.named_trainable() if f".{self.adapter}." in n]

    @property
    def workers(self) -> int:
        """Number of batches in parallel: one per core on a CPU, one on CUDA."""
        return 1 if self.twin is None else cores()

    def leaves(self) -> list[torch.Tensor]:
        """The tensors of a loss's gradient: LoRA parameters on CUDA, merged weights of the twin on a CPU."""
        if self.twin is None:
            return list(self.in_use())
        self.computing()
        return [p for _, p in self._merged_parameters()]

    def pull_back(self, gradients: Sequence[torch.Tensor]) -> None:
        """Add gradients of `leaves` to LoRA's: dA += s·Bᵀ·dW, dB += s·dW·Aᵀ for W = W₀ + s·B·A."""
        if self.twin is None:
            for p, gradient in zip(self.in_use(), gradients, strict=True):
                p.grad = gradient.clone() if p.grad is None else p.grad + gradient
            return
        with torch.no_grad():
            for (name, _), gradient in zip(self._merged_parameters(), gradients, strict=True):
                a, b, s = factors(self.adapted[name], self.adapter)
                for p, own in ((a, s * (b.T @ gradient)), (b, s * (gradient @ a.T))):
                    p.grad = own if p.grad is None else p.grad + own

    def changed(self) -> None:
        """Mark the parameters as updated, so that the twin is merged again before its next use."""
        self._stale = True

    @contextlib.contextmanager
    def as_it_began(self) -> Iterator[None]:
        """Use the initial LoRA parameters inside the block, then restore the current ones."""
        kept = [p.detach().clone() for p in self.trainable()]
        try:
            self._set(self.beginning())
            yield
        finally:
            self._set(kept)

    def beginning(self) -> list[torch.Tensor]:
        """The initial LoRA parameters, in the order of `trainable`; B of a fresh adapter is zero."""
        named = self.named_trainable()
        return self.start or [torch.zeros_like(p) if "lora_B" in name else p.detach() for name, p in named]

    def _set(self, values: Sequence[torch.Tensor]) -> None:
        with torch.no_grad():
            for p, value in zip(self.trainable(), values, strict=True):
                p.copy_(value)
        self.changed()

    def _merged_parameters(self) -> list[tuple[str, torch.nn.Parameter]]:
        return [(n, p) for n, p in self.twin.named_parameters() if n in self.adapted]

    def computing(self, reference: bool = False) -> Any:
        """The model that computes, with current weights."""
        model = self._computing(reference)
        return model if self.pictures is None else Seeing(model, self.pictures)

    def _computing(self, reference: bool) -> Any:
        if self.twin is None:
            return self.peft_model
        if reference:
            return self.reference
        with self._lock, torch.no_grad():
            if self._stale:
                base = dict(self.reference.named_parameters())
                begun = dict(zip([id(p) for p in self.trainable()], self.start or (), strict=False))
                for name, p in self._merged_parameters():
                    a, b, s = factors(self.adapted[name], self.adapter)
                    own = b @ a
                    if begun:  # the reference already contains the start adapter
                        own = own - begun[id(b)] @ begun[id(a)]
                    p.copy_(base[name] + s * own)
                if self.precision == BFLOAT16:
                    round_again(self.twin)
                self._stale = False
        return self.twin


def factors(layer: Any, adapter: str) -> tuple[torch.nn.Parameter, torch.nn.Parameter, float]:
    """A, B and the scale s of an adapted layer."""
    return layer.lora_A[adapter].weight, layer.lora_B[adapter].weight, layer.scaling[adapter]


@dataclass(frozen=True)
class TokenScores:
    """Tensors [B, T] over the generated part of sequences. Columns without a sampled token have logp and entropy 0."""

    logp: torch.Tensor
    behaviour: torch.Tensor
    mask: torch.Tensor
    entropy: torch.Tensor
