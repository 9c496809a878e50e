"""Folder or hub id → `Policy`: the base in NF4, its LoRA adapter, and on a CPU the merged twin."""

from __future__ import annotations

import contextlib
import copy
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from himac_lite import storage
from himac_lite.errors import ModelError, first_line
from himac_lite.policy.adapter import adapter_settings, refuse_other_weights
from himac_lite.policy.chat import chat_of
from himac_lite.policy.conv1d import as_linear
from himac_lite.policy.distributed import ALONE, Team
from himac_lite.policy.distributed import device as own_device
from himac_lite.policy.exactness import learned_positions, prove, refuse_kind, without_dropout
from himac_lite.policy.model import OF_EXECUTOR, Policy, factors
from himac_lite.policy.pictures import Pictures
from himac_lite.policy.products import precision_here, round_products
from himac_lite.policy.static_decoding import CudaGraphs, StaticDecoding
from himac_lite.settings import BFLOAT16, FLOAT32
from himac_lite.tasks.registry import WORLDS

TOKENIZER_FILES = ("tokenizer*", "vocab*", "*.model", "*.tiktoken", "tekken*")
PATIENCE = 4.0
"""Seconds of retries for a connection to the hub."""


@dataclass(frozen=True)
class LoraSettings:
    """The adapter: rank, numerator of the scale, seed of its initialisation, and whether the executor has its own."""

    rank: int = 16
    alpha: int = 32
    seed: int = 0
    each_role: bool = False


def resolve_model(path: str) -> str:
    """The folder of a model's name, shipped or made here by `himac-lite pretrain`; otherwise the path itself.

    Raises ModelError for a missing base model of a task.
    """
    for folder in (storage.data_dir() / "models" / path, Path("models") / path):
        if folder.name == path and (folder / "config.json").is_file():  # a name, not a path
            return str(folder)
    task = path.removesuffix("-base")
    if task != path and task in WORLDS:
        raise ModelError(f"{path} is not here yet: run himac-lite pretrain --task {task}, or pass another --model")
    return path


def weights_sha256(path: str) -> str:
    """SHA-256 of the weights in a model's folder; for a hub id, whose revision pins its files, that of no bytes."""
    folder = Path(resolve_model(path))
    return storage.sha256(*sorted(folder.glob("*.safetensors")), links=True)


def compute_dtype(capability: tuple[int, int] | None) -> torch.dtype:
    """float32 on a CPU (None), bfloat16 on a GPU of compute capability 8.0 or more, otherwise float16.

    `torch.cuda.is_bf16_supported()` would also accept emulation.
    """
    if capability is None:
        return torch.float32
    return torch.bfloat16 if capability >= (8, 0) else torch.float16


def read_model(path: str, revision: str = "main", observation: str = "text") -> tuple[Any, Policy]:
    """A model's config and a policy without weights, for its prompts. Raises ModelError as `load_policy` does."""
    from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    folder_meant = Path(path).is_absolute() or Path(path).exists() or path.startswith(".")  # and not a hub id
    if (Path(path) / "adapter_config.json").is_file() and not (Path(path) / "config.json").is_file():
        base = (storage.read_json(Path(path) / "adapter_config.json").get("base_model_name_or_path")) or "its base"
        raise ModelError(f"{path!r} is an adapter and not a model: give the model {base!s:.200}, and --adapter {path}")
    if folder_meant and not (Path(path) / "config.json").is_file():
        raise ModelError(f"{path!r} is not a model folder: it has no config.json")
    if folder_meant and not any(any(Path(path).glob(name)) for name in TOKENIZER_FILES):
        raise ModelError(f"{path!r} has no tokenizer: copy tokenizer.json and tokenizer_config.json of its base there")
    if not folder_meant:
        _reach(path, revision)
    with _reading(f"a causal language model from {path!r}"):
        config = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False)
    refuse_kind(config, auto_class(config)._model_mapping.get(type(config), None), path)
    without_dropout(config)
    with _reading(f"the tokenizer of {path!r}"):
        tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left", revision=revision, trust_remote_code=False)
        tokenizer("a")  # some settings are only read here
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    vocabulary = int(getattr(config.get_text_config(), "vocab_size", 0) or 0)
    speech = Policy(None, tokenizer, name=path, chat=chat_of(tokenizer, path), vocabulary=vocabulary)
    ends = (tokenizer.pad_token_id, tokenizer.eos_token_id, speech.chat.end if speech.chat else None)
    speech.refuse_unknown([i for i in ends if i is not None])
    if observation == "rgb":
        token = getattr(config, "image_token_id", None)
        if token is None or speech.chat is None:
            raise ModelError(
                f"{path!r} takes no pictures: observation=rgb needs a vision-language model with a chat template"
            )
        with _reading(f"an image processor from {path!r}"):
            processor = AutoImageProcessor.from_pretrained(path, revision=revision, trust_remote_code=False)
        speech.pictures = Pictures(processor, token)
    return config, speech


