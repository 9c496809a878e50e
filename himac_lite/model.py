"""Any causal LM in 4 bit with LoRA, as one policy for both roles.

The parameters live in 4 bit (`BitsAndBytesConfig`, NF4) under a peft LoRA adapter, on a CPU and on CUDA alike. On CUDA
that model also computes. On a CPU decoding through NF4 dequantises every weight at every token, so there a
full-precision *twin* of the same architecture computes with W = dequantise(NF4) + s·B·A: the same function, from the
same parameters (a test holds their log-probabilities together), with gradient to A and B only.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from logging import ERROR, getLogger
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.func import functional_call
from transformers.cache_utils import Cache, DynamicLayer

from himac_lite.errors import ModelError
from himac_lite.generation import Stream, decode, left_padded
from himac_lite.objective import entropy, token_log_probs
from himac_lite.types import Role
from himac_lite.types import Sequence as TokenSequence


class ActionTask(Protocol):
    """The part of a task that fixes which tokens may be sampled."""

    @property
    def actions(self) -> Sequence[str]: ...

    @property
    def sub_done(self) -> str: ...


class SamplingLike(Protocol):
    @property
    def temperature(self) -> float: ...

    @property
    def generator(self) -> torch.Generator | None: ...


@dataclass
class Policy:
    """One language model for planner, executor and flat play.

    `peft_model` owns the parameters (4-bit base, LoRA); `twin` computes on a CPU (None on CUDA).
    """

    peft_model: Any
    tokenizer: Any
    twin: Any = None
    name: str = ""
    _dense: dict[str, torch.Tensor] = field(default_factory=dict)
    _layers: dict[str, Any] = field(default_factory=dict)
    _stale: bool = True
    _text_cache: dict[str, list[int]] = field(default_factory=dict)

    # Text and tokens

    def encode(self, text: str, prompt: bool = True) -> list[int]:
        """Token ids of a prompt or, with `prompt` false, of a piece that continues one."""
        key = f"{prompt:d}{text}"
        if (ids := self._text_cache.get(key)) is None:
            if len(self._text_cache) > 50_000:
                self._text_cache.clear()
            ids = self._text_cache[key] = list(self.tokenizer(text, add_special_tokens=prompt).input_ids)
        return list(ids)

    def text(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids)))

    def token(self, text: str) -> int:
        """The single token of a special text such as `<sub_done>`."""
        ids = self.encode(text, prompt=False)
        if len(ids) != 1 or ids[0] == self.tokenizer.unk_token_id:
            raise ModelError(f"{text!r} is not one token of {self.name}; add it to the tokenizer as a special token")
        return ids[0]

    def action_tokens(self, task: ActionTask) -> dict[int, tuple[int, list[int]]]:
        """First token of each action → (index of the action, its remaining tokens)."""
        out: dict[int, tuple[int, list[int]]] = {}
        for index, action in enumerate(task.actions):
            first, *rest = self.encode(action, prompt=False)
            if first in out:
                raise ModelError(
                    f"actions {task.actions[out[first][0]]!r} and {action!r} begin with the same token of {self.name}"
                )
            out[first] = (index, rest)
        return out

    def allowed(self, task: ActionTask, role: Role) -> torch.Tensor | None:
        """int64 [A]: the ids that this role may sample; None for the planner, who writes freely."""
        if role is Role.PLANNER:
            return None
        ids = list(self.action_tokens(task))
        return torch.tensor(ids if role is Role.FLAT else [*ids, self.token(task.sub_done)])

    # Generation

    def decode(
        self, prompts: Sequence[Sequence[int]], react: Callable[[int, int], list[int] | None], *,
        allowed: Sequence[int] | None, sampling: SamplingLike, max_sampled: int,
    ) -> list[Stream]:  # fmt: skip
        """`generation.decode` with this policy's current weights."""
        if not prompts:
            return []
        model = self.peft_model
        if self.twin is not None:
            self._refresh()
            model = self.twin
        model.eval()
        return decode(
            model, prompts, react, pad_id=self.tokenizer.pad_token_id or 0,
            allowed=None if allowed is None else torch.tensor(list(allowed), device=self.device),
            temperature=sampling.temperature, generator=sampling.generator, max_sampled=max_sampled,
        )  # fmt: skip

    # Log-probabilities for the update

    def log_probs(
        self,
        batch: Sequence[TokenSequence],
        allowed: torch.Tensor | None,
        temperature: float = 1.0,
        reference: bool = False,
    ) -> TokenScores:
        """Log-probabilities of the generated part of packed sequences of one role, with gradient to LoRA.

        allowed: the constraint under which they were sampled. reference: of the base model (LoRA switched off),
        without gradient. Sequences that share a prompt (a group) share its forward and backward pass.
        """
        width = max(len(s.ids) - s.prompt_len for s in batch)
        pad = self.tokenizer.pad_token_id or 0

        def tail(values: Sequence[Any], sequence: TokenSequence, filler: Any) -> list[Any]:
            own = list(values[sequence.prompt_len :])
            return own + [filler] * (width - len(own))

        target = torch.tensor([tail(s.ids, s, pad) for s in batch], device=self.device)  # [B, T]
        mask = torch.tensor([tail(s.action_mask, s, False) for s in batch], device=self.device)
        behaviour = torch.tensor([tail(s.logp, s, 0.0) for s in batch], device=self.device)
        with torch.no_grad() if reference else contextlib.nullcontext():
            logits = self._logits([s.ids[: s.prompt_len] for s in batch], target, reference)  # [B, T, V]
            if allowed is not None:
                # The constrained softmax is the one that was sampled from. Forced tokens are masked out.
                lookup = torch.zeros(logits.shape[-1], dtype=torch.long, device=self.device)
                lookup[allowed] = torch.arange(len(allowed), device=self.device)
                logits, target = logits[..., allowed], lookup[target]
            logp = token_log_probs(logits, target, temperature)
        return TokenScores(logp, behaviour, mask, entropy(logits.detach(), temperature))

    def _logits(self, prompts: Sequence[tuple[int, ...]], target: torch.Tensor, reference: bool) -> torch.Tensor:
        """Logits [B, T, V] that predict `target` [B, T] after each prompt: every different prompt is encoded once."""
        unique: dict[tuple[int, ...], int] = {}
        pick = torch.tensor([unique.setdefault(p, len(unique)) for p in prompts], device=self.device)
        ids, mask = left_padded(list(unique), self.tokenizer.pad_token_id or 0, self.device)
        cache = Cache(layer_class_to_replicate=DynamicLayer)
        with self._computing(reference) as forward:
            first = forward(ids, mask, cache, 1)[pick]  # [B, 1, V]: predicts the first generated token
            if target.shape[1] == 1:
                return first
            cache.batch_select_indices(pick)
            fed = target[:, :-1]  # padding on the right is harmless: attention is causal
            rest = forward(fed, torch.cat([mask[pick], torch.ones_like(fed)], 1), cache, fed.shape[1])
        return torch.cat([first, rest], 1)

    @contextlib.contextmanager
    def _computing(self, reference: bool) -> Iterator[Callable[..., torch.Tensor]]:
        """The forward pass (ids, mask over cache and ids, cache, positions kept) → logits, with this policy's weights."""
        model, weights = self.peft_model, {}
        off = contextlib.nullcontext()
        if self.twin is not None:
            model, weights = self.twin, self._dense if reference else self.merged()
        elif reference:
            off = model.disable_adapter()

        def forward(ids: torch.Tensor, mask: torch.Tensor, cache: Cache, keep: int) -> torch.Tensor:
            positions = (mask.cumsum(1) - 1).clamp_min(0)[:, -ids.shape[1] :]
            inputs = {
                "input_ids": ids, "attention_mask": None if bool(mask.all()) else mask, "position_ids": positions,
                "past_key_values": cache, "use_cache": True, "logits_to_keep": keep,
            }  # fmt: skip
            logits: torch.Tensor = functional_call(model, weights, (), inputs).logits.float()
            return logits

        with off:
            yield forward

    # Weights

    @property
    def device(self) -> torch.device:
        return next(self.peft_model.parameters()).device

    def trainable(self) -> list[torch.nn.Parameter]:
        """The LoRA parameters, in a fixed order."""
        return [p for _, p in self.named_trainable()]

    def named_trainable(self) -> list[tuple[str, torch.nn.Parameter]]:
        return sorted((n, p) for n, p in self.peft_model.named_parameters() if p.requires_grad)

    def changed(self) -> None:
        """Say that the parameters were updated: the twin's weights are merged anew before the next rollout."""
        self._stale = True

    def merged(self) -> dict[str, torch.Tensor]:
        """W = dequantise(NF4) + s·B·A for every adapted layer; differentiable in A and B."""
        out = dict(self._dense)
        for name, layer in self._layers.items():
            a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            out[name] = self._dense[name] + layer.scaling["default"] * (b @ a)
        return out

    def _refresh(self) -> None:
        if self._stale:
            with torch.no_grad():
                weights = self.merged()
                for name, p in self.twin.named_parameters():
                    if name in self._layers:
                        p.copy_(weights[name])
            self._stale = False


