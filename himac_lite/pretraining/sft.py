"""A warm start for real models: supervised fine-tuning of the adapter on expert demonstrations of both formats.

A small instruct model solves almost nothing before it has seen a solution, and reinforcement learning then has nothing
to reinforce. So it is shown blueprints, segments that end with `<sub_done>` and flat play, in the very turns of a
rollout of this model. The loss is −log p of the tokens that a rollout would sample, unconstrained, so that the model
learns the format as well. The base stays in NF4; the result is a plain peft adapter for `himac-lite train --adapter`.
Batches depend on the seed and their number alone: an interrupted run resumes to the same result.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from himac_lite.config import Sft, as_dict
from himac_lite.errors import ConfigError, RunError
from himac_lite.objective import masked_mean
from himac_lite.policy.adapter import read_state, write_state
from himac_lite.policy.microbatches import micro_batches, micro_tokens
from himac_lite.policy.model import Policy
from himac_lite.policy.prompts import Speech
from himac_lite.policy.update import loss_scale, step
from himac_lite.pretraining import Recipe, Solution
from himac_lite.pretraining.driver import recipe_of
from himac_lite.tasks import Action, Episode, Item, Task
from himac_lite.tasks.registry import lengths
from himac_lite.types import Credited, End, Role, SubGoal, TokenSequence

ROLES = (Role.PLANNER, Role.EXECUTOR, Role.FLAT)
STATE = "unfinished.safetensors"


# Demonstrations, in the tokens that a rollout of this model would have


def plan_sequence(speech: Speech, task: Task, item: Item, solution: Solution) -> TokenSequence:
    """The expert's blueprint, with the token that ends it."""
    text = solution.blueprint.text
    answer = speech.encode(text if speech.chat is None else text.strip("\n"), prompt=False)
    prompt = speech.prompt(task.start(item), Role.PLANNER)
    return _packed(Role.PLANNER, prompt, [(i, True) for i in [*answer, speech.codes(task).end]], End.PLAN)


def segment_sequence(
    speech: Speech, task: Task, item: Item, solution: Solution, rng: np.random.Generator
) -> TokenSequence:
    """One sub-goal of the expert's blueprint, drawn at random, and `<sub_done>` unless the episode is over with it."""
    doable = [k for k, (_, actions) in enumerate(solution.parts) if actions]
    episode, chosen = task.start(item), doable[int(rng.integers(len(doable)))]
    for _, actions in solution.parts[:chosen]:
        for action in actions:
            episode.act(action)
    goal, actions = solution.parts[chosen]
    return _played(speech, task, episode, goal, actions)


def flat_sequence(speech: Speech, task: Task, item: Item, solution: Solution) -> TokenSequence:
    """The expert's flat play, to the step limit."""
    return _played(speech, task, task.start(item), None, solution.flat[: task.max_steps])


def _played(
    speech: Speech, task: Task, episode: Episode, goal: SubGoal | None, actions: Sequence[Action]
) -> TokenSequence:
    """Flat play or, with a `goal`, a segment."""
    codes = speech.codes(task)
    fixed = {index: ([token], rest) for token, (index, rest) in codes.actions.items()}
    ended = speech.chat is not None and not fixed  # a written action is an answer, which the model ends by itself

    def spelled(action: Action) -> tuple[list[int], tuple[int, ...]]:
        """The tokens that the model chooses, and those that complete them."""
        if fixed:
            return fixed[int(action)]
        if ended:
            return [*speech.encode(str(action), prompt=False), codes.end], ()
        return speech.encode(f" {action}\n", prompt=False), ()

    role = Role.EXECUTOR if goal else Role.FLAT
    prompt = [*speech.prompt(episode, role, goal), *codes.prefix]
    tail: list[tuple[int, bool]] = []
    for number, action in enumerate(actions, 1):
        own, rest = spelled(action)
        seen = episode.act(action)
        tail += [(i, True) for i in own]
        if number < len(actions) or (goal and not episode.over):
            tail += [(i, False) for i in [*rest, *speech.observed(seen, ended), *codes.prefix]]
    end = End.SUCCESS if episode.success else End.OVER if episode.over else End.TRUNCATED
    if goal and not episode.over:
        last = spelled(task.sub_done)[0] if codes.sub_done is None else [codes.sub_done]
        tail += [(i, True) for i in last]
        end = End.SUB_DONE
    return _packed(role, prompt, tail, end)


def _packed(role: Role, prompt: list[int], tail: Sequence[tuple[int, bool]], end: End) -> TokenSequence:
    ids, n = (*prompt, *(i for i, _ in tail)), len(prompt)
    return TokenSequence(role, ids, n, (*[False] * n, *(own for _, own in tail)), (0.0,) * len(ids), end)


