"""How a task's actions are spelled in the tokens of a model, whatever its tokenizer; and how they are read back.

A task with a fixed alphabet: the small model says an action in one token. A tokenizer from a hub may need several, and
the first may be common to all (a line break): what is common is written for the model, the next token is its choice,
and the rest follows by itself. A task whose actions are written: they are sampled token by token, to the line's end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from himac_lite.errors import ModelError
from himac_lite.tasks import Action


class ActionTask(Protocol):
    """The part of a task that fixes which tokens may be sampled."""

    @property
    def actions(self) -> Sequence[str]: ...

    @property
    def max_action_tokens(self) -> int: ...

    @property
    def sub_done(self) -> str: ...

    @property
    def end(self) -> str: ...


@dataclass(frozen=True)
class Codes:
    """The spelling of a task's actions.

    prefix: tokens written before every choice. actions: the chosen token → (index of the action, the tokens after it);
    empty where actions are written. sub_done: the chosen token that ends a sub-goal; None where it takes several.
    end: the token that ends a blueprint.
    """

    prefix: tuple[int, ...]
    actions: dict[int, tuple[int, tuple[int, ...]]]
    sub_done: int | None
    end: int

    def allowed(self, with_sub_done: bool) -> list[int] | None:
        """The tokens that may be sampled while acting; None: any."""
        if not self.actions or self.sub_done is None:
            return None
        return [*self.actions, *([self.sub_done] if with_sub_done else [])]


@dataclass(frozen=True)
class Choice:
    """What a row has chosen: an action, or None for the end of the sub-goal.

    rest: what completes its spelling. ended: in a chat, the model has ended its answer with `Codes.end`.
    """

    action: Action | None
    rest: tuple[int, ...] = ()
    ended: bool = False


class Reader:
    """Sampled tokens → choices, for the rows of one segment. Rows may be read from several threads."""

    def __init__(
        self, codes: Codes, task: ActionTask, encode: Callable[[str], list[int]], decode: Callable[[list[int]], str],
        rows: int, lines: bool = True,
    ) -> None:  # fmt: skip
        """lines: a written action that has no line break gets one; not in a chat, where it is an answer of its own."""
        self._codes, self._task, self._decode = codes, task, decode
        self._chat = not lines
        self._newline = tuple(encode("\n")) if lines and not codes.actions else ()
        self._written: list[list[int]] = [[] for _ in range(rows)]

    def read(self, row: int, token: int) -> Choice | None:
        """The choice that this token completes, or None if more tokens are needed."""
        codes, task, written = self._codes, self._task, self._written[row]
        if token == codes.sub_done and not (written and self._decode(written).strip()):
            self._written[row] = []
            return Choice(None)
        if codes.actions:
            return Choice(*codes.actions[token])
        ended = token == codes.end  # a chat model ends its turn; the line is ended for it
        if not ended:
            written.append(token)
        text = self._decode(written)
        if not ended and "\n" not in text and len(written) < task.max_action_tokens:
            return None
        self._written[row] = []
        line = text.partition("\n")[0].strip()
        return Choice(
            None if line == task.sub_done else line, () if "\n" in text else self._newline, ended and self._chat
        )


def spell(
    encode: Callable[[str], list[int]], task: ActionTask, unknown: int | None, eos: int | None, name: str
) -> Codes:
    """Work out the codes of a task for a tokenizer. `name` is the model's, for errors.

    Raises `ModelError` if two actions cannot be told apart by one token, or if there is no end token.
    """
    if not task.actions:
        return _spell_written(encode, task, unknown, eos, name)

    def single(text: str) -> bool:
        ids = encode(text)
        return len(ids) == 1 and ids[0] != unknown

    actions = [encode(text) for text in task.actions]
    common = 0
    while all(len(ids) > common + 1 and ids[common] == actions[0][common] for ids in actions):
        common += 1
    prefix = actions[0][:common]
    # Without a token of its own, <sub_done> is spelled as the actions are: on a line of its own, if they are.
    line = "\n" if task.actions[0].startswith("\n") else ""
    stop = prefix + encode(task.sub_done) if single(task.sub_done) else encode(line + task.sub_done)
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
    return Codes(
        tuple(prefix),
        {ids[common]: (index, tuple(ids[common + 1 :])) for index, ids in enumerate(actions)},
        stop[common],
        _end(encode, task, unknown, eos, name),
    )


def _spell_written(
    encode: Callable[[str], list[int]], task: ActionTask, unknown: int | None, eos: int | None, name: str
) -> Codes:
    stop = encode(task.sub_done)
    alone = len(stop) == 1 and stop[0] != unknown
    return Codes((), {}, stop[0] if alone else None, _end(encode, task, unknown, eos, name))


def _end(encode: Callable[[str], list[int]], task: ActionTask, unknown: int | None, eos: int | None, name: str) -> int:
    ids = encode(task.end)
    end = ids[0] if len(ids) == 1 and ids[0] != unknown else eos
    if end is None:
        raise ModelError(f"the tokenizer of {name} has neither {task.end!r} nor an end-of-text token")
    return end
