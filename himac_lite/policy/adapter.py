"""Adapter, optimizers and counters ↔ files, which are not trusted: safetensors and JSON only.

One format has the state of optimizers, in checkpoints and in unfinished trainings: tensors ``INDEX.NAME``, where INDEX
is the place of the parameter in all optimizers together; values of other tensors beside them as ``value.NAME``.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from himac_lite import storage
from himac_lite.errors import ModelError, RunError, first_line

COUNTERS: dict[str, type] = {"iteration": int, "env_steps": int, "tokens": int, "seconds": float}
"""What a checkpoint's state counts, and in which type."""
ADAPTER = "adapter_model.safetensors"
HARMLESS = {
    "peft_type", "r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "layers_to_transform",
    "layers_pattern", "fan_in_fan_out", "task_type", "base_model_name_or_path", "revision", "inference_mode",
    "peft_version", "auto_mapping", "megatron_config", "megatron_core",
}  # fmt: skip
"""Settings of peft that do not change the function, beyond the weights in the file, and those that are read here."""


def write(folder: Path, peft_model: Any, optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """The tensors of a checkpoint. Raises OSError where they cannot be written."""
    with _full_disk_is_an_oserror():
        peft_model.save_pretrained(str(folder), save_embedding_layers=False)
        save_file(_state_of(optimizers), str(folder / "optimizer.safetensors"))


def write_state(
    file: Path, optimizers: Sequence[torch.optim.Optimizer], values: Mapping[str, torch.Tensor], about: dict[str, str]
) -> None:
    """An unfinished training in one file: the optimizers' state, `values` by name, and text about them.

    Raises `RunError` where it cannot be written; the file then stays as it was.
    """
    named = {f"value.{name}": value.detach().contiguous() for name, value in values.items()}
    with storage.beside(file) as made, _full_disk_is_an_oserror():
        save_file({**named, **_state_of(optimizers)}, str(made), about)


@torch.no_grad()
def read_state(
    file: Path, optimizers: Sequence[torch.optim.Optimizer], values: Mapping[str, torch.Tensor] = MappingProxyType({})
) -> dict[str, str]:
    """Put a saved state into fresh optimizers and, in place, into `values`; returns the text about it.

    Raises `RunError` for a file that cannot be read or is that of other parameters; nothing has changed then.
    """
    try:
        with safe_open(str(file), framework="pt") as opened:
            saved = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 (it is not a dict)
            about = dict(opened.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise RunError(f"cannot read {file}: {error}") from None
    saved.pop("empty", None)
    owners, named = _parameters(optimizers), {f"value.{name}": value for name, value in values.items()}
    places = {}  # key → (optimizer or None for a value, parameter, name of its state)
    for key in [*named, *(saved.keys() - named.keys())]:
        number, _, name = key.partition(".")
        index = int(number) if number.isdecimal() and len(number) < 9 else len(owners)
        optimizer, like = (None, named[key]) if key in named else owners[index] if index < len(owners) else (None, None)
        plain = optimizer is not None and key in saved and not saved[key].dim()  # such as the count of steps
        if like is None or key not in saved or not name or not (plain or saved[key].shape == like.shape):
            raise RunError(f"{file} is not the state of this model: {key[:80]!r} does not fit")
        places[key] = optimizer, like, name
    for key, (optimizer, like, name) in places.items():
        if optimizer is None:
            like.copy_(saved[key])
        else:  # a copy: a mapped file could not be replaced on Windows
            optimizer.state[like][name] = saved[key].to(like.device if saved[key].dim() else "cpu", copy=True)
    return about


def _parameters(optimizers: Sequence[torch.optim.Optimizer]) -> list[tuple[torch.optim.Optimizer, torch.Tensor]]:
    """Every parameter with its optimizer; a state's keys begin with the place in this list."""
    return [(optimizer, p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]


def _state_of(optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, torch.Tensor]:
    found = {
        f"{index}.{name}": value.contiguous()
        for index, (optimizer, p) in enumerate(_parameters(optimizers))
        for name, value in optimizer.state.get(p, {}).items()
    }
    return found or {"empty": torch.zeros(1)}


@contextlib.contextmanager
def _full_disk_is_an_oserror() -> Iterator[None]:
    """Safetensors reports a full disk by an exception of its own."""
    try:
        yield
    except SafetensorError as error:
        raise OSError(str(error)) from None


def counters(state: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The counters of a checkpoint's state. Raises `RunError` that names the one that is missing or no number."""
    out = {}
    for name, kind in COUNTERS.items():
        value: Any = state.get(name)
        if type(value) not in (int, kind) or not math.isfinite(value) or value < 0:
            raise RunError(f"{folder / 'state.json'}: {name} must be a number of at least 0, not {value!r}")
        out[name] = value
    return out


def adapter_settings(folder: Path) -> tuple[int, int]:
    """(rank, alpha) of a saved adapter: all that is read of its description, which could name modules to import.

    Raises `ModelError` for an adapter of another kind, and for weights that are not safetensors: peft would unpickle
    them, or look for a folder without them on a hub.
    """
    file = folder / ADAPTER
    if not file.is_file():
        raise ModelError(f"{folder} has no {ADAPTER}; other formats are not read")
    try:
        found = storage.read_json(folder / "adapter_config.json")
    except RunError as error:
        raise ModelError(str(error)) from None
    rank, alpha = found.get("r"), found.get("lora_alpha")
    if found.get("peft_type") != "LORA":
        raise ModelError(f"{folder} is no LoRA adapter but {str(found.get('peft_type'))[:40]!r}")
    if type(rank) is not int or type(alpha) is not int or not (1 <= rank <= 10**4 and 1 <= alpha <= 10**6):
        raise ModelError(f"{folder / 'adapter_config.json'}: r and lora_alpha must be whole numbers of at least 1")
    _refuse_other_lora(found, folder)
    return rank, alpha


def _refuse_other_lora(found: Mapping[str, Any], folder: Path) -> None:
    """Raise `ModelError` for a setting by which the function is not W + alpha/r·B·A."""
    from peft import LoraConfig

    plain = LoraConfig()
    for name, value in found.items():
        allowed = name in HARMLESS or not value or value == getattr(plain, name, None)
        if name == "init_lora_weights":  # others have changed the weights of the base
            allowed = type(value) is bool or value in ("gaussian", "orthogonal", "eva")
        if not allowed:
            raise ModelError(
                f"the adapter {folder} has {name[:40]}={str(value)[:40]}: only plain LoRA is computed exactly; "
                "merge the adapter into its base model, and pass that as --model"
            )


def refuse_other_weights(folder: Path, names: Iterable[str]) -> None:
    """Raise `ModelError` if an adapter's file has weights that the model has no place for, or half of a pair.

    names: of the model's LoRA parameters, as a file has them.
    """
    try:
        with safe_open(str(folder / ADAPTER), framework="pt") as opened:
            saved = set(opened.keys())
    except (OSError, SafetensorError) as error:
        raise ModelError(f"cannot load the adapter {folder}: {first_line(error)}") from None
    if other := sorted(saved - set(names)):
        raise ModelError(f"the adapter {folder} changes {other[0]:.120}: only linear layers of the blocks are adapted")
    pairs = {name: name.replace(".lora_A.", ".lora_B.") for name in names if ".lora_A." in name}
    if half := [a for a, b in pairs.items() if (a in saved) != (b in saved)]:
        raise ModelError(f"the adapter {folder} has half of the pair of {half[0]:.120}")