def demonstrations(
    speech: Speech, task: Task, recipe: Recipe, items: Sequence[Item], count: int, rng: np.random.Generator
) -> list[TokenSequence]:
    """`count` demonstrations of random items by the recipe's expert, the three roles in turn."""
    made = []
    for number in range(count):
        item = items[int(rng.integers(len(items)))]
        solution, role = recipe.solution(item, rng, "expert"), ROLES[number % len(ROLES)]
        if role is Role.PLANNER:
            made.append(plan_sequence(speech, task, item, solution))
        elif role is Role.FLAT:
            made.append(flat_sequence(speech, task, item, solution))
        else:
            made.append(segment_sequence(speech, task, item, solution, rng))
    return made


def refuse_unsolved(task: Task, items: Sequence[Item], say: Callable[[str], None]) -> None:
    """Raises `ConfigError` that names the first item without a known solution: nobody can demonstrate it.

    say: called with the progress of a long search for solutions.
    """
    for item, length in zip(items, lengths(task, items, say), strict=True):
        if not length:
            raise ConfigError(f"no expert can demonstrate {item.title!r}: no solution is known; choose other --levels")


# Learning


def learn_batch(policy: Policy, batch: Sequence[TokenSequence], tokens: int) -> tuple[float, int]:
    """Add the gradient of −log p per chosen token of a batch, in micro-batches; returns that mean and how many.

    In a team every process adds the gradient of its share, as in `update.accumulate`.
    """
    chosen = sum(sum(s.action_mask) for s in batch)
    scale = loss_scale(policy)
    parts = list(micro_batches([Credited(s, 0.0) for s in batch], tokens, shared=not policy.checkpointing))

    def loss_of(part: list[Credited]) -> torch.Tensor:
        scores = policy.log_probs([item.sequence for item in part])
        return -masked_mean(scores.logp, scores.mask, chosen) * scale

    return policy.team.add_gradient(policy, loss_of, parts) / scale, chosen


def fine_tune(
    policy: Policy, task: Task, items: Sequence[Item], config: Sft, out: Path, say: Callable[[str], None] = print
) -> list[float]:
    """Train to the last step and save the adapter in `out`; returns the loss of each step of this call.

    The state is kept in `out`/unfinished.safetensors every `config.save_every` steps until the end. Raises `RunError`
    if it is of another configuration.
    """
    recipe = recipe_of(config.task)
    optimizer = torch.optim.AdamW(policy.trainable(), lr=config.lr, betas=(0.9, 0.95), weight_decay=0.0)
    done, losses = _resume(policy, optimizer, config, out), []
    while done < config.steps:
        rng = np.random.default_rng(np.random.SeedSequence([config.seed, done]))
        batch = demonstrations(policy, task, recipe, items, config.batch, rng)
        loss, chosen = learn_batch(policy, batch, micro_tokens(policy, config.micro_tokens))
        for group in optimizer.param_groups:
            group["lr"] = config.lr * (1 - done / config.steps)
        if step(policy, optimizer, 1.0, loss) is None:
            raise RunError(
                f"loss or gradient of step {done + 1} is not finite: start again with a lower lr and another --out"
            )
        done += 1
        losses.append(loss)
        if done % 10 == 0 or done == config.steps:
            say(f"step {done}/{config.steps}: loss {loss:.4f} a token ({chosen} tokens)")
        if policy.team.writes and (done % config.save_every == 0 or done == config.steps):
            about = {"config": _text(config), "scale": json.dumps(policy.scaler.state_dict()), "done": str(done)}
            write_state(out / STATE, [optimizer], dict(policy.named_trainable()), about)
    if policy.team.writes:
        policy.peft_model.save_pretrained(str(out), save_embedding_layers=False)
        (out / "sft.json").write_text(json.dumps({"config": as_dict(config), "losses": losses[-1:]}) + "\n", "utf-8")
        (out / STATE).unlink(missing_ok=True)
    return losses


def _resume(policy: Policy, optimizer: torch.optim.Optimizer, config: Sft, out: Path) -> int:
    """Steps that are done already; 0 for a new folder, which is made."""
    file = out / STATE
    if not file.exists():
        if (out / "adapter_config.json").exists():
            raise RunError(f"{out} holds a finished adapter; choose another --out")
        out.mkdir(parents=True, exist_ok=True)
        return 0
    try:
        about = read_state(file, [optimizer], dict(policy.named_trainable()))
    except RunError as error:
        raise RunError(f"cannot resume: {error}; delete it to start again") from None
    if about.get("config") != _text(config):
        raise RunError(f"{file} was made with other settings; repeat them, or choose another --out")
    if policy.scaler.is_enabled():
        policy.scaler.load_state_dict(json.loads(about["scale"]))
    policy.changed()
    return int(about["done"])


def _text(config: Sft) -> str:
    return json.dumps(as_dict(config))
