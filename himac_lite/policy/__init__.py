"""One causal language model in several roles: prompts, decoding and the update. Start with `model` and `update`."""

from logging import ERROR, getLogger

# Set before any module of this room imports it: bitsandbytes logs advice on optional kernels while it is imported.
getLogger("bitsandbytes").setLevel(ERROR)
