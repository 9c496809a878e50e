"""What the commands of this folder train: the toy levels and the tiny model of tests/conftest.py, in seconds."""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

from conftest import TOY_STEPS, TOY_TEXT, make_tiny  # noqa: E402

from himac_lite.config import Model, Rollout, Train, Update  # noqa: E402
from himac_lite.tasks.sokoban.levels import parse_levels  # noqa: E402


def make(folder: Path) -> tuple[Path, Path]:
    """(model, levels) in this folder, made if they are not there yet."""
    model, levels = folder / "tiny", folder / "toy.xsb"
    if not levels.exists():
        make_tiny(model, parse_levels(TOY_TEXT))
        levels.write_text(TOY_TEXT, "utf-8")
    return model, levels


def config(model: Path, levels: Path) -> Train:
    """4 iterations in about a second; a checkpoint, a validation and a rotation of files after each."""
    return Train(
        train_levels=str(levels), validation_levels=str(levels), test_levels=str(levels), iterations=4, seed=3,
        record_levels=1, probe_levels=1, probe_every=2, validate_every=1, validate_on=4, checkpoint_every=1,
        keep_checkpoints=1, keep_rollouts=3, model=Model(str(model), rank=4, alpha=8),
        rollout=Rollout(min_length=0, levels=4, group=4, max_steps=TOY_STEPS, subgoal_budget=TOY_STEPS),
        update=Update(groups_per_step=1, epochs=1, lr=3e-3, minibatches=2),
    )  # fmt: skip
