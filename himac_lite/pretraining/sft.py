"""A warm start for real models: supervised fine-tuning of the adapter on the solver's demonstrations of both formats.

A small instruct model solves almost no Sokoban before it has been shown any, and reinforcement learning then has
nothing to prefer. So it is shown, in the very turns of a rollout: blueprints, segments that end with `<sub_done>`, flat
play. The loss counts what the model would choose itself (−log p of the tokens that a rollout would sample),
unconstrained, so that the format is learnt as well. The base stays in NF4; the result is a plain peft adapter, which
`himac-lite train --adapter` begins with. Batches depend on the seed and their number alone: an interrupted run goes on
to the same result.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from himac_lite.config import Sft, as_dict
from himac_lite.errors import LevelError, RunError
from himac_lite.objective import masked_mean
from himac_lite.policy.microbatches import micro_batches, micro_tokens
from himac_lite.policy.model import Policy
from himac_lite.policy.prompts import Speech
from himac_lite.policy.update import loss_scale, step
from himac_lite.tasks.sokoban.language import subgoal_text
from himac_lite.tasks.sokoban.pushes import after_push, execute_push
from himac_lite.tasks.sokoban.rules import MOVES, Board, board_from_level
from himac_lite.tasks.sokoban.solver import Push, pushes_of, solve
from himac_lite.tasks.sokoban.task import SokobanEpisode, SokobanTask
from himac_lite.types import Credited, End, Level, Role, SubGoal, TokenSequence

ROLES = (Role.PLANNER, Role.EXECUTOR, Role.FLAT)
STATE = "unfinished.safetensors"


# Demonstrations, in the tokens that a rollout of this model would have


def plan_sequence(speech: Speech, task: SokobanTask, level: Level) -> TokenSequence:
    """The solver's blueprint of a level, with the token that ends it."""
    text = task.oracle(level).text
    answer = speech.encode(text if speech.chat is None else text.strip("\n"), prompt=False)
    prompt = speech.prompt(task.start(level), Role.PLANNER)
    return _packed(Role.PLANNER, prompt, [(i, True) for i in [*answer, speech.codes(task).end]], End.PLAN)


def segment_sequence(speech: Speech, task: SokobanTask, level: Level, rng: np.random.Generator) -> TokenSequence:
    """One sub-goal of the solver's blueprint, carried out by the shortest way, and `<sub_done>` unless it solves."""
    board, pushes = _solution(level)
    for push in pushes[: int(rng.integers(len(pushes)))]:
        board, pushes = after_push(board, push), pushes[1:]
    moves = execute_push(board, pushes[0])
    if moves is None:
        raise LevelError(f"level {level.title!r}: the solver's sub-goal {pushes[0]} cannot be done")
    return _played(speech, task, SokobanEpisode(board), Role.EXECUTOR, SubGoal(subgoal_text(*pushes[0])), moves)


def flat_sequence(speech: Speech, task: SokobanTask, level: Level) -> TokenSequence:
    """The solver's shortest solution, move by move."""
    solution = solve(level)
    if solution is None:
        raise LevelError(f"level {level.title!r} has no solution")
    return _played(speech, task, task.start(level), Role.FLAT, None, solution.lurd[: task.max_steps].lower())


def _solution(level: Level) -> tuple[Board, list[Push]]:
    solution, board = solve(level), board_from_level(level)
    if solution is None or not solution.lurd:
        raise LevelError(f"level {level.title!r} has no solution of at least one move")
    return board, pushes_of(board, solution.lurd)


def _played(
    speech: Speech, task: SokobanTask, episode: SokobanEpisode, role: Role, goal: SubGoal | None, moves: str
) -> TokenSequence:
    codes = speech.codes(task)
    spelled = {index: (token, rest) for token, (index, rest) in codes.actions.items()}
    prompt = [*speech.prompt(episode, role, goal), *codes.prefix]
    tail: list[tuple[int, bool]] = []
    for number, move in enumerate(moves):
        token, rest = spelled[MOVES.index(move)]
        seen = episode.act(MOVES.index(move))
        tail.append((token, True))
        if number < len(moves) - 1 or (role is Role.EXECUTOR and not episode.success):
            tail += [(i, False) for i in [*rest, *speech.observed(seen), *codes.prefix]]
    end = End.SUCCESS if episode.success else End.TRUNCATED
    if role is Role.EXECUTOR and not episode.success and codes.sub_done is not None:
        tail.append((codes.sub_done, True))
        end = End.SUB_DONE
    return _packed(role, prompt, tail, end)


def _packed(role: Role, prompt: list[int], tail: Sequence[tuple[int, bool]], end: End) -> TokenSequence:
    ids, n = (*prompt, *(i for i, _ in tail)), len(prompt)
    return TokenSequence(role, ids, n, (*[False] * n, *(own for _, own in tail)), (0.0,) * len(ids), end)


