"""Export: merged weights with a model card, which plain transformers opens; rollouts as conversations.

The adapter needs no export: plain `peft` opens a checkpoint's folder. The adapter is merged into the dequantised
weights, W = dequantise(NF4) + s·B·A, which is the function that was trained and scored. Merged into the original
weights it would differ by NF4's rounding.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from himac_lite import storage
from himac_lite.errors import ConfigError, ModelError, RunError
from himac_lite.policy.chat import messages
from himac_lite.policy.conv1d import as_conv1d
from himac_lite.policy.loading import dense_model
from himac_lite.policy.model import OF_EXECUTOR, Policy, factors
from himac_lite.runs.folder import Run
from himac_lite.tasks import Describes, Task, Words
from himac_lite.tasks.sokoban.levels import parse_levels
from himac_lite.types import Role, SubGoal

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
FORMATS = ("messages", "prompt-completion")


def merged_model(policy: Policy, dtype: torch.dtype = torch.float32) -> Any:
    """A plain transformers model on the CPU that computes the same function as the policy, with weights of `dtype`.

    Raises `ModelError` if planner and executor have separate adapters: they are two models.
    """
    if OF_EXECUTOR in policy.peft_model.peft_config:
        raise ModelError("planner and executor of this run have separate adapters: they do not merge into one model")
    model, adapted = dense_model(policy)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name in adapted:
                a, b, s = factors(adapted[name], policy.adapter)
                p += (s * (b @ a)).to(p.device, p.dtype)
    as_conv1d(model)
    return model.to(dtype)


def export_model(policy: Policy, out: Path, card: str, dtype: str = "bfloat16") -> None:
    """Write merged weights, tokenizer and card to a new folder. Raises `RunError` if it exists or cannot be written."""
    if dtype not in DTYPES:
        raise ConfigError(f"unknown dtype {dtype!r}; choose one of {', '.join(DTYPES)}")
    if out.exists():
        raise RunError(f"{out} exists; choose another --out")
    model = merged_model(policy, DTYPES[dtype])
    with storage.beside(out) as made:
        model.save_pretrained(str(made))
        policy.tokenizer.save_pretrained(str(made))
        (made / "README.md").write_text(card, "utf-8")


def model_card(run: Run, iteration: int, dtype: str) -> str:
    """The card of an exported run: its base model, training and scores, and how to load it."""
    config, results = run.config, run.results
    base = _public(config.model.path)
    hub = f"base_model: {base}\n" if base.count("/") == 1 else ""
    scores = "The run was not scored: it is unfinished.\n"
    if results:
        rows = "".join(
            f"| {name} | {100 * s['success']:.1f} % | {100 * s['ci95'][0]:.1f}–{100 * s['ci95'][1]:.1f} | {s['n']} |\n"
            for name in ("random", "base", "trained")
            for s in (results[name],)
        )
        scores = (
            f"Greedy, {results['mode']}, on {_public(results['levels'])} (Wilson's 95 % interval); measured in 4 bit "
            f"with the adapter, before merging:\n\n| | solved | interval, % | levels |\n|---|---|---|---|\n{rows}"
        )
    revision = f" (revision `{config.model.revision}`)" if hub else ""
    begun = " It started from an adapter fine-tuned on solver demonstrations." if config.model.adapter else ""
    return (
        f"---\nlibrary_name: transformers\n{hub}tags: [himac-lite, reinforcement-learning, sokoban]\n---\n"
        f"# {base.rpartition('/')[2]}, trained with himac-lite ({run.variant})\n\n"
        f"{base}{revision} in NF4 with LoRA of rank {config.model.rank}, trained for {iteration} iterations of "
        f"{config.rollout.levels} levels × {config.rollout.group} rollouts of {_public(config.train_levels)} (seed "
        f"{config.seed}).{begun} The adapter is merged into the dequantised NF4 weights, saved in {dtype}.\n\n"
        f"## Scores\n\n{scores}\n"
        "## Use\n\n```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        "tokenizer = AutoTokenizer.from_pretrained(FOLDER)\nmodel = AutoModelForCausalLM.from_pretrained(FOLDER)\n"
        "```\n\n"
        "or `himac-lite evaluate FOLDER`. The prompts are those of himac_lite "
        "(`himac_lite/tasks/sokoban/instructions.py`, or `himac_lite/tasks/sokoban/language.py` for the shipped small "
        "model).\n\n## Limits\n\nIt was trained for one game and one way of writing sub-goals. "
        "The licence is that of the base model.\n"
    )


def _public(path: str) -> str:
    """The last part of a path on this machine; a split or a hub id unchanged."""
    return Path(path).name if Path(path).is_absolute() else path


# Rollouts as conversations


def conversations(run: Run, task: Task, form: str = "messages", solved_only: bool = False) -> Iterator[dict[str, Any]]:
    """One dict per recorded blueprint and segment (or flat episode), in the formats that TRL reads.

    form: ``messages`` ({"messages": [system, user, assistant, user, assistant …]}), or ``prompt-completion``
    ({"prompt": [… user], "completion": [assistant]}) once per answer, because a trainer learns every turn of a
    completion, the user's too. Further keys: role, iteration, return, advantage, success. The prompts are those of
    `instructions`; the game is replayed from the recorded moves. Raises `ConfigError` for an unknown form.
    """
    if form not in FORMATS:
        raise ConfigError(f"unknown format {form!r}; choose one of {', '.join(FORMATS)}")
    if run.config.task != "sokoban":
        raise ConfigError(
            f"rollouts of {run.config.task} cannot be replayed from their records; only sokoban's can be exported"
        )
    for iteration in run.recorded_iterations():
        for record in run.rollouts(iteration):
            for kept, about in _level(record, task):
                if not solved_only or about["success"]:
                    yield from _formed(kept, {**about, "iteration": iteration}, form)


def _level(record: Mapping[str, Any], task: Task) -> Iterator[tuple[list[dict[str, str]], dict[str, Any]]]:
    """(conversation, its role and outcome) of each member of a record's groups."""
    (level,) = parse_levels(record["level"])
    for member in record.get("macro", {}).get("members", ()):
        episode = task.start(level)
        opening = messages(_words(episode, Role.PLANNER, None))
        answer = {"role": "assistant", "content": member["blueprint"].strip("\n")}
        yield [*opening, answer], _about("planner", member)
    micro = record.get("micro", {"blueprint": None, "members": ()})
    for member in micro["members"]:
        episode, moves = task.start(level), iter(member["moves"])
        for segment in member["segments"]:
            role = Role.FLAT if micro["blueprint"] is None else Role.EXECUTOR
            goal = SubGoal(segment["subgoal"]) if role is Role.EXECUTOR else None
            conversation = messages(_words(episode, role, goal))
            for _ in range(segment["steps"]):
                action = "udlr".index(next(moves).lower())
                conversation.append({"role": "assistant", "content": task.actions[action].strip()})
                conversation.append({"role": "user", "content": episode.act(action).strip()})
            if segment["end"] == "sub_done":
                conversation.append({"role": "assistant", "content": task.sub_done})
            elif segment["steps"]:
                conversation.pop()  # the model did not read the last observation
            if conversation[-1]["role"] == "assistant":
                yield conversation, _about(role.value, member)


def _words(episode: Any, role: Role, goal: SubGoal | None) -> Words:
    return episode.describe(role, goal) if isinstance(episode, Describes) else Words("", episode.prompt(role, goal))


def _about(role: str, member: Mapping[str, Any]) -> dict[str, Any]:
    return {"role": role, **{name: member[name] for name in ("return", "advantage", "success")}}


def _formed(conversation: Sequence[dict[str, str]], about: dict[str, Any], form: str) -> Iterator[dict[str, Any]]:
    if form == "messages":
        yield {"messages": list(conversation), **about}
        return
    for i, message in enumerate(conversation):
        if message["role"] == "assistant":
            yield {"prompt": list(conversation[:i]), "completion": [message], **about}


def write_conversations(rows: Iterator[dict[str, Any]], file: Path) -> int:
    """Write JSON lines and return their number. Raises `RunError` if there are none, or they cannot be written."""
    count = 0
    with storage.beside(file) as made, made.open("w", encoding="utf-8", newline="\n") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
        if not count:
            raise RunError("no recorded rollout fits: nothing was written")
    return count
