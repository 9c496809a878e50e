"""How a task's actions are spelled in the tokens of a model, whatever its tokenizer.

The small model says an action in one token. A tokenizer from a hub may need several, and the first may be common to all
(a line break): what is common is written for the model, the next token is its choice, and the rest follows by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from himac_lite.errors import ModelError


class ActionTask(Protocol):
    """The part of a task that fixes which tokens may be sampled."""

    @property
    def actions(self) -> Sequence[str]: ...

    @property
    def sub_done(self) -> str: ...

    @property
    def end(self) -> str: ...


@dataclass(frozen=True)
class Codes:
    """The spelling of a task's actions.

    prefix: tokens written before every choice. actions: the chosen token → (index of the action, the tokens after it).
    sub_done: the chosen token that ends a sub-goal. end: the token that ends a blueprint.
    """

    prefix: tuple[int, ...]
    actions: dict[int, tuple[int, tuple[int, ...]]]
    sub_done: int
    end: int


def spell(
    encode: Callable[[str], list[int]], task: ActionTask, unknown: int | None, eos: int | None, name: str
) -> Codes:
    """Work out the codes of a task for a tokenizer. `name` is the model's, for errors.

    Raises `ModelError` if two actions cannot be told apart by one token, or if there is no end token.
    """

    def single(text: str) -> bool:
        ids = encode(text)
        return len(ids) == 1 and ids[0] != unknown

    actions = [encode(text) for text in task.actions]
    common = 0
    while all(len(ids) > common + 1 and ids[common] == actions[0][common] for ids in actions):
        common += 1
    prefix = actions[0][:common]
    # Without a token of its own, <sub_done> is spelled on a line of its own, as the actions are.
    stop = prefix + encode(task.sub_done) if single(task.sub_done) else encode("\n" + task.sub_done)
    if stop[:common] != prefix or len(stop) == common:
        raise ModelError(f"the tokenizer of {name} begins {task.sub_done!r} in another way than the actions")
    spelled, texts = [*actions, stop], [*task.actions, task.sub_done]
    first: dict[int, str] = {}
    for text, ids in zip(texts, spelled, strict=True):
        choice = ids[common]
        if choice in first or choice == unknown:
            other = repr(first[choice]) if choice in first else "unknown text"
            raise ModelError(f"the tokenizer of {name} cannot tell {text!r} from {other} by one token")
        first[choice] = text
    end = encode(task.end)[0] if single(task.end) else eos
    if end is None:
        raise ModelError(f"the tokenizer of {name} has neither {task.end!r} nor an end-of-text token")
    return Codes(
        tuple(prefix),
        {ids[common]: (index, tuple(ids[common + 1 :])) for index, ids in enumerate(actions)},
        stop[common],
        end,
    )
