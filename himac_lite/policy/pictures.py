"""Pictures in prompts, for vision-language models of the Qwen2-VL family: a negative token id is a place of a picture.

A picture takes up many places of a prompt, and what stands there is not a token. So that all else can go on with plain
token ids, place after place of picture k is the id −1−k: two prompts are equal just when words and pictures are.
`Seeing` puts the vision tower's output there, and the positions that the model was trained with (in a picture they
count rows and columns, so that it takes up fewer positions than places; `RowCache.shift` keeps the difference for what
follows).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from himac_lite.policy.decoding import RowCache
from himac_lite.tasks import Words
from himac_lite.types import Role, SubGoal


@runtime_checkable
class Shows(Protocol):
    """An episode that can show where it stands."""

    def show(self, role: Role, subgoal: SubGoal | None = None) -> tuple[Words, np.ndarray]:
        """The words beside the picture, and the picture: uint8 [H, W, 3]."""
        ...


class Pictures:
    """The pictures of the prompts at hand, by number; equal ones have one number."""

    def __init__(self, processor: Any, token: int) -> None:
        """processor: the model's image processor. token: the id of its placeholder, in the text of a template."""
        self.processor, self.token = processor, token
        self._kept: list[np.ndarray] = []
        self._places: list[int] = []
        self._numbers: dict[bytes, int] = {}

    def ids(self, picture: np.ndarray) -> list[int]:
        """The ids of all places of a picture, uint8 [H, W, 3]."""
        key = hashlib.sha256(picture.tobytes() + str(picture.shape).encode()).digest()
        if (number := self._numbers.get(key)) is None:
            number = self._numbers[key] = len(self._kept)
            self._kept.append(picture)
            self._places.append(int(self._seen([number])[1].prod()) // self.processor.merge_size**2)
        return [-1 - number] * self._places[number]

    def forget(self) -> None:
        """Drop all pictures: ids that were given out mean nothing any more."""
        self._kept, self._places, self._numbers = [], [], {}

    def of(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The pictures in rows of ids [B, T], in reading order: patches [·, ·] and grids int64 [pictures, 3]."""
        numbers: list[int] = []
        for row in ids.tolist():
            before = 0
            for i in row:
                if i < 0 and i != before:
                    numbers.append(-1 - i)
                before = i
        return self._seen(numbers)

    def _seen(self, numbers: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        made = self.processor(
            images=[self._kept[n] for n in numbers], return_tensors="pt", input_data_format="channels_last"
        )
        return made["pixel_values"], made["image_grid_thw"]


class Seeing(torch.nn.Module):
    """A vision-language model as a causal language model over ids with pictures in them."""

    def __init__(self, model: Any, pictures: Pictures) -> None:
        super().__init__()
        self.model, self.pictures = model, pictures

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, position_ids: torch.Tensor,
        past_key_values: RowCache | None, **others: Any,
    ) -> Any:  # fmt: skip
        places = input_ids < 0
        if not places.any():
            shift = None if past_key_values is None else past_key_values.shift
            return self.model(
                input_ids=input_ids, attention_mask=attention_mask, past_key_values=past_key_values,
                position_ids=position_ids if shift is None else position_ids + shift, **others,
            )  # fmt: skip
        patches, grids = (t.to(input_ids.device) for t in self.pictures.of(input_ids))
        ids = torch.where(places, self.pictures.token, input_ids)
        inner = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        positions, shift = inner.model.get_rope_index(
            ids, places.int(), image_grid_thw=grids,
            attention_mask=torch.ones_like(ids) if attention_mask is None else attention_mask,
        )  # fmt: skip
        if past_key_values is not None:
            past_key_values.shift = shift
        return self.model(
            input_ids=ids, attention_mask=attention_mask, position_ids=positions, past_key_values=past_key_values,
            pixel_values=patches, image_grid_thw=grids, **others,
        )  # fmt: skip
