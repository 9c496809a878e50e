"""Helpers of the update: micro-batches, retries after an out-of-memory error, and the search for a faulty group."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from himac_lite.errors import RunError
from himac_lite.policy.model import Policy
from himac_lite.policy.parallel import map_in_order
from himac_lite.settings import DEFAULT_TOKENS
from himac_lite.types import Credited

Accumulate = Callable[[Sequence[Credited]], float]
"""Adds the gradient of a minibatch to the policy's; returns its loss, in any unit."""


def micro_batches(batch: Sequence[Credited], tokens: int, shared: bool = True) -> Iterator[list[Credited]]:
    """Micro-batches of one role and constraint, with similar lengths.

    tokens: largest number of tokens of a micro-batch, padding included. shared: equal prompts count once.
    """

    def key(item: Credited) -> tuple[Any, ...]:
        s = item.sequence
        return s.role.value, s.prompt_len, s.ids[: s.prompt_len], len(s.ids)

    part: list[Credited] = []
    prompts: set[tuple[int, ...]] = set()
    longest = 0
    for item in sorted(batch, key=key):
        s = item.sequence
        prompt, length = s.ids[: s.prompt_len], len(s.ids) - s.prompt_len
        read = sum(map(len, prompts | {prompt})) if shared else (len(part) + 1) * max(map(len, prompts | {prompt}))
        cost = read + (len(part) + 1) * max(longest, length)
        first = part[0].sequence if part else s
        if part and (cost > tokens or s.role is not first.role or s.allowed != first.allowed):
            yield part
            part, prompts, longest = [], set(), 0
        part.append(item)
        prompts.add(prompt)
        longest = max(longest, length)
    if part:
        yield part


def micro_tokens(policy: Policy, setting: int) -> int:
    """Tokens per micro-batch: the number known to fit, otherwise the setting."""
    return policy.micro_tokens or setting or DEFAULT_TOKENS


def fitting(policy: Policy, setting: int, work: Callable[[int], int]) -> int:
    """`work(tokens)`, repeated with half the tokens while GPU memory is too small. The gradient stays the same.

    Raises RunError with the settings to lower if no size fits.
    """
    while True:
        tokens = micro_tokens(policy, setting)
        try:
            return work(tokens)
        except torch.OutOfMemoryError:
            if not policy.team.alone or tokens < 128:  # all processes need the same micro-batches
                raise RunError(
                    f"the GPU's memory is too small for micro-batches of {tokens} tokens: set update.micro_tokens "
                    "lower, rollout.levels lower, or model.checkpointing=true, and continue with --resume"
                ) from None
        policy.micro_tokens = tokens // 2
        torch.cuda.empty_cache()


def scores(
    policy: Policy, parts: Sequence[Sequence[Credited]], temperature: float, reference: bool = False
) -> dict[int, tuple[float, ...]]:
    """id of an item → log-probabilities of its generated tokens (0 if forced), for all items of these micro-batches."""

    def of_part(part: Sequence[Credited]) -> list[list[float]]:
        with torch.no_grad():
            found = policy.log_probs([item.sequence for item in part], temperature, reference=reference)
        values: list[list[float]] = torch.where(found.mask, found.logp, 0.0).tolist()
        return values

    spread = policy.team.spread(parts, lambda own: list(map_in_order(of_part, own, policy.workers)))
    return {
        id(item): tuple(row[: len(item.sequence.ids) - item.sequence.prompt_len])
        for part, rows in zip(parts, spread, strict=True)
        for item, row in zip(part, rows, strict=True)
    }


def rescored(
    policy: Policy, steps: Sequence[Sequence[Sequence[Credited]]], tokens: int, temperature: float
) -> list[list[list[Credited]]]:
    """The same minibatches of groups; the behaviour's log-probabilities are those of the update before its first step.

    With bfloat16 products the log-probabilities depend on the shapes of the batch. Therefore every group is scored in
    the micro-batches of its first minibatch. tokens: largest number of tokens of a micro-batch.
    """
    items: dict[int, Credited] = {}
    parts: list[list[Credited]] = []
    for groups in steps:
        fresh = [item for group in groups for item in group if id(item) not in items]
        items |= {id(item): item for item in fresh}
        parts += micro_batches(fresh, tokens, shared=not policy.checkpointing)
    known = scores(policy, parts, temperature)

    def again(item: Credited) -> Credited:
        s = item.sequence
        return replace(item, sequence=replace(s, logp=(*s.logp[: s.prompt_len], *known[id(item)])))

    renewed = {name: again(item) for name, item in items.items()}
    return [[[renewed[id(item)] for item in group] for group in groups] for groups in steps]


def group_at_fault(policy: Policy, groups: Sequence[Sequence[Credited]], accumulate: Accumulate) -> str:
    """The first group whose own loss or gradient is not finite, as text for a message."""
    for group in groups:
        loss = accumulate(group)
        gradients = [p.grad for p in policy.trainable() if p.grad is not None]
        for p in policy.trainable():
            p.grad = None
        if not (math.isfinite(loss) and all(bool(g.isfinite().all()) for g in gradients)):
            return f"the {group[0].sequence.role.value}'s group of level {group[0].level or 'without a name'}"
    return f"{len(groups)} groups together, of none alone,"
