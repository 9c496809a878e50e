"""Special tokens of the prompts, shared by all tasks."""

from __future__ import annotations

from himac_lite.types import Role

SUB_DONE = "<sub_done>"
END = "<end>"
PAD = "<pad>"
UNKNOWN = "<unk>"
AGAIN = "<again>"
MARK = {Role.PLANNER: "<plan>", Role.EXECUTOR: "<act>", Role.FLAT: "<play>"}
SPECIAL = (PAD, UNKNOWN, END, *MARK.values(), AGAIN, SUB_DONE)