def _reach(hub_id: str, revision: str) -> None:
    """Raise ModelError if a model must be downloaded and the hub cannot be reached.

    Loading alone would fail too, but only after more than 30 seconds of attempts. It handles slow hubs and errors
    that the hub returns.
    """
    import huggingface_hub as hub
    from huggingface_hub.errors import HfHubHTTPError

    if hub.constants.HF_HUB_OFFLINE:
        return
    first_try = time.monotonic()
    while True:
        try:
            if not hub.try_to_load_from_cache(hub_id, "config.json", revision=revision):
                hub.get_hf_file_metadata(hub.hf_hub_url(hub_id, "config.json", revision=revision))
            return
        except (HfHubHTTPError, ValueError):  # an answer, or not a hub id: loading reports it
            return
        except Exception as error:  # the types depend on the library's HTTP client, which has changed
            if "Timeout" in type(error).__name__:
                return
            if time.monotonic() - first_try > PATIENCE:
                reason = first_line(error)
                raise ModelError(f"{hub_id!r} is not a folder, and the hub cannot be reached: {reason}") from None
            time.sleep(1)


def auto_class(config: Any) -> Any:
    """The Auto class for a config: a causal language model, or a vision-language model."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    return AutoModelForImageTextToText if hasattr(config, "vision_config") else AutoModelForCausalLM


def load_policy(
    path: str, lora: LoraSettings = LoraSettings(), *, adapter: Path | None = None, start: Path | None = None,
    revision: str = "main", observation: str = "text", four_bit: bool = True, checkpointing: bool = False,
    device: str | None = None, team: Team = ALONE, static_cache: str = "auto", precision: str = FLOAT32,
) -> Policy:  # fmt: skip
    """Load any causal LM (folder or hub id) in NF4 with a LoRA adapter on all its linear layers.

    adapter: a saved adapter to load instead of a fresh one. start: the start adapter of training, if not fresh; it is
    part of the reference, and it is loaded if `adapter` is None. revision: of a hub id. observation: ``text``, or
    ``rgb`` for a vision-language model. checkpointing: recompute activations in the backward pass. static_cache: decode
    at fixed shapes, ``on``, ``off``, or ``auto`` (only on CUDA). precision: of the products on a CPU, as in
    `settings.Model`.
    Raises ModelError with the path and the reason.
    """
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import BitsAndBytesConfig

    config, policy = read_model(path, revision, observation)
    for folder in filter(None, (adapter, start)):
        adapter_settings(folder)  # before the weights are loaded
    device = device or own_device()
    on_cpu = device == "cpu"
    dtype = compute_dtype(None if on_cpu else torch.cuda.get_device_capability(device))
    quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    with _reading(f"a causal language model from {path!r}"):
        # `output_loading_info` returns a pair, which the library's annotation does not say.
        pair: Any = auto_class(config).from_pretrained(
            path, config=config, quantization_config=quantization if four_bit else None, dtype=dtype,
            device_map={"": device}, output_loading_info=True, revision=revision, use_safetensors=True,
            trust_remote_code=False,
        )  # fmt: skip
        base, loaded = pair
    if loaded["missing_keys"]:  # the library would initialise them at random
        raise ModelError(f"the weights of {path!r} are incomplete: {min(loaded['missing_keys'])} is missing")
    base.config.use_cache = True
    settings: Any = {"target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    if hasattr(config, "vision_config"):
        settings["exclude_modules"] = r".*(visual|vision).*"  # the vision tower is not trained

    def saved(folder: Path) -> Any:
        rank, alpha = adapter_settings(folder)
        return LoraConfig(r=rank, lora_alpha=alpha, **settings)

    if first := adapter or start:
        # Warnings of missing weights are shown. Their B is zero, so they change nothing yet.
        with _reading(f"the adapter {first}", FutureWarning), torch.random.fork_rng(devices=[]):
            torch.manual_seed(lora.seed)
            peft_model = PeftModel.from_pretrained(base, str(first), is_trainable=True, config=saved(first))
            if (first / OF_EXECUTOR).is_dir():
                peft_model.add_adapter(OF_EXECUTOR, saved(first / OF_EXECUTOR))
                peft_model.load_adapter(str(first / OF_EXECUTOR), OF_EXECUTOR, is_trainable=True)
        places = [name.replace(".default.", ".") for name, _ in peft_model.named_parameters() if ".default." in name]
        for folder in filter(None, (adapter, start)):
            refuse_other_weights(folder, places)
    else:
        with torch.random.fork_rng(devices=[]), _reading(f"an adapter for {path!r}"):
            torch.manual_seed(lora.seed)
            fresh = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, **settings)
            peft_model = get_peft_model(base, fresh)
            if lora.each_role:
                peft_model.add_adapter(OF_EXECUTOR, replace(fresh))
    if start is not None and (lora.each_role or OF_EXECUTOR in peft_model.peft_config):
        raise ModelError(
            f"a variant with an adapter for each role cannot start from {start}, which both roles would share"
        )
    policy = replace(policy, peft_model=peft_model, checkpointing=checkpointing, team=team)
    if static_cache == "on" or (static_cache == "auto" and not on_cpu):
        policy.static = StaticDecoding(None if on_cpu else CudaGraphs())
    if start is not None:
        policy.start = _saved(policy, start) if adapter else [p.detach().clone() for p in policy.trainable()]
    if on_cpu:
        policy.precision = precision_here(precision)
        with _reading(f"the weights of {path!r} into memory"):
            _make_twin(policy)
    elif dtype is torch.float16:  # small gradients of activations would underflow
        policy.scaler = torch.amp.GradScaler("cuda")
    if checkpointing:
        computes = base if policy.twin is None else policy.twin
        enable = getattr(computes, "activation_checkpointing_enable", computes.gradient_checkpointing_enable)
        enable({"use_reentrant": False})  # the second name is that of older versions
    policy.longest = learned_positions(policy.peft_model.get_base_model())
    prove(policy)
    return policy


def _saved(policy: Policy, folder: Path) -> list[torch.Tensor]:
    """The LoRA parameters of a saved adapter, in the order of `Policy.trainable`."""
    from peft.utils import load_peft_weights

    adapter_settings(folder)  # rejects folders for which peft would unpickle or ask a hub
    with _reading(f"the adapter {folder}", FutureWarning):
        kept = load_peft_weights(str(folder), device=str(policy.device))
        own = [
            kept.get(name.replace(".default.", "."), torch.zeros_like(p)).to(p.dtype)
            for name, p in policy.named_trainable()
        ]
    if any(a.shape != p.shape for a, p in zip(own, policy.trainable(), strict=True)):
        raise ModelError(f"the adapter {folder} has another rank than the run that started from it")
    return own


def dense_model(policy: Policy, dtype: torch.dtype = torch.float32) -> tuple[Any, dict[str, Any]]:
    """The dequantised base in `dtype` on the CPU, and name of a weight → its LoRA layer."""
    from bitsandbytes.functional import dequantize_4bit

    base = policy.peft_model.base_model.model
    kept = {k: v for k, v in base.config.to_dict().items() if k != "quantization_config"}
    with _quiet():
        plain = type(base.config).from_dict(kept)
        model = auto_class(plain).from_config(plain, dtype=dtype, attn_implementation=base.config._attn_implementation)
    as_linear(model)
    model.requires_grad_(False).eval()
    modules, adapted = dict(base.named_modules()), {}
    for name, p in model.named_parameters():
        owner, _, kind = name.rpartition(".")
        source = modules[owner]
        weight = getattr(getattr(source, "base_layer", source), kind)
        state = getattr(weight, "quant_state", None)
        value = dequantize_4bit(weight.detach(), state) if state is not None else weight.detach()
        if kind == "weight" and isinstance(getattr(source, "base_layer", source), Conv1D):
            value = value.T
        if value.shape != p.shape:  # transformers 5.15 loads such a file in 4 bit without a word
            raise ModelError(f"the weights of {base.config.name_or_path!r} do not fit its config.json: {name}")
        p.copy_(value)
        if hasattr(source, "lora_A") and kind == "weight":
            adapted[name] = source
    kept_buffers = dict(base.named_buffers())
    for name, buffer in model.named_buffers():  # some are learned, such as the bias of a router
        if name in kept_buffers:
            buffer.copy_(kept_buffers[name])
    return model, adapted


def _make_twin(policy: Policy) -> None:
    """Give the policy its reference and its merged twin, in float32.

    The start adapter is merged into the reference. The two share all weights without LoRA.
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
    policy.twin.tie_weights()  # the output layer is the embedding of the twin again
    if policy.precision == BFLOAT16:
        for model in (policy.twin, policy.reference):
            round_products(model, policy.adapted)


@contextlib.contextmanager
def _reading(what: str, kind: type[Warning] = Warning) -> Iterator[None]:
    """As `_quiet`, and every exception becomes a ModelError: the libraries raise many types for bad files."""
    try:
        with _quiet(kind):
            yield
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"cannot load {what}: {first_line(error)}") from None


@contextlib.contextmanager
def _quiet(kind: type[Warning] = Warning) -> Iterator[None]:
    """Suppress progress bars and warnings of this kind."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", kind)
        yield