def demonstrations(
    speech: Speech, task: SokobanTask, levels: Sequence[Level], count: int, rng: np.random.Generator
) -> list[TokenSequence]:
    """So many demonstrations of random levels, the three roles in turn."""
    made = []
    for number in range(count):
        level = levels[int(rng.integers(len(levels)))]
        role = ROLES[number % len(ROLES)]
        if role is Role.PLANNER:
            made.append(plan_sequence(speech, task, level))
        elif role is Role.FLAT:
            made.append(flat_sequence(speech, task, level))
        else:
            made.append(segment_sequence(speech, task, level, rng))
    return made


# Learning


def learn_batch(policy: Policy, batch: Sequence[TokenSequence], tokens: int) -> tuple[float, int]:
    """Add the gradient of −log p per chosen token of a batch, in micro-batches; returns that mean and how many.

    In a team every process adds that of its share, as in `update.accumulate`.
    """
    chosen = sum(sum(s.action_mask) for s in batch)
    scale = loss_scale(policy)
    parts = list(micro_batches([Credited(s, 0.0) for s in batch], tokens, shared=not policy.checkpointing))

    def loss_of(part: list[Credited]) -> torch.Tensor:
        scores = policy.log_probs([item.sequence for item in part])
        return -masked_mean(scores.logp, scores.mask, chosen) * scale

    return policy.team.add_gradient(policy, loss_of, parts) / scale, chosen


def fine_tune(
    policy: Policy,
    task: SokobanTask,
    levels: Sequence[Level],
    config: Sft,
    out: Path,
    say: Callable[[str], None] = print,
) -> list[float]:
    """Train to the last step and save the adapter in `out`; returns the loss of each step that was made now.

    The state is kept in `out`/unfinished.safetensors every `config.save_every` steps until the end. Raises `RunError`
    if it is of another configuration.
    """
    optimizer = torch.optim.AdamW(policy.trainable(), lr=config.lr, betas=(0.9, 0.95), weight_decay=0.0)
    done, losses = _restore(policy, optimizer, config, out), []
    while done < config.steps:
        rng = np.random.default_rng(np.random.SeedSequence([config.seed, done]))
        batch = demonstrations(policy, task, levels, config.batch, rng)
        loss, chosen = learn_batch(policy, batch, micro_tokens(policy, config.micro_tokens))
        for group in optimizer.param_groups:
            group["lr"] = config.lr * (1 - done / config.steps)
        if step(policy, optimizer, 1.0, loss) is None:
            raise RunError(
                f"loss or gradient of step {done + 1} is not finite: go on with a lower lr and another --out"
            )
        done += 1
        losses.append(loss)
        if done % 10 == 0 or done == config.steps:
            say(f"step {done}/{config.steps}: loss {loss:.4f} a token ({chosen} tokens)")
        if policy.team.writes and (done % config.save_every == 0 or done == config.steps):
            _keep(policy, optimizer, config, out, done)
    if policy.team.writes:
        policy.peft_model.save_pretrained(str(out), save_embedding_layers=False)
        (out / "sft.json").write_text(json.dumps({"config": as_dict(config), "losses": losses[-1:]}) + "\n", "utf-8")
        (out / STATE).unlink(missing_ok=True)
    return losses


def _keep(policy: Policy, optimizer: torch.optim.Optimizer, config: Sft, out: Path, done: int) -> None:
    tensors = {"done": torch.tensor(done)}
    for i, p in enumerate(policy.trainable()):
        tensors[f"{i}.value"] = p.detach().contiguous()
        tensors |= {f"{i}.{name}": value.contiguous() for name, value in optimizer.state.get(p, {}).items()}
    beside = out / (STATE + ".tmp")
    kept = {"config": json.dumps(as_dict(config)), "scale": json.dumps(policy.scaler.state_dict())}
    try:
        save_file(tensors, str(beside), kept)
        beside.replace(out / STATE)
    except (OSError, SafetensorError) as error:
        raise RunError(f"cannot write to {out}: {error}; what was written before is kept") from None


def _restore(policy: Policy, optimizer: torch.optim.Optimizer, config: Sft, out: Path) -> int:
    """Steps that are done already; 0 for a new folder, whose name is taken."""
    file = out / STATE
    if not file.exists():
        if (out / "adapter_config.json").exists():
            raise RunError(f"{out} holds a finished adapter; choose another --out")
        out.mkdir(parents=True, exist_ok=True)
        return 0
    try:
        tensors = load_file(str(file), device=str(policy.device))
        about = _metadata(file)
        if about["config"] != json.dumps(as_dict(config)):
            raise RunError(f"{file} was made with other settings; repeat them, or choose another --out")
        with torch.no_grad():
            for key, value in tensors.items():
                index, _, name = key.partition(".")
                if name == "value":
                    policy.trainable()[int(index)].copy_(value)
                elif index.isdigit():
                    optimizer.state[policy.trainable()[int(index)]][name] = value
        if policy.scaler.is_enabled():
            policy.scaler.load_state_dict(json.loads(about["scale"]))
    except (OSError, SafetensorError, KeyError, IndexError, RuntimeError) as error:
        raise RunError(f"cannot go on from {file}: {error}; delete it to begin anew") from None
    policy.changed()
    return int(tensors["done"])


def _metadata(file: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(str(file), framework="pt") as opened:
        return dict(opened.metadata() or {})
