"""The baseline of the rollout benchmark: a loop over `model.generate`, as in trainers without multi-turn caching.

Every turn encodes the whole conversation again for one action. Finished episodes leave the batch, which other trainers
do not always do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from himac_lite.policy.decoding import left_padded
from himac_lite.policy.model import Policy
from himac_lite.tasks import Episode, Task
from himac_lite.types import Level, Role


def generate_each_turn(policy: Policy, task: Task, levels: Sequence[Level], greedy: bool = False) -> list[Episode]:
    """Flat episodes by `model.generate`, with one call per turn for all running episodes."""
    codes = policy.codes(task)
    episodes = [task.start(level) for level in levels]
    texts = [[*policy.prompt(e, Role.FLAT), *codes.prefix] for e in episodes]
    pad, allowed = policy.tokenizer.pad_token_id or 0, list(codes.actions)
    model: Any = policy.computing()
    how = {"do_sample": False} if greedy else {"do_sample": True, "top_k": 0}
    torch.manual_seed(0)
    while running := [i for i, e in enumerate(episodes) if not e.success and e.steps < task.max_steps]:
        ids, mask = left_padded([texts[i] for i in running], pad, policy.device)
        with torch.inference_mode():
            out = model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=1, pad_token_id=pad,
                prefix_allowed_tokens_fn=lambda *_: allowed, **how,
            )  # fmt: skip
        for i, token in zip(running, out[:, -1].tolist(), strict=True):
            index, rest = codes.actions[token]
            seen = policy.observed(episodes[i].act(index))
            texts[i] += [token, *rest, *seen, *codes.prefix]
    return episodes
