"""Credited sequences → loss → step: what one phase of either level learns from.

All segments of a phase are packed into micro-batches of similar length in which a group's prompt is encoded once; one
denominator an update, so that the gradient depends neither on how it was cut nor on how many cores computed it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from himac_lite.config import Update
from himac_lite.errors import RunError
from himac_lite.objective import clip_fraction, kl, policy_loss
from himac_lite.policy.model import Policy
from himac_lite.policy.parallel import gradient_of, map_in_order, summed_gradients
from himac_lite.settings import DEFAULT_TOKENS
from himac_lite.tasks import Task
from himac_lite.types import Credited


def learn(
    policy: Policy, task: Task, optimizer: torch.optim.Optimizer, groups: Sequence[Sequence[Credited]],
    settings: Update, temperature: float, rng: np.random.Generator,
) -> dict[str, float]:  # fmt: skip
    """Some passes of clipped-surrogate steps over the groups of one phase; returns its means for the log.

    A group stays in one minibatch: its members share their prompts' forward and backward pass.
    Raises `RunError` that names the group where a loss or gradient is not finite; the weights stay as they were.
    """
    if not groups:
        return {}
    policy.act_as(groups[0][0].sequence.role)
    groups = with_reference(policy, task, groups, settings, temperature) if settings.beta else groups
    totals: dict[str, float] = {}
    tokens = 0
    for _ in range(settings.epochs):
        order = rng.permutation(len(groups))
        steps = min(settings.minibatches, -(-len(groups) // settings.groups_per_step))
        for part in np.array_split(order, steps):
            batch = [item for i in part for item in groups[i]]
            counted = accumulate(policy, task, batch, settings, temperature, totals)
            tokens += counted
            norm = step(policy, optimizer, settings.grad_clip, totals["loss"])
            if norm is None:
                guilty = _not_finite(policy, task, [groups[i] for i in part], settings, temperature)
                raise RunError(
                    f"loss or gradient of {guilty} is not finite: the update was not applied, the weights are as "
                    "before; start again with a lower update.lr, or a higher rollout.temperature"
                )
            totals["grad_norm"] = totals.get("grad_norm", 0.0) + norm * counted
    return {name: total / tokens for name, total in totals.items()}


def step(policy: Policy, optimizer: torch.optim.Optimizer, grad_clip: float, loss: float = 0.0) -> float | None:
    """One clipped optimizer step on the gradients that are there; returns their norm.

    None, and nothing applied, if loss or gradient is not finite. With a loss scale (float16) such a gradient is an
    overflow: the step is left out, the scale halved, and 0 returned, until the scale is used up.
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


def _not_finite(
    policy: Policy, task: Task, groups: Sequence[Sequence[Credited]], settings: Update, temperature: float
) -> str:
    """The first group whose own loss or gradient is not finite, in words."""
    for group in groups:
        totals: dict[str, float] = {}
        accumulate(policy, task, group, settings, temperature, totals)
        gradients = [p.grad for p in policy.trainable() if p.grad is not None]
        for p in policy.trainable():
            p.grad = None
        if not (math.isfinite(totals["loss"]) and all(bool(g.isfinite().all()) for g in gradients)):
            name = group[0].level or "without a name"
            return f"the {group[0].sequence.role.value}'s group of level {name}"
    return f"{len(groups)} groups together, of none alone,"


def with_reference(
    policy: Policy, task: Task, groups: Sequence[Sequence[Credited]], settings: Update, temperature: float
) -> list[list[Credited]]:
    """The same groups with the base model's log-probabilities, which no step of the phase changes."""
    parts = list(
        micro_batches([item for group in groups for item in group], micro_tokens(policy, settings.micro_tokens))
    )

    def work(own: list[list[Credited]]) -> list[list[list[float]]]:
        return list(map_in_order(scores, own, policy.workers))

    def scores(part: list[Credited]) -> list[list[float]]:
        allowed = policy.allowed(task, part[0].sequence.role)
        found = policy.log_probs([item.sequence for item in part], allowed, temperature, reference=True)
        values: list[list[float]] = found.logp.tolist()
        return values

    known: dict[int, tuple[float, ...]] = {}
    for part, rows in zip(parts, policy.team.spread(parts, work), strict=True):
        for item, row in zip(part, rows, strict=True):
            known[id(item)] = tuple(row[: len(item.sequence.ids) - item.sequence.prompt_len])
    return [[replace(item, reference=known[id(item)]) for item in group] for group in groups]


def accumulate(
    policy: Policy, task: Task, batch: Sequence[Credited], settings: Update, temperature: float,
    totals: dict[str, float],
) -> int:  # fmt: skip
    """`accumulate_cut`, in smaller micro-batches if the GPU's memory is not enough: the gradient is the same."""
    while True:
        try:
            return accumulate_cut(policy, task, batch, settings, temperature, totals)
        except torch.OutOfMemoryError:
            smaller = micro_tokens(policy, settings.micro_tokens) // 2
            if policy.team.size > 1 or smaller < 64:  # the others would cut otherwise
                raise RunError(
                    f"the GPU's memory is too small for micro-batches of {2 * smaller} tokens: set update.micro_tokens "
                    "lower, rollout.levels lower, or model.checkpointing=true, and go on with --resume"
                ) from None
        policy.micro_tokens = smaller
        torch.cuda.empty_cache()


