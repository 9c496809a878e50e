"""From a folder or hub id to a `Policy`: the base in NF4, its LoRA adapter, and on a CPU the full-precision twin."""

from __future__ import annotations

import contextlib
import copy
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from logging import ERROR, getLogger
from pathlib import Path
from typing import Any

import torch

from himac_lite import storage
from himac_lite.errors import ModelError
from himac_lite.policy.adapter import adapter_settings
from himac_lite.policy.chat import chat_of
from himac_lite.policy.distributed import ALONE, Team
from himac_lite.policy.distributed import device as own_device
from himac_lite.policy.model import OF_EXECUTOR, Policy, factors
from himac_lite.policy.pictures import Pictures
from himac_lite.policy.static_decoding import CudaGraphs, StaticDecoding
from himac_lite.tasks.registry import WORLDS

PATIENCE = 4.0
"""Seconds for which a connection to the hub is tried again."""


@dataclass(frozen=True)
class LoraSettings:
    """The adapter: rank, scale numerator, initialisation seed; whether the executor has one of its own."""

    rank: int = 16
    alpha: int = 32
    seed: int = 0
    each_role: bool = False


def resolve_model(path: str) -> str:
    """The folder of a shipped model, or of one that `himac-lite pretrain` made here, by its name; or the path itself.

    Raises `ModelError` for a task's base model that is not there.
    """
    for folder in (storage.data_dir() / "models" / path, Path("models") / path):
        if folder.name == path and (folder / "config.json").is_file():  # a name, not a way out of the folder
            return str(folder)
    task = path.removesuffix("-base")
    if task != path and task in WORLDS:
        raise ModelError(
            f"{path} is not here yet: make it by himac-lite pretrain --task {task}, or give --model another"
        )
    return path


def weights_sha256(path: str) -> str:
    """SHA-256 of the weights in a model's folder; for a hub id, whose revision pins its files, that of no bytes."""
    folder = Path(resolve_model(path))
    return storage.sha256(*sorted(folder.glob("*.safetensors")), links=True)


def compute_dtype(capability: tuple[int, int] | None) -> torch.dtype:
    """What a device computes in: float32 on a CPU (None), bfloat16 on a GPU that has it (8.0 and up), else float16.

    By compute capability: `torch.cuda.is_bf16_supported()` also says yes to emulation.
    """
    if capability is None:
        return torch.float32
    return torch.bfloat16 if capability >= (8, 0) else torch.float16


def read_model(path: str, revision: str = "main", observation: str = "text") -> tuple[Any, Policy]:
    """A model's config and its text side (a policy without weights). Raises `ModelError` as `load_policy` does."""
    from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    folder_meant = Path(path).is_absolute() or Path(path).exists() or path.startswith(".")  # and not a hub id
    if folder_meant and not (Path(path) / "config.json").is_file():
        raise ModelError(f"{path!r} is no model folder: it has no config.json")
    if not folder_meant:
        _reach(path, revision)
    try:
        with _quiet():
            config = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False)
            tokenizer = AutoTokenizer.from_pretrained(
                path, padding_side="left", revision=revision, trust_remote_code=False
            )
    except Exception as error:  # the library raises many types for a bad path, config or tokenizer
        raise ModelError(f"cannot load a causal language model from {path!r}: {_line(error)}") from None
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    speech = Policy(None, tokenizer, name=path, chat=chat_of(tokenizer, path))
    if observation == "rgb":
        token = getattr(config, "image_token_id", None)
        if token is None or speech.chat is None:
            raise ModelError(
                f"{path!r} takes no pictures: observation=rgb wants a vision-language model with a template"
            )
        try:
            with _quiet():
                processor = AutoImageProcessor.from_pretrained(path, revision=revision, trust_remote_code=False)
        except Exception as error:
            raise ModelError(f"cannot load an image processor from {path!r}: {_line(error)}") from None
        speech.pictures = Pictures(processor, token)
    return config, speech


