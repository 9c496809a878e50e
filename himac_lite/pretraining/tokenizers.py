"""The small models' own tokenizers, as standard `tokenizers` files.

Sokoban's has one token for each piece of its language; that of a text-action task is a byte-level BPE.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from himac_lite.tasks import marks
from himac_lite.tasks.sokoban import language


def build_tokenizer() -> Any:
    """A `PreTrainedTokenizerFast` whose tokens are `language.vocabulary()`; decoding gives the text back exactly."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    tokens = language.vocabulary()
    plain = [t for t in tokens if t not in marks.SPECIAL]
    # Longest first: a border token begins like a row separator, which begins like a wall.
    pattern = "|".join(re.escape(t).replace("\\\n", r"\n") for t in sorted(plain, key=len, reverse=True))
    tokenizer = Tokenizer(models.WordLevel({t: i for i, t in enumerate(tokens)}, unk_token=marks.UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return _fast(tokenizer)


def build_text_tokenizer(texts: Iterable[str], size: int) -> Any:
    """A `PreTrainedTokenizerFast` for tasks in plain words: byte-level BPE of at most `size` tokens, learnt from texts.

    Any text can be written in it and read back. A line break is always a token of its own; numbers are cut into pairs
    of digits. What divides WebShop's texts, and a colon, take both their spaces, so that what stands after them is
    spelled as in ``click[navy]`` and can be copied token by token. The marks of the prompts are the special tokens that
    the Sokoban tokenizer has.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    pieces = Regex(r":? \[SEP\] |: |\n| ?[0-9]{1,2}| ?\p{L}+| ?[^\s\p{L}0-9]+|\s")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pieces, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, min_frequency=2, special_tokens=list(marks.SPECIAL), show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    return _fast(tokenizer)


def _fast(tokenizer: Any) -> Any:
    from transformers import PreTrainedTokenizerFast

    named = (marks.PAD, marks.UNKNOWN, marks.END)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=marks.PAD, unk_token=marks.UNKNOWN, eos_token=marks.END,
        additional_special_tokens=[t for t in marks.SPECIAL if t not in named],
        padding_side="left", clean_up_tokenization_spaces=False,
    )  # fmt: skip
