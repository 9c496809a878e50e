"""Pictures in prompts, for vision-language models of the Qwen2-VL family.

A picture occupies many places of a prompt. Each place of picture k has the token id −1−k, so prompts remain lists of
ids, and equal prompts have equal words and pictures. `Seeing` replaces these ids by the output of the vision tower. It
also computes positions, which count rows and columns inside a picture. A picture has fewer positions than places, and
`RowCache.shift` keeps the difference for later tokens.
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
    """An episode that can draw its state."""

    def show(self, role: Role, subgoal: SubGoal | None = None) -> tuple[Words, np.ndarray]:
        """The words beside the picture, and the picture, uint8 [H, W, 3]."""


class Pictures:
    """The numbered pictures of current prompts; equal pictures share a number."""

    def __init__(self, processor: Any, token: int) -> None:
        """processor: the model's image processor. token: the id of the picture's placeholder."""
        self.processor, self.token = processor, token
        self._kept: list[np.ndarray] = []
        self._places: list[int] = []
        self._numbers: dict[bytes, int] = {}

    def ids(self, picture: np.ndarray) -> list[int]:
        """The ids of all places of a picture. picture: uint8 [H, W, 3]."""
        key = hashlib.sha256(picture.tobytes() + str(picture.shape).encode()).digest()
        if (number := self._numbers.get(key)) is None:
            number = self._numbers[key] = len(self._kept)
            self._kept.append(picture)
            self._places.append(int(self._seen([number])[1].prod()) // self.processor.merge_size**2)
        return [-1 - number] * self._places[number]

    def forget(self) -> None:
        """Drop all pictures. Their ids become invalid."""
        self._kept, self._places, self._numbers = [], [], {}

    def of(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The pictures in ids [B, T], in reading order, as patches [·, ·] and grids int64 [pictures, 3]."""
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
    """A vision-language model as a causal language model over ids that include pictures."""

    def __init__(self, model: Any, pictures: Pictures) -> None:
        super().__init__()
        self.model, self.pictures = model, pictures

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, position_ids: torch.Tensor,
        past_key_values: RowCache | None, **others: Any,
    ) -> Any:  # fmt: skip
        places = input_ids < 0
        if places.any():
            patches, grids = (t.to(input_ids.device) for t in self.pictures.of(input_ids))
            others |= {"pixel_values": patches, "image_grid_thw": grids}
            input_ids = torch.where(places, self.pictures.token, input_ids)
            present = torch.ones_like(input_ids) if attention_mask is None else attention_mask
            inner = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
            position_ids, shift = inner.model.get_rope_index(
                input_ids, places.int(), image_grid_thw=grids, attention_mask=present
            )
            if past_key_values is not None:
                past_key_values.shift = shift
        elif past_key_values is not None and past_key_values.shift is not None:
            position_ids = position_ids + past_key_values.shift
        return self.model(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids,
            past_key_values=past_key_values, **others,
        )  # fmt: skip
