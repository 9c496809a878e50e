"""Matrix products of bfloat16 factors on a CPU; weights, sums of gradients and everything else stay in float32.

The products of linear layers are half of a run's time. A CPU with bfloat16 instructions computes them two times faster
(AVX-512) or more (AMX). Attention, norms, logits, LoRA and the optimizer stay in float32: attention's backward pass in
bfloat16 is five times slower.

A product adds in float32, and PyTorch rounds its result to bfloat16. So the order of additions matters: scores of the
same tokens in batches of other shapes differ by 1e-3 and at most 3e-2 nats, instead of 1e-6 and 1e-5. Therefore an
update scores the behaviour again, in its own micro-batches (`microbatches.rescored`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.nn.functional import linear

from himac_lite.settings import AUTO, BFLOAT16, FLOAT32


def precision_here(setting: str = AUTO) -> str:
    """``float32`` or ``bfloat16``: `auto` is bfloat16 where the CPU has instructions for its products."""
    if setting != AUTO:
        return setting
    found: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # PyTorch 2.9 does not tell
    return BFLOAT16 if found.get("avx512_bf16") or found.get("amx_bf16") else FLOAT32


class _Product(torch.autograd.Function):
    """x·Wᵀ by bfloat16 products, and its gradients by bfloat16 products, all returned in float32."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, x16: torch.Tensor, rounded: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(x16, rounded)
        return linear(x16, rounded).float()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (x16, rounded), g16 = ctx.saved_tensors, gradients[0].bfloat16()
        of_x = (g16 @ rounded).float() if ctx.needs_input_grad[0] else None
        of_weight = (g16.flatten(0, -2).T @ x16.flatten(0, -2)).float() if ctx.needs_input_grad[1] else None
        return of_x, of_weight, None, None


def _in_bfloat16(x: torch.Tensor) -> torch.Tensor:
    """x rounded, once for all layers that read it: queries, keys and values share their input."""
    kept: torch.Tensor | None = getattr(x, "in_bfloat16", None)
    if kept is None:
        kept = x.in_bfloat16 = x.detach().bfloat16()  # type: ignore[attr-defined]
    return kept


class RoundedLinear(torch.nn.Module):
    """A linear layer in float32 that multiplies in bfloat16.

    weight: the parameter. rounded: its values in bfloat16; call `round_again` after a change of the parameter.
    """

    def __init__(self, layer: torch.nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.rounded = layer.weight.detach().bfloat16()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            y: torch.Tensor = _Product.apply(x, self.weight, _in_bfloat16(x), self.rounded)
        else:
            y = linear(_in_bfloat16(x), self.rounded).float()
        return y if self.bias is None else y + self.bias


def round_products(model: Any, weights: Iterable[str]) -> None:
    """Replace the linear layers of these weights, once, by `RoundedLinear`s with the same parameters."""
    for name in weights:
        parent, _, own = name.removesuffix(".weight").rpartition(".")
        module = model.get_submodule(parent)
        if not isinstance(layer := getattr(module, own), RoundedLinear):
            setattr(module, own, RoundedLinear(layer))


@torch.no_grad()
def round_again(model: Any) -> None:
    """Round the weights again after they have changed."""
    for module in model.modules():
        if isinstance(module, RoundedLinear):
            module.rounded.copy_(module.weight)
