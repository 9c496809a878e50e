"""Chat templates: what a role reads as a conversation, and where the model's own turns begin and end in it.

An instruct model expects the turns of its template. The rules of the game and of the answer are the system message
(part of the first user message where the template has no system role), the position is the first user message, every
action is a turn of the assistant and every observation one of the user. The template is rendered once for each of these
joints; token ids are carried from there on, so that what was sampled is never tokenised again. "Thinking" is switched
off where a template can: an empty thought is then part of the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from himac_lite.errors import ModelError
from himac_lite.tasks import Words

_ANSWER, _SEEN, _RULES, _QUESTION = "himacanswer", "himacseen", "himacrules", "himacquestion"
"""Words that no template contains: they mark in a rendered conversation where the contents stand."""
_SWITCHES = {"enable_thinking": False, "date_string": "26 Jul 2024"}
"""For templates that ask: no thinking (Qwen3), and a fixed day (Llama 3 writes the date: no two days' runs would be the
same)."""


@dataclass(frozen=True)
class Chat:
    """The joints of one tokenizer's chat template.

    has_system: whether the template takes a system message. after_answer, before_answer: what stands between an answer
    and the observation that follows it, and between that and the next answer. end: the token that ends an answer.
    """

    tokenizer: Any
    has_system: bool
    after_answer: str
    before_answer: str
    end: int

    def opening(self, words: Words, picture: bool = False) -> str:
        """The conversation up to where the model's first answer begins, the user's turn with the place of a picture."""
        said: list[dict[str, Any]] = [*messages(words, self.has_system)]
        if picture:
            said[-1] = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": said[-1]["content"]}]}
        return _closed(_render(self.tokenizer, said, open_turn=True))

    def reply(self, seen: str) -> str:
        """What follows an answer: its end, the observation as the user's turn, the start of the next answer."""
        return f"{self.after_answer}{seen.strip()}{self.before_answer}"


def messages(words: Words, has_system: bool = True) -> list[dict[str, str]]:
    """The first messages of a conversation; without a system role the rules begin the user's message."""
    if has_system and words.rules:
        return [{"role": "system", "content": words.rules}, {"role": "user", "content": words.situation}]
    return [{"role": "user", "content": f"{words.rules}\n\n{words.situation}".strip()}]


def chat_of(tokenizer: Any, name: str) -> Chat | None:
    """The chat of a tokenizer; None if it has no template. `name` is the model's, for errors.

    Raises `ModelError` if the template cannot hold a conversation of several turns.
    """
    if not getattr(tokenizer, "chat_template", None):
        return None
    has_system = _takes_system(tokenizer)
    start = messages(Words(_RULES, _QUESTION), has_system)
    answered = [*start, {"role": "assistant", "content": _ANSWER}]
    try:
        ended = _render(tokenizer, answered, open_turn=False).rpartition(_ANSWER)
        going_on = _render(tokenizer, [*answered, {"role": "user", "content": _SEEN}], open_turn=True).rpartition(
            _ANSWER
        )
    except Exception as error:  # whatever a template raises
        raise ModelError(f"the chat template of {name} cannot hold a conversation: {_line(error)}") from None
    after, found, before = going_on[2].partition(_SEEN)
    if not (ended[1] and going_on[1] and found and after):
        raise ModelError(f"the chat template of {name} leaves out an answer, an observation or what is between them")
    return Chat(tokenizer, has_system, after, _closed(before), _end(tokenizer, ended[2], name))


def _takes_system(tokenizer: Any) -> bool:
    """Whether a system message gets into the text; some templates refuse one, others drop it."""
    try:
        return _RULES in _render(tokenizer, messages(Words(_RULES, _QUESTION)), open_turn=True)
    except Exception:  # templates raise what they like
        return False


def _end(tokenizer: Any, tail: str, name: str) -> int:
    """The token that ends an answer: what the template writes there if that is one special token, else end of text."""
    ids = tokenizer(tail, add_special_tokens=False).input_ids
    if ids and ids[0] in {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}:
        return int(ids[0])
    if tokenizer.eos_token_id is None:
        raise ModelError(f"the chat template of {name} ends an answer with no special token, and there is no other")
    return int(tokenizer.eos_token_id)


def _render(tokenizer: Any, conversation: Sequence[dict[str, Any]], open_turn: bool) -> str:
    return str(
        tokenizer.apply_chat_template(list(conversation), tokenize=False, add_generation_prompt=open_turn, **_SWITCHES)
    )


def _closed(text: str) -> str:
    """The same without an open thought: templates that know no switch begin one where the answer should begin."""
    return f"{text.rstrip()}\n\n</think>\n\n" if text.rstrip().endswith("<think>") else text


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
