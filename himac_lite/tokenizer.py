"""The small model's own tokenizer: one token for each thing the language says, as a standard `tokenizers` file."""

from __future__ import annotations

import re
from typing import Any

from himac_lite import language


def build_tokenizer() -> Any:
    """A `PreTrainedTokenizerFast` whose tokens are `language.vocabulary()`; decoding gives the text back exactly."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = language.vocabulary()
    plain = [t for t in tokens if t not in language.SPECIAL]
    # Longest first: a border token begins like a row separator, which begins like a wall.
    pattern = "|".join(re.escape(t).replace("\\\n", r"\n") for t in sorted(plain, key=len, reverse=True))
    tokenizer = Tokenizer(models.WordLevel({t: i for i, t in enumerate(tokens)}, unk_token=language.UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    named = (language.PAD, language.UNKNOWN, language.END)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=language.PAD, unk_token=language.UNKNOWN, eos_token=language.END,
        additional_special_tokens=[t for t in language.SPECIAL if t not in named],
        padding_side="left", clean_up_tokenization_spaces=False,
    )  # fmt: skip
    return fast