@dataclass(frozen=True)
class TokenScores:
    """Aligned arrays [B, T] over the generated part of packed sequences."""

    logp: torch.Tensor
    behaviour: torch.Tensor
    mask: torch.Tensor
    entropy: torch.Tensor


@dataclass(frozen=True)
class LoraSettings:
    """The adapter: rank, scale numerator, initialisation seed."""

    rank: int = 16
    alpha: int = 32
    seed: int = 0


def load_policy(
    path: str, lora: LoraSettings = LoraSettings(), *, adapter: Path | None = None, four_bit: bool = True,
    device: str | None = None,
) -> Policy:  # fmt: skip
    """Load any causal LM (folder or hub id) in NF4 with a LoRA adapter on all its linear layers.

    adapter: a saved adapter to load instead of a fresh one. Raises `ModelError` with the path and what is wrong.
    """
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
    from transformers.utils import logging

    logging.set_verbosity_error()
    if Path(path).is_absolute() or Path(path).exists() or path.startswith("."):  # a folder is meant, not a hub id
        if not (Path(path) / "config.json").is_file():
            raise ModelError(f"{path!r} is no model folder: it has no config.json")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.float32
    if device == "cuda":  # by capability: is_bf16_supported() also says yes to emulation
        dtype = torch.bfloat16 if torch.cuda.get_device_capability()[0] >= 8 else torch.float16
    quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
            base, loaded = AutoModelForCausalLM.from_pretrained(
                path, quantization_config=quantization if four_bit else None, dtype=dtype, device_map={"": device},
                output_loading_info=True,
            )  # fmt: skip
    except Exception as error:  # the library raises many types for a bad path, config or weights file
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"cannot load a causal language model from {path!r}: {reason}") from None
    if loaded["missing_keys"]:  # the library would fill them with random numbers
        raise ModelError(f"the weights of {path!r} are incomplete: {min(loaded['missing_keys'])} is missing")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    base.config.use_cache = True
    if adapter is not None:
        try:
            peft_model = PeftModel.from_pretrained(base, str(adapter), is_trainable=True)
        except Exception as error:
            raise ModelError(f"cannot load the adapter {adapter}: {str(error).strip().splitlines()[0]}") from None
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(lora.seed)
            peft_model = get_peft_model(
                base, LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
            )
    policy = Policy(peft_model, tokenizer, name=path)
    if device == "cpu":
        _make_twin(policy, base.config)
    return policy


