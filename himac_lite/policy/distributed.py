"""Several processes as one run, started by `accelerate launch -m himac_lite train …`.

Every rank runs the same program on the same levels with the same random numbers. Ranks share only the model's work: a
rank decodes its share of the prompts and computes the gradient of its share of the micro-batches. Then they exchange
sampled tokens and gradients. Every rank steps all environments. Only rank 0 writes. On CPUs the results have the same
bits for any number of processes. On CUDA the order of floating-point additions differs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch

from himac_lite.errors import ConfigError, RunError, first_line
from himac_lite.policy.parallel import gradient_of, map_in_order, summed_gradients
from himac_lite.types import Sampling

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Team:
    """The processes of a run: the rank of this one, and their number."""

    rank: int = 0
    size: int = 1

    @property
    def writes(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks in order, on every rank."""
        if self.alone:
            return [value]
        from accelerate.utils import gather_object

        with _together():
            return list(gather_object([value]))

    def agree(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        return self.gather(value if self.writes else None)[0]

    def least(self, value: int) -> int:
        """The smallest value of all ranks, on every rank."""
        return int(min(self.gather(value)))

    def spread(self, items: Sequence[Item], work: Callable[[list[Item]], Sequence[Result]]) -> list[Result]:
        """Results of all items in order; each rank computes its share."""
        return [result for part in self.gather(list(work(self.own(items)))) for result in part]

    def own(self, items: Sequence[Item]) -> list[Item]:
        """This rank's share of the items: consecutive items, in the order of the ranks."""
        n = len(items)
        return list(items[self.rank * n // self.size : (self.rank + 1) * n // self.size])

    @property
    def alone(self) -> bool:
        """Whether this is the only process."""
        return self.size == 1

    def rows(self, prompts: Sequence[Sequence[int]], batches: Sequence[list[int]] | None) -> list[int]:
        """Rows that this process decodes: its share of the batches, or of the prompts if `batches` is None."""
        if self.alone:
            return list(range(len(prompts)))
        if batches is None:
            return shares([tuple(p) for p in prompts], self.size)[self.rank]
        return sorted(row for batch in batches[self.rank :: self.size] for row in batch)

    def numbers(self, sampling: Sampling, rows: int, draws: int, own: Sequence[int]) -> np.ndarray | None:
        """Random numbers [own rows, draws] for sampling. Every process draws those of all rows.

        None for greedy decoding, and for a single process, which draws in `decode`.
        """
        if self.alone or not sampling.temperature or sampling.rng is None:
            return None
        drawn: np.ndarray = sampling.rng.random((rows, draws))[list(own)]
        return drawn

    def whole(self, share: Sequence[int], own: Sequence[Any], react: Callable[[int, int], Any]) -> list[Any]:
        """The streams of all rows, from the share of every rank.

        `react` is called for the tokens of other ranks as well, so that every rank steps all environments.
        """
        streams = dict(zip(share, own, strict=True))
        for rank, (rows, theirs) in enumerate(self.gather((share, own))):
            for row, stream in zip(rows, theirs, strict=True) if rank != self.rank else ():
                streams[row] = stream
                for token, sampled in zip(stream.ids, stream.sampled, strict=True):
                    if sampled:
                        react(row, token)
        return [streams[row] for row in range(len(streams))]

    def added_in_order(
        self, parts: Sequence[Sequence[torch.Tensor]], like: Sequence[torch.Tensor]
    ) -> list[torch.Tensor]:
        """Σ of all ranks' parts, added in the order of a single process. like: tensors of a part's shapes."""
        total = [torch.zeros_like(t) for t in like]
        for rank in range(self.size):
            for part in parts if rank == self.rank else ():
                for t, more in zip(total, part, strict=True):
                    t += more
            total = self.gather(total if rank == self.rank else None)[rank]
        return total

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Replace every gradient by its sum over the ranks, added in float64."""
        if self.alone:
            return
        sizes = [p.numel() for p in parameters]
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten().double() for p in parameters])
        for p, part in zip(parameters, self.added(flat).split(sizes), strict=True):
            p.grad = part.view_as(p).to(p.dtype)

    def added(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum of all ranks' tensors, on every rank."""
        from accelerate.utils import reduce

        with _together():
            return reduce(tensor, reduction="sum")

    def add_gradient(self, policy: Any, loss_of: Callable[[Item], torch.Tensor], parts: Sequence[Item]) -> float:
        """Add the gradient of Σ loss over the parts to the policy's LoRA parameters; returns Σ loss.

        Every process computes its share. On a CPU the shares are added in the order of the parts, for the same bits as
        one process. On CUDA the LoRA gradients are reduced in float64.
        """
        own, leaves = self.own(parts), policy.leaves()
        if self.alone:
            loss, gradients = summed_gradients(loss_of, own, leaves, policy.workers)
            policy.pull_back(gradients)
            return loss
        made = list(map_in_order(lambda part: gradient_of(loss_of, part, leaves), own, policy.workers))
        if policy.twin is not None:
            policy.pull_back(self.added_in_order([gradients for _, gradients in made], leaves))
        else:
            for _, own_gradients in made:
                policy.pull_back(own_gradients)
            self.sum_gradients(policy.in_use())
        return sum(self.spread(parts, lambda _: [loss for loss, _ in made]))


ALONE = Team()
LAUNCH = "accelerate launch -m himac_lite train …"


def team() -> Team:
    """The processes that `accelerate launch` started, otherwise `ALONE`.

    Raises `ConfigError` for an environment that no launcher makes: the backend would wait for half an hour.
    """
    size = _from_environment("WORLD_SIZE", 1, 2**31 - 1) or 1
    if size == 1:
        return ALONE
    for name, low, high in (("RANK", 0, size - 1), ("LOCAL_RANK", 0, size - 1), ("MASTER_PORT", 1, 65_535)):
        _launched(name, _from_environment(name, low, high))
    _launched("MASTER_ADDR", os.environ.get("MASTER_ADDR", "").strip() or None)
    from accelerate import PartialState

    with _together():
        state = PartialState(cpu=not torch.cuda.is_available())
    return Team(state.process_index, state.num_processes)


def leave() -> None:
    """Leave the process group, if there is one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def device() -> str:
    """The device of this process: its own GPU, or the CPU."""
    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{_from_environment('LOCAL_RANK', 0, torch.cuda.device_count() - 1) or 0}"


def _from_environment(name: str, low: int, high: int) -> int | None:
    """A whole number from the environment; None if the variable is unset or empty."""
    text = os.environ.get(name, "").strip()
    if text and not (text.isdecimal() and low <= int(text) <= high):
        raise ConfigError(
            f"{name} in the environment must be a whole number from {low} to {high}, not {text!r:.80}: unset it, or "
            f"start several processes with {LAUNCH}"
        )
    return int(text) if text else None


def _launched(name: str, value: object) -> None:
    if value is None:
        raise ConfigError(f"WORLD_SIZE is set, but {name} is not: unset it, or start several processes with {LAUNCH}")


def shares(keys: Sequence[Hashable], size: int) -> list[list[int]]:
    """Positions of the keys for each of `size` ranks, about equally many. Equal keys stay together."""
    together: dict[Hashable, list[int]] = {}
    for i, key in enumerate(keys):
        together.setdefault(key, []).append(i)
    out: list[list[int]] = [[] for _ in range(size)]
    for positions in together.values():
        min(out, key=len).extend(positions)
    return [sorted(positions) for positions in out]


@contextmanager
def _together() -> Iterator[None]:
    """Turn errors of the backend about a lost process into a RunError."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        reason = first_line(error).rpartition("] ")[2][:120]  # without the C++ file
        raise RunError(
            f"a process of this run is gone or cannot be reached ({reason}); continue with --resume"
        ) from None
