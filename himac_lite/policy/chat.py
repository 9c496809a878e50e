"""Chat templates: prompts as conversations, for instruct models.

The rules are the system message, or part of the first user message if the template has no system role. The state is the
first user message. Every action is an assistant turn, every observation a user turn. The template is rendered once for
the text between the turns, so sampled tokens are never tokenised again. "Thinking" is off: an empty thought is part of
the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from himac_lite.errors import ModelError, first_line
from himac_lite.tasks import Words

_ANSWER, _SEEN, _RULES, _QUESTION = "himacanswer", "himacseen", "himacrules", "himacquestion"
"""Words that no template contains. They mark the contents in a rendered conversation."""
_SWITCHES = {"enable_thinking": False, "date_string": "26 Jul 2024"}
"""Template variables: no thinking (Qwen3), and a fixed date (Llama 3 writes it), for reproducible prompts."""


@dataclass(frozen=True)
class Chat:
    """The fixed texts of one tokenizer's chat template.

    has_system: whether the template has a system role. after_answer: text between an answer and the observation.
    before_answer: text between the observation and the next answer. end: the token that ends an answer.
    """

    tokenizer: Any
    has_system: bool
    after_answer: str
    before_answer: str
    end: int

    def opening(self, words: Words, picture: bool = False) -> str:
        """The conversation before the first answer. picture: with the placeholder of a picture in the user's turn."""
        said: list[dict[str, Any]] = [*messages(words, self.has_system)]
        if picture:
            said[-1] = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": said[-1]["content"]}]}
        return _closed(_render(self.tokenizer, said, open_turn=True))

    def reply(self, seen: str) -> str:
        """The text after an answer: its end, the observation as a user turn, and the start of the next answer."""
        return f"{self.after_answer}{seen.strip()}{self.before_answer}"


def messages(words: Words, has_system: bool = True) -> list[dict[str, str]]:
    """The first messages of a conversation. Without a system role the user message starts with the rules."""
    if has_system and words.rules:
        return [{"role": "system", "content": words.rules}, {"role": "user", "content": words.situation}]
    return [{"role": "user", "content": f"{words.rules}\n\n{words.situation}".strip()}]


def chat_of(tokenizer: Any, name: str) -> Chat | None:
    """The chat of a tokenizer; None if it has no template.

    name: of the model, for errors. Raises ModelError if the template does not support several turns.
    """
    if not getattr(tokenizer, "chat_template", None):
        return None
    has_system = _takes_system(tokenizer)
    start = messages(Words(_RULES, _QUESTION), has_system)
    answered = [*start, {"role": "assistant", "content": _ANSWER}]
    try:
        ended = _render(tokenizer, answered, open_turn=False).rpartition(_ANSWER)
        replied = _render(tokenizer, [*answered, {"role": "user", "content": _SEEN}], open_turn=True)
    except Exception as error:  # templates raise any type
        raise ModelError(f"the chat template of {name} cannot hold a conversation: {first_line(error)}") from None
    _, answer, rest = replied.rpartition(_ANSWER)
    after, found, before = rest.partition(_SEEN)
    if not (ended[1] and answer and found and after):
        raise ModelError(f"the chat template of {name} omits an answer, an observation or the text between them")
    return Chat(tokenizer, has_system, after, _closed(before), _end(tokenizer, ended[2], name))


def _takes_system(tokenizer: Any) -> bool:
    """Whether the text contains a system message; some templates refuse one, others drop it."""
    try:
        return _RULES in _render(tokenizer, messages(Words(_RULES, _QUESTION)), open_turn=True)
    except Exception:  # templates raise any type
        return False


def _end(tokenizer: Any, tail: str, name: str) -> int:
    """The token that ends an answer: the template's special token there, otherwise end of text."""
    ids = tokenizer(tail, add_special_tokens=False).input_ids
    if ids and ids[0] in {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}:
        return int(ids[0])
    if tokenizer.eos_token_id is None:
        raise ModelError(f"the chat template of {name} has no special token after an answer, nor is there an eos token")
    return int(tokenizer.eos_token_id)


def _render(tokenizer: Any, conversation: Sequence[dict[str, Any]], open_turn: bool) -> str:
    return str(
        tokenizer.apply_chat_template(list(conversation), tokenize=False, add_generation_prompt=open_turn, **_SWITCHES)
    )


def _closed(text: str) -> str:
    """Close a thought that a template without a switch opens before the answer."""
    return f"{text.rstrip()}\n\n</think>\n\n" if text.rstrip().endswith("<think>") else text
