"""The text side of a policy: prompts, observations and actions as token ids of one tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from himac_lite.errors import ModelError
from himac_lite.policy.actions import ActionTask, Codes, Reader, spell
from himac_lite.policy.chat import Chat
from himac_lite.policy.pictures import Pictures, Shows
from himac_lite.tasks import Describes, Episode, Words, marks
from himac_lite.types import Role, SubGoal


class Speech:
    """Text ↔ token ids.

    chat: None without a chat template. pictures: None except for a vision-language model. vocabulary: number of token
    ids that the model has embeddings of; 0: not known.
    """

    tokenizer: Any
    name: str
    chat: Chat | None
    pictures: Pictures | None
    vocabulary: int
    _text_cache: dict[str, list[int]]
    _lock: Any

    def encode(self, text: str, prompt: bool = True) -> list[int]:
        """Token ids of a prompt, or of its continuation if `prompt` is false."""
        key = f"{prompt:d}{text}"
        if (ids := self._text_cache.get(key)) is None:
            with self._lock:  # a tokenizer serves one thread at a time
                if len(self._text_cache) > 50_000:
                    self._text_cache.clear()
                ids = list(self.tokenizer(text, add_special_tokens=prompt).input_ids)
                self.refuse_unknown(ids)
                self._text_cache[key] = ids
        return list(ids)

    def refuse_unknown(self, ids: Sequence[int]) -> None:
        """Raise ModelError for a token that the tokenizer knows and the model has no embedding of."""
        if self.vocabulary and max(ids, default=0) >= self.vocabulary:
            token = self.tokenizer.convert_ids_to_tokens(max(ids))
            raise ModelError(
                f"the tokenizer of {self.name!r} does not fit its model: it writes {token!r} as number {max(ids)}, and "
                f"the model has {self.vocabulary} embeddings"
            )

    def text(self, ids: Sequence[int]) -> str:
        if self.pictures is not None:
            ids = [i if i >= 0 else self.pictures.token for i in ids]
        return str(self.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

    def prompt(self, episode: Episode, role: Role, subgoal: SubGoal | None = None) -> list[int]:
        """Token ids of a role's prompt in the current state.

        The small model's tokenizer has its own words; any other gets plain language. With a chat template the prompt is
        a conversation up to the answer. With `pictures` it includes a picture of the state.
        """
        if self.pictures is not None and self.chat is not None and isinstance(episode, Shows):
            words, picture = episode.show(role, subgoal)
            mark = self.tokenizer.convert_ids_to_tokens(self.pictures.token)
            before, _, after = self.chat.opening(words, picture=True).partition(mark)
            return [
                *self.encode(before, prompt=False), *self.pictures.ids(picture), *self.encode(after, prompt=False)
            ]  # fmt: skip
        if self.chat is None and (self._small or not isinstance(episode, Describes)):
            return self.encode(episode.prompt(role, subgoal))
        if isinstance(episode, Describes):
            words = episode.describe(role, subgoal)
        else:
            words = Words("", episode.prompt(role, subgoal))
        if self.chat is None:
            return self.encode(f"{words.rules}\n\n{words.situation}\n")
        return self.encode(self.chat.opening(words), prompt=False)  # the template adds special tokens

    def forget(self) -> None:
        """Drop the pictures of finished prompts. Their ids become invalid."""
        if self.pictures is not None:
            self.pictures.forget()

    def observed(self, text: str, ended: bool = False) -> list[int]:
        """Token ids of the observation after an action; in a chat, of the whole text up to the next answer.

        ended: the model has sampled the token that ends its answer, so it is not repeated.
        """
        if self.chat is None:
            return self.encode(text, prompt=False)
        ids = self.encode(self.chat.reply(text), prompt=False)
        return ids[1:] if ended and ids[0] == self.chat.end else ids

    def reader(self, task: ActionTask, rows: int) -> Reader:
        """A reader of the sampled tokens of `rows` rows."""
        return Reader(
            self.codes(task), task, lambda text: self.encode(text, prompt=False), self.text, rows, self.chat is None
        )

    def plan_tokens(self, task: Any) -> int:
        """Largest number of tokens of a blueprint, at least that of the task's longest one."""
        longest = getattr(task, "longest_plan", None)
        room = len(self.encode(longest, prompt=False)) + 1 if longest else 0
        return max(int(task.max_plan_tokens), room)

    @property
    def _small(self) -> bool:
        """Whether the tokenizer has the small model's special tokens, such as ``<plan>``."""
        ids = self.encode(marks.MARK[Role.PLANNER], prompt=False)
        return len(ids) == 1 and ids[0] != self.tokenizer.unk_token_id

    def codes(self, task: ActionTask) -> Codes:
        """The tokens of the task's actions. In a chat an action is a whole answer, without the line break before it.

        Raises ModelError if the tokenizer cannot distinguish the actions.
        """
        end = self.tokenizer.eos_token_id if self.chat is None else self.chat.end
        if self.chat is not None and task.actions:
            task = replace(cast(Any, task), actions=tuple(text.strip() for text in task.actions))
        return spell(lambda text: self.encode(text, prompt=False), task, self.tokenizer.unk_token_id, end, self.name)