def _reach(hub_id: str, revision: str) -> None:
    """Raise `ModelError` if a model has to come from the hub and no connection can be made to it.

    Loading itself would find that out too, after more than half a minute of attempts for one file after another. A hub
    that is only slow, or that answers whatever it answers, is left to it.
    """
    import huggingface_hub as hub
    from huggingface_hub.errors import HfHubHTTPError

    if hub.constants.HF_HUB_OFFLINE:
        return
    begun = time.monotonic()
    while True:
        try:
            if not hub.try_to_load_from_cache(hub_id, "config.json", revision=revision):
                hub.get_hf_file_metadata(hub.hf_hub_url(hub_id, "config.json", revision=revision))
            return
        except (HfHubHTTPError, ValueError):  # an answer, or no hub id: loading says what is wrong
            return
        except Exception as error:  # the types are those of the library's own HTTP client, which has changed
            if "Timeout" in type(error).__name__:
                return
            if time.monotonic() - begun > PATIENCE:
                raise ModelError(
                    f"{hub_id!r} is no folder here, and the hub cannot be reached: {_line(error)}"
                ) from None
            time.sleep(1)


def auto_class(config: Any) -> Any:
    """The class that makes the model of a config: a causal language model, or one that sees."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    return AutoModelForImageTextToText if hasattr(config, "vision_config") else AutoModelForCausalLM


def load_policy(
    path: str, lora: LoraSettings = LoraSettings(), *, adapter: Path | None = None, start: Path | None = None,
    revision: str = "main", observation: str = "text", four_bit: bool = True, checkpointing: bool = False,
    device: str | None = None, team: Team = ALONE, static_cache: str = "auto",
) -> Policy:  # fmt: skip
    """Load any causal LM (folder or hub id) in NF4 with a LoRA adapter on all its linear layers.

    adapter: a saved adapter to load instead of a fresh one. start: the adapter that training began with, if not a
    fresh one: it is part of the reference, and it is loaded if `adapter` is not given. revision: of a hub id.
    observation: ``text``, or ``rgb`` for a vision-language model that is shown the board. checkpointing: compute
    activations again in the backward pass. static_cache: decode at fixed shapes, ``on``, ``off``, or ``auto``: on CUDA.
    Raises `ModelError` with the path and what is wrong.
    """
    getLogger("bitsandbytes").setLevel(ERROR)  # while it is imported it advises on optional kernels
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import BitsAndBytesConfig

    config, policy = read_model(path, revision, observation)
    device = device or own_device()
    on_cpu = device == "cpu"
    dtype = compute_dtype(None if on_cpu else torch.cuda.get_device_capability(device))
    quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    try:
        with _quiet():
            # A pair, which the library's annotation does not know, because of `output_loading_info`.
            pair: Any = auto_class(config).from_pretrained(
                path, quantization_config=quantization if four_bit else None, dtype=dtype, device_map={"": device},
                output_loading_info=True, revision=revision, use_safetensors=True, trust_remote_code=False,
            )  # fmt: skip
            base, loaded = pair
    except Exception as error:  # the library raises many types for a bad path, config or weights file
        raise ModelError(f"cannot load a causal language model from {path!r}: {_line(error)}") from None
    if loaded["missing_keys"]:  # the library would fill them with random numbers
        raise ModelError(f"the weights of {path!r} are incomplete: {min(loaded['missing_keys'])} is missing")
    base.config.use_cache = True
    settings: Any = {"target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    if hasattr(config, "vision_config"):
        settings["exclude_modules"] = r".*(visual|vision).*"  # eyes are not trained

    def saved(folder: Path) -> Any:
        rank, alpha = adapter_settings(folder)
        return LoraConfig(r=rank, lora_alpha=alpha, **settings)

    if begun := adapter or start:
        try:
            with _quiet(FutureWarning):  # a warning of adapter weights that are missing comes through
                peft_model = PeftModel.from_pretrained(base, str(begun), is_trainable=True, config=saved(begun))
                if (begun / OF_EXECUTOR).is_dir():
                    peft_model.add_adapter(OF_EXECUTOR, saved(begun / OF_EXECUTOR))
                    peft_model.load_adapter(str(begun / OF_EXECUTOR), OF_EXECUTOR, is_trainable=True)
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(f"cannot load the adapter {begun}: {_line(error)}") from None
    else:
        with torch.random.fork_rng(devices=[]), _quiet():
            torch.manual_seed(lora.seed)
            fresh = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, **settings)
            peft_model = get_peft_model(base, fresh)
            if lora.each_role:
                peft_model.add_adapter(OF_EXECUTOR, replace(fresh))
    if start is not None and (lora.each_role or OF_EXECUTOR in peft_model.peft_config):
        raise ModelError(f"a variant with an adapter for each role cannot begin with {start}, which both would share")
    policy = replace(policy, peft_model=peft_model, checkpointing=checkpointing, team=team)
    if static_cache == "on" or (static_cache == "auto" and not on_cpu):
        policy.static = StaticDecoding(None if on_cpu else CudaGraphs())
    if start is not None:
        policy.start = _saved(policy, start) if adapter else [p.detach().clone() for p in policy.trainable()]
    if on_cpu:
        _make_twin(policy)
    elif dtype is torch.float16:  # small gradients of activations are zero in it; LoRA's own are float32
        policy.scaler = torch.amp.GradScaler("cuda")
    if checkpointing:
        computes = base if policy.twin is None else policy.twin
        enable = getattr(computes, "activation_checkpointing_enable", computes.gradient_checkpointing_enable)
        enable({"use_reentrant": False})  # the second is the name of older versions of the library
    return policy


def _saved(policy: Policy, folder: Path) -> list[torch.Tensor]:
    """The LoRA parameters of a saved adapter, in the order of `Policy.trainable`."""
    from peft.utils import load_peft_weights

    adapter_settings(folder)  # or peft would unpickle, or ask a hub
    try:
        with _quiet(FutureWarning):
            kept = load_peft_weights(str(folder), device=str(policy.device))
        own = [kept[name.replace(".default.", ".")].to(p.dtype) for name, p in policy.named_trainable()]
    except Exception as error:
        raise ModelError(f"cannot load the adapter {folder}: {_line(error)}") from None
    if any(a.shape != p.shape for a, p in zip(own, policy.trainable(), strict=True)):
        raise ModelError(f"the adapter {folder} has another rank than the run that began with it")
    return own


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def dense_model(policy: Policy, dtype: torch.dtype = torch.float32) -> tuple[Any, dict[str, Any]]:
    """The base with dequantised weights in `dtype` on the CPU; the adapted layer of each weight that LoRA changes."""
    from bitsandbytes.functional import dequantize_4bit

    base = policy.peft_model.base_model.model
    kept = {k: v for k, v in base.config.to_dict().items() if k != "quantization_config"}
    with _quiet():
        plain = type(base.config).from_dict(kept)
        model = auto_class(plain).from_config(plain, dtype=dtype, attn_implementation="sdpa")
    model.requires_grad_(False).eval()
    modules, adapted = dict(base.named_modules()), {}
    for name, p in model.named_parameters():
        owner, _, kind = name.rpartition(".")
        source = modules[owner]
        weight = getattr(getattr(source, "base_layer", source), kind)
        state = getattr(weight, "quant_state", None)
        p.copy_(dequantize_4bit(weight.detach(), state) if state is not None else weight.detach())
        if hasattr(source, "lora_A") and kind == "weight":
            adapted[name] = source
    return model, adapted


def _make_twin(policy: Policy) -> None:
    """Two float32 models of the same architecture with dequantised weights, for computing on a CPU.

    The twin's adapted weights are overwritten by the merged ones; weights that LoRA leaves alone are shared. The
    adapter that training began with is merged into the reference.
    """
    policy.reference, policy.adapted = dense_model(policy)
    policy.twin = copy.deepcopy(policy.reference)
    twin_modules = dict(policy.twin.named_modules())
    begun = dict(zip([id(p) for p in policy.trainable()], policy.start or (), strict=False))
    for name, p in policy.reference.named_parameters():
        owner, _, kind = name.rpartition(".")
        if name in policy.adapted:
            getattr(twin_modules[owner], kind).requires_grad_(True)
            if begun:
                a, b, s = factors(policy.adapted[name], policy.adapter)
                p += s * (begun[id(b)] @ begun[id(a)])
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
