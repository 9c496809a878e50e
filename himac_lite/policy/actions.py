"""Actions of a task ↔ tokens of any tokenizer.

A task with fixed actions: one token of each action is sampled. The tokens before it, which all actions share (such as a
line break), and those after it are forced. A text-action task: an action is sampled token by token, up to a line break.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from himac_lite.errors import ModelError
from himac_lite.tasks import Action


class ActionTask(Protocol):
    """The part of a task that decides which tokens can be sampled."""

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
    """The tokens of a task's actions.

    prefix: forced tokens before every choice. actions: sampled token → (index of the action, forced tokens after it);
    empty for a text-action task. sub_done: the sampled token that ends a sub-goal; None if it takes several tokens.
    end: the token that ends a blueprint.
    """

    prefix: tuple[int, ...]
    actions: dict[int, tuple[int, tuple[int, ...]]]
    sub_done: int | None
    end: int

    def allowed(self, with_sub_done: bool) -> list[int] | None:
        """The tokens that actions can be sampled from; None: all."""
        if not self.actions or self.sub_done is None:
            return None
        return [*self.actions, *([self.sub_done] if with_sub_done else [])]


@dataclass(frozen=True)
class Choice:
    """A row's choice: an action, or None for the end of the sub-goal.

    rest: forced tokens that complete the action. ended: in a chat, the model ended its answer with `Codes.end`.
    """

    action: Action | None
    rest: tuple[int, ...] = ()
    ended: bool = False


class Reader:
    """Sampled tokens → choices, for the rows of one segment. Threads may read different rows."""

    def __init__(
        self, codes: Codes, task: ActionTask, encode: Callable[[str], list[int]], decode: Callable[[list[int]], str],
        rows: int, lines: bool = True,
    ) -> None:  # fmt: skip
        """lines: complete a text action with a line break; false in a chat, where an action is a whole answer."""
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
        ended = token == codes.end  # a chat model ends its turn without a line break
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
    """The codes of a task for a tokenizer.

    unknown, eos: the tokenizer's special ids, if it has them. name: of the model, for errors.
    Raises ModelError if one token cannot distinguish two actions, or if there is no end token.
    """

    def single(text: str) -> int | None:
        """The id of a text that is one known token."""
        ids = encode(text)
        return ids[0] if len(ids) == 1 and ids[0] != unknown else None

    end = eos if (token := single(task.end)) is None else token
    if end is None:
        raise ModelError(f"the tokenizer of {name} has neither {task.end!r} nor an end-of-text token")
    if not task.actions:
        return Codes((), {}, single(task.sub_done), end)
    actions = [encode(text) for text in task.actions]
    common = 0
    while all(len(ids) > common + 1 and ids[common] == actions[0][common] for ids in actions):
        common += 1
    prefix = actions[0][:common]
    # A <sub_done> of several tokens begins with a line break if the actions do.
    line = "\n" if task.actions[0].startswith("\n") else ""
    stop = encode(line + task.sub_done) if single(task.sub_done) is None else prefix + encode(task.sub_done)
    if stop[:common] != prefix or len(stop) == common:
        raise ModelError(f"the tokenizer of {name} does not begin {task.sub_done!r} like the actions")
    spelled, texts = [*actions, stop], [*task.actions, task.sub_done]
    first: dict[int, str] = {}
    for text, ids in zip(texts, spelled, strict=True):
        choice = ids[common]
        if choice in first or choice == unknown:
            other = repr(first[choice]) if choice in first else "unknown text"
            raise ModelError(f"the tokenizer of {name} cannot distinguish {text!r} from {other} by one token")
        first[choice] = text
    return Codes(
        tuple(prefix),
        {ids[common]: (index, tuple(ids[common + 1 :])) for index, ids in enumerate(actions)},
        stop[common],
        end,
    )
