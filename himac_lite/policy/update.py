"""The update of one phase: credited sequences → loss → optimizer steps.

Every minibatch has one denominator, so its gradient depends neither on its micro-batches nor on the number of cores or
processes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from himac_lite.errors import RunError
from himac_lite.objective import clip_fraction, kl, policy_loss
from himac_lite.policy.microbatches import fitting, group_at_fault, micro_batches, micro_tokens, rescored, scores
from himac_lite.policy.model import Policy
from himac_lite.settings import BFLOAT16, Update
from himac_lite.types import Credited

Sums = dict[str, float]
"""Metric → its sum over trained tokens."""


def learn(
    policy: Policy, optimizer: torch.optim.Optimizer, groups: Sequence[Sequence[Credited]], settings: Update,
    temperature: float, rng: np.random.Generator,
) -> dict[str, float]:  # fmt: skip
    """Optimize the clipped surrogate on the groups of one phase. Returns metrics, means over trained tokens.

    A group stays in one minibatch, where its members share the passes over their prompts.
    Raises RunError with the faulty group if a loss or gradient is not finite; that step is not applied.
    """
    if not groups:
        return {}
    policy.act_as(groups[0][0].sequence.role)
    if settings.beta:
        groups = with_reference(policy, groups, settings, temperature)
    totals: Sums = {}
    tokens = 0
    steps: Sequence[Sequence[Sequence[Credited]]] = list(minibatches(groups, settings, rng))
    if policy.precision == BFLOAT16:
        steps = rescored(policy, steps, micro_tokens(policy, settings.micro_tokens), temperature)
    for minibatch in steps:
        batch = [item for group in minibatch for item in group]
        counted = accumulate(policy, batch, settings, temperature, totals)
        norm = step(policy, optimizer, settings.grad_clip, totals["loss"])
        if norm is None:
            raise _not_finite(policy, minibatch, settings, temperature)
        totals["grad_norm"] = totals.get("grad_norm", 0.0) + norm * counted
        tokens += counted
    return {name: total / tokens for name, total in totals.items()}


def minibatches(
    groups: Sequence[Sequence[Credited]], settings: Update, rng: np.random.Generator
) -> Iterator[list[Sequence[Credited]]]:
    """The groups of each optimizer step, shuffled in every epoch."""
    steps = min(settings.minibatches, -(-len(groups) // settings.groups_per_step))
    for _ in range(settings.epochs):
        for part in np.array_split(rng.permutation(len(groups)), steps):
            yield [groups[i] for i in part]


def accumulate(policy: Policy, batch: Sequence[Credited], settings: Update, temperature: float, totals: Sums) -> int:
    """Add the gradient of one minibatch, times the loss scale, to the policy's, and its metrics to `totals`.

    Returns the denominator, which is the number of trained tokens of the minibatch.
    Raises ValueError if the KL term has no reference.
    """
    if settings.beta and not all(item.reference for item in batch):
        raise ValueError("beta > 0 needs the reference's log-probabilities: call with_reference first")
    denominator = sum(sum(item.sequence.action_mask) for item in batch)
    scale = loss_scale(policy)

    def add(tokens: int) -> int:
        parts = list(micro_batches(batch, tokens, shared=not policy.checkpointing))
        measured: dict[int, Sums] = {}

        def loss_of(number: int) -> torch.Tensor:
            loss, measured[number] = micro_batch_loss(policy, parts[number], settings, temperature, denominator)
            return loss * scale

        policy.team.add_gradient(policy, loss_of, range(len(parts)))
        for sums in policy.team.spread(range(len(parts)), lambda numbers: [measured[n] for n in numbers]):
            for name, value in sums.items():
                totals[name] = totals.get(name, 0.0) + value
        return denominator

    return fitting(policy, settings.micro_tokens, add)


def micro_batch_loss(
    policy: Policy, part: Sequence[Credited], settings: Update, temperature: float, denominator: int
) -> tuple[torch.Tensor, Sums]:
    """The loss of a micro-batch, as its part of the minibatch's loss, and its metrics as sums over tokens."""
    new = policy.log_probs([item.sequence for item in part], temperature)
    reference_bt, advantage_bt = torch.zeros_like(new.behaviour), torch.zeros_like(new.behaviour)
    for b, item in enumerate(part):
        reference_bt[b, : len(item.reference)] = torch.tensor(item.reference, device=reference_bt.device)
        own = item.advantage
        end = None if isinstance(own, float) else len(own)
        advantage_bt[b, :end] = torch.tensor(own, device=advantage_bt.device)
    loss = policy_loss(
        new.logp, new.behaviour, reference_bt, advantage_bt, new.mask, denominator=denominator,
        clip_low=settings.clip_low, clip_high=settings.clip_high, beta=settings.beta,
    )  # fmt: skip
    with torch.no_grad():
        kept = new.mask.float()
        cut = clip_fraction(
            new.logp, new.behaviour, advantage_bt, new.mask, denominator=denominator,
            clip_low=settings.clip_low, clip_high=settings.clip_high,
        )  # fmt: skip
        return loss, {
            "loss": loss.item() * denominator,
            "entropy": (new.entropy * kept).sum().item(),
            "clip_fraction": cut.item() * denominator,
            "kl": (kl(new.logp, reference_bt) * kept).sum().item() if settings.beta else 0.0,
        }


def with_reference(
    policy: Policy, groups: Sequence[Sequence[Credited]], settings: Update, temperature: float
) -> list[list[Credited]]:
    """The same groups with the reference's log-probabilities, which no step changes."""
    items = [item for group in groups for item in group]
    parts = list(micro_batches(items, micro_tokens(policy, settings.micro_tokens)))
    known = scores(policy, parts, temperature, reference=True)
    return [[replace(item, reference=known[id(item)]) for item in group] for group in groups]


def step(policy: Policy, optimizer: torch.optim.Optimizer, grad_clip: float, loss: float = 0.0) -> float | None:
    """One optimizer step on the accumulated gradient, clipped to norm `grad_clip`; returns the norm before the clip.

    Returns None and skips the step if loss or gradient is not finite. With a loss scale (float16) such a gradient is an
    overflow: the step is skipped, the scale is halved, and the result is 0 while the scale is at least 1.
    """
    scaler = policy.scaler
    scaler.unscale_(optimizer)
    norm = torch.nn.utils.clip_grad_norm_(policy.trainable(), grad_clip)
    finite = bool(torch.isfinite(norm))
    if not math.isfinite(loss) or (not finite and (not scaler.is_enabled() or scaler.get_scale() < 1)):
        optimizer.zero_grad(set_to_none=True)
        return None
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    policy.changed()
    return float(norm) if finite else 0.0


def loss_scale(policy: Policy) -> float:
    """The factor of the loss during the backward pass; 1 except for float16."""
    policy.scaler.scale(torch.zeros((), device=policy.device))  # creates the scaler's state on first use
    return float(policy.scaler.get_scale())


def _not_finite(policy: Policy, groups: Sequence[Sequence[Credited]], settings: Update, temperature: float) -> RunError:
    def loss_of(group: Sequence[Credited]) -> float:
        totals: Sums = {}
        accumulate(policy, group, settings, temperature, totals)
        return totals["loss"]

    return RunError(
        f"loss or gradient of {group_at_fault(policy, groups, loss_of)} is not finite: the step was not applied. "
        "Start again with a lower update.lr, or a higher rollout.temperature"
    )
