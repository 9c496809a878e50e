"""One frozen dataclass a concern, a docstring under every field, and the presets."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pretrain:
    """How the base model is made (`himac-lite pretrain`)."""

    width: int = 128
    """Hidden size; a multiple of 64 (the block of NF4)."""
    layers: int = 8
    """Transformer blocks."""
    heads: int = 4
    """Attention heads."""
    batch_tokens: int = 24_576
    """Tokens of a batch, padding included."""
    expert_steps: int = 4000
    """Batches of the first stage: expert demonstrations, constant learning rate."""
    mixed_steps: int = 600
    """Batches of the second stage: mixed demonstrations, learning rate down to zero, NF4 in the loop."""
    lr_muon: float = 3e-3
    """Learning rate of the hidden matrices (Muon, RMS-matched to AdamW)."""
    lr_adam: float = 3e-3
    """Learning rate of embeddings and norms (AdamW)."""
    noise: float = 0.05
    """Share of random steps in expert play and segments; not learnt, only recovered from."""
    bf16: bool = True
    """Matrix products in bfloat16 (weights and optimizer stay float32)."""
    compile: bool = True
    """Use torch.compile (needs a C++ compiler): about 1.7 times faster."""
    seed: int = 0
    """Seed of weights and demonstrations."""
