"""Chat templates: prompts as conversations, for instruct models.

The rules are the system message, or part of the first user message if the template has no system role. The state is the
first user message. Every action is an assistant turn, every observation a user turn. The template is rendered once for
the text between the turns, so sampled tokens are never tokenised again. "Thinking" is off: an empty thought is part of
the prompt.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from himac_lite.errors import ModelError, first_line
from himac_lite.tasks import Words

_ANSWER, _SEEN, _RULES, _QUESTION = "himacanswer", "himacseen", "himacrules", "himacquestion"
"""Words that no template contains. They mark the contents in a rendered conversation."""
DAY = datetime(2024, 7, 26)
"""The day that templates write in place of today's, so that prompts are the same on another day."""
_FROZEN = (
    "{% macro strftime_now(form) %}{{ form"
    + "".join(f"|replace('%{code}', '{DAY.strftime('%' + code)}')" for code in "dbBmyYaAjHIMSp")
    + " }}{% endmacro %}"
)
"""A definition in front of a template, in place of the library's function, which reads the clock."""
_SWITCHES = {"enable_thinking": False, "date_string": "26 Jul 2024"}
"""Template variables: no thinking (Qwen3), and a fixed date (Llama 3 writes it)."""
TURNS = 3
"""Answers of the conversation by which a template is judged."""
_THOUGHT = re.compile(r"<think>\s*</think>\s*")


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
    found: Chat | str = "it has no turns"
    for has_system in (True, False) if _takes_system(tokenizer) else (False,):
        # Some templates put the system message into the last user turn; then the rules go into the first.
        found = _joints(tokenizer, has_system, name)
        if isinstance(found, Chat):
            return found
    raise ModelError(f"the chat template of {name} cannot be used: {found}")


def _joints(tokenizer: Any, has_system: bool, name: str) -> Chat | str:
    """The fixed texts of a template, or the reason why it has none."""
    conversation: list[dict[str, str]] = messages(Words(_RULES, _QUESTION), has_system)
    rendered, answered = [], ""
    try:
        opening = _closed(_render(tokenizer, conversation, open_turn=True))
        for turn in range(TURNS):
            conversation.append({"role": "assistant", "content": f"{_ANSWER}{turn}"})
            answered = answered or _render(tokenizer, conversation, open_turn=False)
            conversation.append({"role": "user", "content": f"{_SEEN}{turn}"})
            rendered.append(_render(tokenizer, conversation, open_turn=True))
    except Exception as error:  # templates raise any type
        return f"it fails for several turns: {first_line(error)}"
    joints = []
    for turn, text in enumerate(rendered):
        _, answer, rest = text.rpartition(f"{_ANSWER}{turn}")
        after, seen, before = rest.partition(f"{_SEEN}{turn}")
        if not (answer and seen and after):
            return "it omits an answer, an observation or the text between them"
        joints.append((after, _closed(before)))
    after, before = joints[0]
    if any(word in after + before for word in (_RULES, _QUESTION, _ANSWER, _SEEN)):
        return "it repeats an earlier message in a later turn"
    whole = opening + "".join(f"{_ANSWER}{turn}{after}{_SEEN}{turn}{before}" for turn in range(TURNS))
    if set(joints) != {joints[0]} or _thoughtless(whole) != _thoughtless(rendered[-1]):
        return "what it writes depends on the position of a turn"
    _, found, tail = answered.rpartition(f"{_ANSWER}0")
    if not found:
        return "it omits the last answer"
    return Chat(tokenizer, has_system, after, before, _end(tokenizer, tail, name))


def _thoughtless(text: str) -> str:
    """Without empty thoughts, which templates drop from earlier turns, and without space at the end of lines."""
    return re.sub(r"\s*\n\s*", "\n", _THOUGHT.sub("", _closed(text))).strip()


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
    template: str | None = None
    if "strftime_now" in (written := tokenizer.get_chat_template()):
        template = _FROZEN + written
    return str(
        tokenizer.apply_chat_template(
            list(conversation), chat_template=template, tokenize=False, add_generation_prompt=open_turn, **_SWITCHES
        )
    )


def _closed(text: str) -> str:
    """Close a thought that a template without a switch opens before the answer."""
    return f"{text.rstrip()}\n\n</think>\n\n" if text.rstrip().endswith("<think>") else text