def _make_twin(policy: Policy, config: Any) -> None:
    """A float32 model of the same architecture with dequantised weights, for computing on a CPU."""
    from bitsandbytes.functional import dequantize_4bit
    from transformers import AutoModelForCausalLM

    plain = type(config).from_dict({k: v for k, v in config.to_dict().items() if k != "quantization_config"})
    with _quiet():
        twin = AutoModelForCausalLM.from_config(plain, dtype=torch.float32, attn_implementation="sdpa")
    twin.requires_grad_(False).eval()
    modules = dict(policy.peft_model.base_model.model.named_modules())
    dense = {name: p.detach() for name, p in twin.named_parameters()}
    for name, p in twin.named_parameters():
        owner, _, kind = name.rpartition(".")
        source = modules[owner]
        layer = getattr(source, "base_layer", source)
        weight = getattr(layer, kind).detach()
        state = getattr(getattr(layer, kind), "quant_state", None)
        p.copy_(dequantize_4bit(weight, state) if state is not None else weight)
        if hasattr(source, "lora_A") and kind == "weight":
            policy._layers[name] = source
    # The dense base weights are kept apart from the twin's own, which hold the merged ones.
    policy._dense = {name: (p.clone() if name in policy._layers else p) for name, p in dense.items()}
    policy.twin = twin


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars and warnings of the loading libraries; errors come through."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    getLogger("bitsandbytes").setLevel(ERROR)  # it advises on optional kernels
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
