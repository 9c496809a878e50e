"""What is the same in every process, as one JSON object of digests: two processes are compared by a test.

``PYTHONHASHSEED=1 python tests/reliability/same.py`` and ``=2`` print the same line. It holds: the frozen splits,
levels that are generated from a seed, held-out hashes, vocabulary, prompts and their tokens, levels drawn for an
iteration, the numbers that samples are drawn with, LoRA's start, and the tokens and log-probabilities of sampled
blueprints and executions (the last two on one machine; the others on any).
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def digest(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]


def main() -> None:
    import numpy as np

    from himac_lite.coevolution import adapt, choose, explore
    from himac_lite.config import Train
    from himac_lite.policy.loading import load_policy
    from himac_lite.policy.parallel import one_thread_a_worker
    from himac_lite.rollout.play import Arena
    from himac_lite.rollout.rules import ReturnRule
    from himac_lite.runs import training
    from himac_lite.tasks import marks
    from himac_lite.tasks.sokoban import language
    from himac_lite.tasks.sokoban.generator import generate
    from himac_lite.tasks.sokoban.levels import SPLITS, canonical_hash, load_levels
    from himac_lite.tasks.sokoban.rules import board_from_level
    from himac_lite.types import Sampling, SubGoal

    one_thread_a_worker()
    levels = {f"{split}/{part}": load_levels(split, part) for split, spec in SPLITS.items() for part in spec.parts}
    some, config = levels["core/train"][:2], Train()
    rng = np.random.default_rng(np.random.SeedSequence([config.seed, 1, 3]))
    policy = load_policy(training.resolve_model("sokoban-base"))
    goal = SubGoal("push the box at (2,3) right to (2,5)")
    prompts = [language.prompt(role, board_from_level(lv), goal) for role in marks.MARK for lv in some]
    sampling, rule = Sampling(1.0, rng), ReturnRule()
    macro = explore(Arena(policy, training.make_task(config), returns=rule, sampling=sampling), some, 2)
    micro = adapt(
        Arena(policy, training.make_task(config), returns=rule, sampling=sampling),
        [g.level for g in macro],
        2,
        choose(training.make_task(config), macro, np.zeros(2, int)),
    )
    sequences = [s for group in macro for s in (t.blueprint_tokens for t in group.trajectories)]
    sequences += [s for group in micro for t in group.trajectories for s in t.segments]
    print(
        json.dumps(
            {
                "splits": digest({name: [lv.rows for lv in found] for name, found in levels.items()}),
                "held out": digest([canonical_hash(lv) for lv in levels["core/test"][:32]]),
                "generated": digest([lv.rows for lv in generate(np.random.default_rng(5), 2, 6, 1, (4, 20))]),
                "vocabulary": digest(language.vocabulary()),
                "prompts": digest(prompts),
                "tokens": digest([policy.encode(text) for text in prompts]),
                "drawn": digest([lv.rows for i in (0, 9) for lv in training.draw_levels(some * 20, config, i)]),
                "numbers": digest(np.random.default_rng(np.random.SeedSequence([0, 1, 7])).random(8).tolist()),
                "start": digest([(n, p.detach().cpu().numpy().tobytes()) for n, p in policy.named_trainable()]),
                "sampled": digest([s.ids for s in sequences]),
                "log-probabilities": digest([s.logp for s in sequences]),
            }
        )
    )


if __name__ == "__main__":
    main()
