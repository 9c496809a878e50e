"""The update's forward pass: the logits of plain passes over whole sequences, at the chosen places only."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from test_decoding import PAD, lively_model, plain_logits, random_prompts

from himac_lite.policy import forward as packed
from himac_lite.rollout.play import Arena
from himac_lite.tasks.sokoban.task import SokobanTask


@pytest.mark.parametrize("chosen", [[0], [0, 5], [3, 4, 11], list(range(12))], ids=str)
@pytest.mark.parametrize(
    ("lengths", "passes"),
    [
        ((9, 9), [(2, 9), (3, 11)]),  # two prompts, one of them twice: read once, then the rest in the cache
        ((2, 9), [(2, 9), (3, 11)]),  # of different lengths: padded on the left
        ((3, 3), [(3, 14)]),  # not worth sharing
    ],
)
def test_logits_where_a_token_was_chosen(lengths, passes, chosen):
    model = lively_model("sdpa")
    one, two = (tuple(p) for p in random_prompts(1, lengths))
    prompts, target = [one, two, one], torch.tensor(random_prompts(2, (12, 12, 12)))
    seen: list[tuple[int, ...]] = []
    model.model.register_forward_pre_hook(lambda m, args, kw: seen.append((*kw["input_ids"].shape,)), with_kwargs=True)
    found = packed.logits_after(model, prompts, target, torch.tensor(chosen), PAD)
    assert found.shape[:2] == (3, len(chosen))
    if len(passes) > 1 and chosen == [0]:
        passes = passes[:1]  # the prompts say all that is asked for
    assert seen == passes
    at_once = packed.logits_at_once(model, prompts, target, torch.tensor(chosen), PAD)
    for row, (prompt, ids) in enumerate(zip(prompts, target.tolist(), strict=True)):
        wanted = plain_logits(model, [*prompt, *ids])[[len(prompt) + t - 1 for t in chosen]]
        for own in (found[row], at_once[row]):
            torch.testing.assert_close(own, wanted, rtol=0, atol=1e-4)


def test_a_vocabulary_of_logits_is_computed_for_choices_alone(policy: Any, toy_levels: Any) -> None:
    """The update asks for the columns in which at least one row chose; the others score 0."""
    task = SokobanTask(max_steps=6)
    batch = [t.segments[0] for t in Arena(policy, task).play_flat(toy_levels[:3])]
    observed = {1, 3}  # columns in which, let us say, nobody chose
    batch = [
        replace(s, action_mask=tuple(m and t - s.prompt_len not in observed for t, m in enumerate(s.action_mask)))
        for s in batch
    ]
    asked: list[torch.Tensor] = []
    real = policy._logits

    def noted(prompts: Any, target: Any, chosen: torch.Tensor, reference: bool) -> torch.Tensor:
        asked.append(chosen)
        return real(prompts, target, chosen, reference)

    policy._logits = noted
    scores = policy.log_probs(batch)
    width = scores.mask.shape[1]
    assert asked[0].tolist() == [t for t in range(width) if t not in observed]
    assert (scores.logp[:, [1, 3]] == 0).all()
    assert (scores.logp[:, 0] != 0).all()
