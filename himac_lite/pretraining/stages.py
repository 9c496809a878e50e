"""One stage of pretraining: demonstrations → batches → gradient → Muon and AdamW, interruptible and repeatable.

Departures from a plain pretraining: the loss counts only what the model would choose itself (blueprints, actions,
``<sub_done>``); every batch is under a random symmetry; weights of hidden layers are trained by Muon
(https://kellerjordan.github.io/posts/muon), the rest by AdamW; and a stage may see its linear layers through NF4.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy

from himac_lite.config import Pretrain
from himac_lite.errors import RunError
from himac_lite.policy.parallel import map_in_order, summed_gradients
from himac_lite.pretraining import augment
from himac_lite.pretraining import sokoban as demonstrations
from himac_lite.pretraining.sokoban import Demonstration, Mixture
from himac_lite.storage import explained
from himac_lite.tasks.sokoban.levels import held_out_hashes

_BUCKET = 16
"""Sequence lengths are padded to a multiple of this: little waste, and few shapes."""


def batches(
    config: Pretrain, mixture: Mixture, seed: int, exclude: set[str]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches (ids [B, T], learn [B, T]) of about `config.batch_tokens` tokens, of similar length, right-padded."""
    rng = np.random.default_rng(np.random.SeedSequence([config.seed, seed]))
    source = demonstrations.stream(rng, mixture, config.noise, exclude)
    while True:
        pool = list(itertools.islice(source, 8 * config.batch_tokens // 80))
        pool.sort(key=lambda d: -(-len(d.ids) // _BUCKET))
        made = []
        while pool:
            length = -(-len(pool[0].ids) // _BUCKET) * _BUCKET
            count = max(1, config.batch_tokens // length)
            group = [d for d in pool[:count] if len(d.ids) <= length]
            pool = pool[len(group) :]
            if len(group) == count:  # rests are dropped: every batch is a full one
                made.append(_collate(group, length, rng))
        for i in rng.permutation(len(made)):
            yield made[i]


def _collate(group: list[Demonstration], length: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    ids = np.zeros((len(group), length), np.int64)
    learn = np.zeros((len(group), length), bool)
    for i, d in enumerate(group):
        ids[i, : len(d.ids)] = d.ids
        learn[i, : len(d.learn)] = d.learn
    symmetry = rng.integers(0, 8, len(group))
    for role, size in {(d.role, d.size) for d in group}:
        rows = np.array([d.role is role and d.size == size for d in group])
        ids[rows] = augment.apply_symmetry(ids[rows], role, size, symmetry[rows])
    return ids, learn


def _ahead(source: Iterator[Any], depth: int = 4) -> Iterator[Any]:
    """The same items, made by a thread while the model trains."""
    box: queue.Queue[Any] = queue.Queue(depth)

    def work() -> None:
        for item in source:
            box.put(item)

    threading.Thread(target=work, daemon=True).start()
    while True:
        yield box.get()


NF4_LEVELS = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip


def through_nf4(weight: torch.Tensor) -> torch.Tensor:
    """A weight's NF4 round trip (blocks of 64, absolute maximum, as bitsandbytes does)."""
    levels = torch.tensor(NF4_LEVELS)
    blocks = weight.view(-1, 64)
    scale = blocks.abs().amax(1, keepdim=True).clamp_min(1e-12)
    return (levels[torch.bucketize(blocks / scale, (levels[1:] + levels[:-1]) / 2)] * scale).view_as(weight)


def _linears(model: Any) -> list[str]:
    return [f"{n}.weight" for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and "lm_head" not in n]


@dataclass
class Stage:
    """One stage of training: the weights that learn (`masters`, by name) and the optimizers' state.

    The model computes with a copy of the masters, in stages that see NF4 with their round trip; its gradient goes
    straight through to the masters.
    """

    model: Any
    config: Pretrain
    mixture: Mixture
    steps: int
    seed: int
    warm: bool = False
    """Raise the learning rate over the first hundred steps."""
    decay: bool = True
    """Lower it to zero over the whole stage."""
    nf4: bool = True
    """Compute with every linear layer's NF4 round trip, so that the 4-bit model is the one that is trained."""
    source: Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]] | None = None
    """Makes the stream of batches, from its beginning; by default that of Sokoban demonstrations by `mixture`."""

    def __post_init__(self) -> None:
        self.masters = {n: p.detach().clone() for n, p in self.model.named_parameters()}
        self.linears = set(_linears(self.model))
        hidden = [p for n, p in self.masters.items() if n in self.linears]
        rest = [p for n, p in self.masters.items() if n not in self.linears]
        muon, adam = self.config.lr_muon, self.config.lr_adam
        # One Muon a matrix, so that they can step side by side: it takes as long as the products of half a batch.
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon([p], lr=muon, momentum=0.95, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
            for p in hidden
        ]
        self.optimizers.append(torch.optim.AdamW(rest, lr=adam, betas=(0.9, 0.95), weight_decay=0.0))
        self.base_lr = [muon] * len(hidden) + [adam]
        self.done = 0

    def run(self, on_step: Callable[[int, float, float], None], keep: Path | None = None, every: int = 100) -> None:
        """Train to the last step; calls `on_step(number, running loss, tokens a second)` after each.

        keep: a file for the state, written every so many steps; a state that is there already is gone on from.
        """
        if keep is not None and keep.exists():
            self._load(keep)
        if self.done == self.steps:
            self._show(self.masters)
            return
        source = self.source() if self.source else batches(self.config, self.mixture, self.seed, held_out_hashes())
        for _ in range(self.done):  # the stream is made again up to here: quicker than to keep it
            next(source)
        source, start, tokens, running = _ahead(source), time.monotonic(), 0, 0.0
        while self.done < self.steps:
            ids, learn = next(source)
            loss = self.step(ids, learn)
            tokens += ids.size
            running = 0.98 * running + 0.02 * loss if running else loss
            on_step(self.done, running, tokens / (time.monotonic() - start))
            if keep is not None and (self.done % every == 0 or self.done == self.steps):
                self._save(keep)
        self._show(self.masters)

    def step(self, ids: np.ndarray, learn: np.ndarray) -> float:
        """One batch (ids [B, T], learn [B, T]) → one step of every optimizer; returns the loss."""
        factor = min(1.0, (self.done + 1) / 100) if self.warm else 1.0
        if self.decay:
            factor = 1 - self.done / self.steps
        for optimizer, lr in zip(self.optimizers, self.base_lr, strict=True):
            optimizer.param_groups[0]["lr"] = lr * factor
        self._show({n: through_nf4(p) if self.nf4 and n in self.linears else p for n, p in self.masters.items()})
        rows, learnt = max(1, self.config.micro_tokens // ids.shape[1]), int(learn[:, 1:].sum())
        cuts = range(0, len(ids), rows)
        parts = [(torch.from_numpy(ids[i : i + rows]), torch.from_numpy(learn[i : i + rows])) for i in cuts]
        loss, gradients = summed_gradients(
            lambda part: demonstration_loss(self.model, *part) / learnt, parts, list(self.model.parameters())
        )
        for master, gradient in zip(self.masters.values(), gradients, strict=True):
            master.grad = gradient
        torch.nn.utils.clip_grad_norm_(self.masters.values(), 1.0)
        for _ in map_in_order(lambda optimizer: optimizer.step(), self.optimizers):
            pass
        self.done += 1
        return loss

    def _show(self, weights: Mapping[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, p in self.model.named_parameters():
                p.copy_(weights[name])

    def _state(self) -> dict[str, torch.Tensor]:
        named = {f"master.{n}": p for n, p in self.masters.items()}
        for k, optimizer in enumerate(self.optimizers):
            for i, p in enumerate(optimizer.param_groups[0]["params"]):
                named |= {f"optimizer.{k}.{i}.{n}": v for n, v in optimizer.state.get(p, {}).items()}
        return named | {"done": torch.tensor(self.done)}

    def _save(self, file: Path) -> None:
        beside = file.with_suffix(".tmp")
        with explained(file.parent):
            try:
                save_file({n: v.contiguous() for n, v in self._state().items()}, str(beside))
                beside.replace(file)
            except SafetensorError as error:  # how a full disk is reported
                beside.unlink(missing_ok=True)
                raise OSError(str(error)) from None

    def _load(self, file: Path) -> None:
        """Raises `RunError` for a state that is damaged, or of another model, recipe or version."""
        try:
            kept = load_file(str(file))
            done = int(kept.pop("done"))
            if not 0 < done <= self.steps or {f"master.{n}" for n in self.masters} - kept.keys():
                raise ValueError("it is the state of another model or recipe")
            for name, value in kept.items():
                kind, _, rest = name.partition(".")
                if kind == "master":
                    self._fits(name, value, self.masters[rest]).copy_(value)
                else:
                    k, i, key = rest.split(".")
                    optimizer = self.optimizers[int(k)]
                    p = optimizer.param_groups[0]["params"][int(i)]
                    self._fits(name, value, p)
                    optimizer.state[p][key] = value
            self.done = done
        except (OSError, SafetensorError, KeyError, IndexError, ValueError, RuntimeError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise RunError(
                f"cannot go on from {file}: {reason}; delete it to make this stage again, or the folder "
                f"{file.parent.parent} to begin anew"
            ) from None

    @staticmethod
    def _fits(name: str, value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """`like`, if the saved value has its shape (or is a plain number, such as an optimizer's count of steps)."""
        if value.dim() and value.shape != like.shape:
            raise ValueError(f"{name} has shape {tuple(value.shape)}, this model wants {tuple(like.shape)}")
        return like


def demonstration_loss(model: Any, ids: torch.Tensor, learn: torch.Tensor) -> torch.Tensor:
    """Σ −log p of the tokens that the model would choose itself: ids int64 [B, T], learn bool [B, T]."""
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    chosen = learn[:, 1:]
    return cross_entropy(model.lm_head(hidden[chosen]), ids[:, 1:][chosen], reduction="sum")
