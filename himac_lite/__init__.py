"""himac-lite: hierarchical reinforcement learning for LLM agents (HiMAC), small enough to read and to run on a laptop.

Importing this package imports none of torch, transformers, bitsandbytes or plotly: what needs them is loaded when it is
first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.2.0"

try:  # so that gymnasium.make("himac_lite/Sokoban-v0") works after `import himac_lite`; imports nothing heavy
    from himac_lite.tasks.sokoban import register_envs

    register_envs()
except ModuleNotFoundError:  # the pure-Python core is usable without Gymnasium
    pass

_LAZY = {
    "load_levels": "tasks.sokoban.levels",
    "save_levels": "tasks.sokoban.levels",
    "solve": "tasks.sokoban.solver",
    "train": "runs.training",
    "load_run": "runs.folder",
    "HimacError": "errors",
}
__all__ = [*_LAZY, "register_envs", "__version__"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"himac_lite.{_LAZY[name]}"), name)
    try:
        return import_module(f"himac_lite.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"himac_lite.{name}":
            raise
        raise AttributeError(f"module 'himac_lite' has no attribute {name!r}") from None
