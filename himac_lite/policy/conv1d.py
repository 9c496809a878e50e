"""GPT-2's `Conv1D` is a linear layer that stores its weight transposed. The twin computes with linear layers only."""

from __future__ import annotations

from typing import Any

import torch
from transformers.pytorch_utils import Conv1D


class Transposed(torch.nn.Linear):
    """The linear layer in the place of a `Conv1D`."""


def as_linear(model: Any) -> None:
    """Replace every `Conv1D` of a model by a `Transposed`, whose weight is [outputs, inputs]."""
    for name, layer in _of_kind(model, Conv1D):
        inputs, outputs = layer.weight.shape
        made = Transposed(inputs, outputs, device="meta")
        made.weight, made.bias = _transposed(layer.weight), layer.bias
        model.set_submodule(name, made)


def as_conv1d(model: Any) -> None:
    """The inverse of `as_linear`."""
    for name, layer in _of_kind(model, Transposed):
        made = Conv1D(layer.out_features, layer.in_features)
        made.weight, made.bias = _transposed(layer.weight), layer.bias
        model.set_submodule(name, made)


def _of_kind(model: Any, kind: type) -> list[tuple[str, Any]]:
    return [(name, module) for name, module in model.named_modules() if isinstance(module, kind)]


def _transposed(weight: torch.Tensor) -> torch.nn.Parameter:
    return torch.nn.Parameter(weight.detach().T.contiguous(), requires_grad=False)