def accumulate_cut(
    policy: Policy, task: Task, batch: Sequence[Credited], settings: Update, temperature: float,
    totals: dict[str, float],
) -> int:  # fmt: skip
    """Add the gradient of one minibatch, in micro-batches under one denominator: all its trained tokens.

    The gradient is of the scaled loss.

    Returns that denominator; adds token-weighted sums to `totals`. Raises ValueError if a KL term lacks its reference.
    """
    if settings.beta and not all(item.reference for item in batch):
        raise ValueError("beta > 0 needs the base model's log-probabilities: call with_reference first")
    denominator = sum(sum(item.sequence.action_mask) for item in batch)
    parts = list(micro_batches(batch, micro_tokens(policy, settings.micro_tokens), shared=not policy.checkpointing))
    measured: dict[int, dict[str, float]] = {}
    scale = loss_scale(policy)

    def loss_of(number: int) -> torch.Tensor:
        part = parts[number]
        new = policy.log_probs([i.sequence for i in part], policy.allowed(task, part[0].sequence.role), temperature)
        reference = torch.zeros_like(new.behaviour)
        for row, item in zip(reference, part, strict=True):
            row[: len(item.reference)] = torch.tensor(item.reference, device=row.device)
        advantage_bt = torch.zeros_like(new.behaviour)
        for row, item in zip(advantage_bt, part, strict=True):
            own = item.advantage
            row[: None if isinstance(own, float) else len(own)] = torch.tensor(own, device=row.device)
        loss = policy_loss(
            new.logp, new.behaviour, reference, advantage_bt, new.mask, denominator=denominator,
            clip_low=settings.clip_low, clip_high=settings.clip_high, beta=settings.beta,
        )  # fmt: skip
        with torch.no_grad():
            kept = new.mask.float()
            clipped = clip_fraction(
                new.logp, new.behaviour, advantage_bt, new.mask, denominator=denominator,
                clip_low=settings.clip_low, clip_high=settings.clip_high,
            )  # fmt: skip
            measured[number] = {
                "loss": loss.item() * denominator,
                "entropy": (new.entropy * kept).sum().item(),
                "clip_fraction": clipped.item() * denominator,
                "kl": (kl(new.logp, reference) * kept).sum().item() if settings.beta else 0.0,
            }
        return loss * scale

    add_gradient(policy, loss_of, range(len(parts)))
    for sums in policy.team.spread(range(len(parts)), lambda numbers: [measured[n] for n in numbers]):
        for name, value in sums.items():
            totals[name] = totals.get(name, 0.0) + value
    return denominator


def add_gradient(policy: Policy, loss_of: Callable[[Any], torch.Tensor], parts: Sequence[Any]) -> float:
    """Add the gradient of Σ loss over the parts to that of the LoRA parameters; returns Σ loss.

    In a team every process takes the gradient of its share. On a CPU they are then added in the order of the parts: the
    same bits as from one process. On CUDA the LoRA gradients are reduced, in float64.
    """
    crew, own, leaves = policy.team, policy.team.own(parts), policy.leaves()
    if crew.size == 1:
        loss, gradients = summed_gradients(loss_of, own, leaves, policy.workers)
        policy.pull_back(gradients)
        return loss
    made = list(map_in_order(lambda part: gradient_of(loss_of, part, leaves), own, policy.workers))
    if policy.twin is not None:
        policy.pull_back(crew.added_in_order([gradients for _, gradients in made], leaves))
    else:
        for _, own_gradients in made:
            policy.pull_back(own_gradients)
        crew.sum_gradients(policy.in_use())
    return sum(crew.spread(parts, lambda _: [loss for loss, _ in made]))


def micro_tokens(policy: Policy, setting: int) -> int:
    """Tokens of a micro-batch: what was found to fit, or the setting."""
    return policy.micro_tokens or setting or DEFAULT_TOKENS


def loss_scale(policy: Policy) -> float:
    """What a loss is multiplied with before its gradient is taken; 1 but for float16."""
    policy.scaler.scale(torch.zeros((), device=policy.device))  # it makes its state when it is first used
    return float(policy.scaler.get_scale())


def micro_batches(batch: Sequence[Credited], tokens: int, shared: bool = True) -> Iterator[list[Credited]]:
    """Sequences of one role, at most `tokens` tokens together, padding included; `shared` prompts count once."""

    def key(item: Credited) -> tuple[Any, ...]:
        s = item.sequence
        return s.role.value, s.prompt_len, s.ids[: s.prompt_len], len(s.ids)

    part: list[Credited] = []
    prompts: set[tuple[int, ...]] = set()
    longest = 0
    for item in sorted(batch, key=key):
        s = item.sequence
        prompt, length = s.ids[: s.prompt_len], len(s.ids) - s.prompt_len
        told = sum(map(len, prompts | {prompt})) if shared else (len(part) + 1) * max(map(len, prompts | {prompt}))
        cost = told + (len(part) + 1) * max(longest, length)
        if part and (s.role is not part[0].sequence.role or cost > tokens):
            yield part
            part, prompts, longest = [], set(), 0
        part.append(item)
        prompts.add(prompt)
        longest = max(longest, length)
    if part:
        yield part
