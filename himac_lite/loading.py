"""From a folder or hub id to a `Policy`: the base in NF4, its LoRA adapter, and on a CPU the full-precision twin."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from logging import ERROR, getLogger
from pathlib import Path
from typing import Any

import torch

from himac_lite.errors import ModelError
from himac_lite.model import OF_EXECUTOR, Policy
from himac_lite.saving import adapter_settings


@dataclass(frozen=True)
class LoraSettings:
    """The adapter: rank, scale numerator, initialisation seed; whether the executor has one of its own."""

    rank: int = 16
    alpha: int = 32
    seed: int = 0
    each_role: bool = False


def compute_dtype(capability: tuple[int, int] | None) -> torch.dtype:
    """What a device computes in: float32 on a CPU (None), bfloat16 on a GPU that has it (8.0 and up), else float16.

    By compute capability: `torch.cuda.is_bf16_supported()` also says yes to emulation.
    """
    if capability is None:
        return torch.float32
    return torch.bfloat16 if capability >= (8, 0) else torch.float16


def load_policy(
    path: str, lora: LoraSettings = LoraSettings(), *, adapter: Path | None = None, four_bit: bool = True,
    device: str | None = None,
) -> Policy:  # fmt: skip
    """Load any causal LM (folder or hub id) in NF4 with a LoRA adapter on all its linear layers.

    adapter: a saved adapter to load instead of a fresh one. Raises `ModelError` with the path and what is wrong.
    """
    getLogger("bitsandbytes").setLevel(ERROR)  # while it is imported it advises on optional kernels
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
    from transformers.utils import logging

    logging.set_verbosity_error()
    folder_meant = Path(path).is_absolute() or Path(path).exists() or path.startswith(".")  # and not a hub id
    if folder_meant and not (Path(path) / "config.json").is_file():
        raise ModelError(f"{path!r} is no model folder: it has no config.json")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = compute_dtype(torch.cuda.get_device_capability() if device == "cuda" else None)
    quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left", trust_remote_code=False)
            # A pair, which the library's annotation does not know, because of `output_loading_info`.
            pair: Any = AutoModelForCausalLM.from_pretrained(
                path, quantization_config=quantization if four_bit else None, dtype=dtype, device_map={"": device},
                output_loading_info=True, use_safetensors=True, trust_remote_code=False,
            )  # fmt: skip
            base, loaded = pair
    except Exception as error:  # the library raises many types for a bad path, config or weights file
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"cannot load a causal language model from {path!r}: {reason}") from None
    if loaded["missing_keys"]:  # the library would fill them with random numbers
        raise ModelError(f"the weights of {path!r} are incomplete: {min(loaded['missing_keys'])} is missing")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    base.config.use_cache = True
    settings: Any = {"target_modules": "all-linear", "task_type": "CAUSAL_LM"}

    def saved(folder: Path) -> Any:
        rank, alpha = adapter_settings(folder)
        return LoraConfig(r=rank, lora_alpha=alpha, **settings)

    if adapter is not None:
        try:
            with _quiet(FutureWarning):  # a warning of adapter weights that are missing comes through
                peft_model = PeftModel.from_pretrained(base, str(adapter), is_trainable=True, config=saved(adapter))
                if (adapter / OF_EXECUTOR).is_dir():
                    peft_model.add_adapter(OF_EXECUTOR, saved(adapter / OF_EXECUTOR))
                    peft_model.load_adapter(str(adapter / OF_EXECUTOR), OF_EXECUTOR, is_trainable=True)
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(f"cannot load the adapter {adapter}: {str(error).strip().splitlines()[0]}") from None
    else:
        with torch.random.fork_rng(devices=[]), _quiet():
            torch.manual_seed(lora.seed)
            fresh = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, **settings)
            peft_model = get_peft_model(base, fresh)
            if lora.each_role:
                peft_model.add_adapter(OF_EXECUTOR, replace(fresh))
    policy = Policy(peft_model, tokenizer, name=path)
    if device == "cpu":
        _make_twin(policy, base.config)
    return policy


def _make_twin(policy: Policy, config: Any) -> None:
    """Two float32 models of the same architecture with dequantised weights, for computing on a CPU.

    The twin's adapted weights are overwritten by the merged ones; weights that LoRA leaves alone are shared.
    """
    from bitsandbytes.functional import dequantize_4bit
    from transformers import AutoModelForCausalLM

    plain = type(config).from_dict({k: v for k, v in config.to_dict().items() if k != "quantization_config"})
    modules = dict(policy.peft_model.base_model.model.named_modules())

    def make() -> Any:
        with _quiet():
            model = AutoModelForCausalLM.from_config(plain, dtype=torch.float32, attn_implementation="sdpa")
        return model.requires_grad_(False).eval()

    policy.reference, policy.twin = make(), make()
    twin_modules = dict(policy.twin.named_modules())
    for name, p in policy.reference.named_parameters():
        owner, _, kind = name.rpartition(".")
        source = modules[owner]
        layer = getattr(source, "base_layer", source)
        weight = getattr(layer, kind).detach()
        state = getattr(getattr(layer, kind), "quant_state", None)
        p.copy_(dequantize_4bit(weight, state) if state is not None else weight)
        if hasattr(source, "lora_A") and kind == "weight":
            policy.adapted[name] = source
            getattr(twin_modules[owner], kind).requires_grad_(True)
        else:
            setattr(twin_modules[owner], kind, p)
    policy.twin.tie_weights()  # an output layer that is the embedding is that one now


@contextlib.contextmanager
def _quiet(kind: type[Warning] = Warning) -> Iterator[None]:
    """Without the progress bars of the loading libraries and their warnings of this kind; errors come through."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", kind)
        yield
