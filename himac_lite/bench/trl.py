"""TRL's GRPOTrainer on flat Sokoban episodes; `himac-lite bench rollout` runs it in its own environment.

TRL supports several turns by `rollout_func`. As in its own tool loop, every turn calls the trainer's generation, which
encodes the whole conversation again. Three choices favour TRL: finished episodes leave the batch, the base is float32,
which is faster than NF4 on a CPU, and it may use every core.
"""

from __future__ import annotations

import json
import time
from tempfile import gettempdir
from typing import Any

SCRIPT = "import sys; sys.path.insert(0, sys.argv[1]); from himac_lite.bench.trl import main; main(*sys.argv[2:])"
"""The script of the peer's Python; its first argument is the parent folder of this package."""


def main(model: str, levels: str, group: str, runs: str, max_steps: str) -> None:
    """Train on the first levels of `core/validation` and print {"rates": episodes per second of each iteration}."""
    seconds = train(model, int(levels), int(group), int(runs), int(max_steps))
    print(json.dumps({"rates": [int(levels) * int(group) / s for s in seconds]}))


def train(model: str, levels: int, group: int, runs: int, max_steps: int) -> list[float]:
    """Seconds of each measured iteration (rollouts, rewards, one optimizer step), after one warm-up iteration."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from himac_lite.policy.actions import spell
    from himac_lite.tasks.sokoban.levels import load_levels
    from himac_lite.tasks.sokoban.task import SokobanTask
    from himac_lite.types import Role

    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left", trust_remote_code=False)
    task, boards = SokobanTask(max_steps=max_steps), load_levels("core/validation")[:levels]

    def encode(text: str, prompt: bool = False) -> list[int]:
        return list(tokenizer(text, add_special_tokens=prompt).input_ids)

    codes = spell(encode, task, tokenizer.unk_token_id, tokenizer.eos_token_id, model)

    def rollout(prompts: list[str], trainer: Any) -> dict[str, Any]:
        episodes = [task.start(boards[int(prompt)]) for prompt in prompts]
        starts = [encode(e.prompt(Role.FLAT), True) + list(codes.prefix) for e in episodes]
        ids, own = [list(start) for start in starts], [[False] * len(start) for start in starts]
        while running := [i for i, e in enumerate(episodes) if not e.success and e.steps < max_steps]:
            chosen, _ = trainer._generate_single_turn([ids[i] for i in running], None, {}, group)
            for i, (token, *_) in zip(running, chosen, strict=True):
                index, rest = codes.actions[token]
                seen = [*rest, *encode(episodes[i].act(index)), *codes.prefix]
                ids[i] += [token, *seen]
                own[i] += [True, *[False] * len(seen)]
        cut = [len(start) for start in starts]
        return {
            "prompt_ids": starts, "completion_ids": [x[n:] for x, n in zip(ids, cut, strict=True)], "logprobs": None,
            "env_mask": [[int(m) for m in x[n:]] for x, n in zip(own, cut, strict=True)],
            "success": [float(e.success) for e in episodes],
        }  # fmt: skip

    def reward(completions: list[str], success: list[float], **_: Any) -> list[float]:
        return success

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.seconds: list[float] = []

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.begun = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.seconds.append(time.perf_counter() - self.begun)

    clock, parts = Clock(), max(1, levels * group // 32)
    settings = GRPOConfig(
        output_dir=gettempdir(), use_cpu=True, per_device_train_batch_size=levels * group // parts,
        gradient_accumulation_steps=parts, num_generations=group, max_steps=runs + 1, max_completion_length=1,
        beta=0.01, temperature=1.0, learning_rate=0.0, report_to=[], save_strategy="no", logging_strategy="no",
        bf16=False, gradient_checkpointing=False, disable_tqdm=True,
        generation_kwargs={"suppress_tokens": [i for i in range(len(tokenizer)) if i not in codes.actions]},
    )  # fmt: skip
    base = AutoModelForCausalLM.from_pretrained(
        model, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
    )
    adapter = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    GRPOTrainer(
        model=base, reward_funcs=reward, args=settings, processing_class=tokenizer, peft_config=adapter,
        train_dataset=Dataset.from_dict({"prompt": [str(i) for i in range(levels)]}), rollout_func=rollout,
        callbacks=[clock],
    ).train()  # fmt: skip
    return clock.seconds[1:]
