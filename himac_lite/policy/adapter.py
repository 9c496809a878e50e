"""Adapter, optimizer and counters ↔ the files of a checkpoint, which are not trusted: safetensors and JSON only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from himac_lite import storage
from himac_lite.errors import ModelError, RunError

COUNTERS: dict[str, type] = {"iteration": int, "env_steps": int, "tokens": int, "seconds": float}
"""What a checkpoint's state counts, and in which type."""
ADAPTER = "adapter_model.safetensors"


def write(folder: Path, peft_model: Any, optimizer: torch.optim.Optimizer) -> None:
    """The tensors of a checkpoint. Raises OSError where they cannot be written."""
    try:
        peft_model.save_pretrained(str(folder), save_embedding_layers=False)
        save_file(_tensors(optimizer), str(folder / "optimizer.safetensors"))
    except SafetensorError as error:  # how a full disk is reported
        raise OSError(str(error)) from None


def _tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    out = {}
    for index, p in enumerate(optimizer.param_groups[0]["params"]):
        for name, value in optimizer.state.get(p, {}).items():
            out[f"{index}.{name}"] = value.detach().clone().contiguous()
    return out or {"empty": torch.zeros(1)}


def read_optimizer(optimizer: torch.optim.Optimizer, file: Path) -> None:
    """Put a saved state into a fresh optimizer. Raises `RunError` for one of other parameters."""
    params = optimizer.param_groups[0]["params"]
    try:
        tensors = load_file(str(file))
    except (OSError, SafetensorError) as error:
        raise RunError(f"cannot read {file}: {error}") from None
    for key, value in tensors.items():
        if key == "empty":
            continue
        number, _, name = key.partition(".")
        index = int(number) if number.isdecimal() and len(number) < 9 else len(params)
        if index >= len(params) or not name or (value.dim() and value.shape != params[index].shape):
            raise RunError(f"{file} is not the optimizer of this model: {key[:80]!r} does not fit")
        optimizer.state[params[index]][name] = value


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
    return rank, alpha
