"""What levels and demonstrations were on the day that the splits were frozen: they must never change by one byte.

A model that was pretrained yesterday, a split and a table of results are all worth nothing beside levels that have
drifted. The hashes of levels were made before the solver and the generator were rewritten; those of demonstrations
belong to the recipe of version 0.3.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from himac_lite.pretraining.sokoban import EXPERT, Mixture, stream
from himac_lite.tasks.sokoban.generator import generate
from himac_lite.tasks.sokoban.levels import format_levels

MIXED = Mixture(0.5, 0.9, 9, 0.1, early_segments=0.5)
DEMONSTRATIONS = [
    (1, EXPERT, "21d7d634a5ab8a98ef88853a0309a1a14ec8ac64ec0be2e7526e4fa9b9ce443d"),
    (2, MIXED, "630b5e175d33aeb71593a18cefa9c82f91b79f6efcabe7fb37c5cad5888c82e7"),
]
LEVELS = [  # side, boxes, optimal lengths, how many
    (6, 1, (4, 20), 24, "1ab1eb05b8f3b0b9f415a1d938ecad61384e3ee19afb5eb035eb63f249abe23d"),
    (7, 2, (6, 25), 24, "644485e709f31978382af396cb05cd344297ca3db699b58d72c669d104655ce7"),
    (8, 3, (10, 40), 6, "b6d184022e1ea9756c05e0fff9f84882b763d13e1142e6e406399431a50bdfaf"),
]


@pytest.mark.parametrize(("seed", "mixture", "expected"), DEMONSTRATIONS, ids=["expert", "mixed"])
def test_the_first_300_demonstrations(seed, mixture, expected):
    digest, made = hashlib.sha256(), stream(np.random.default_rng(seed), mixture, 0.05, set(), 0.1)
    for _ in range(300):
        one = next(made)
        digest.update(repr((one.role.value, one.size, one.ids, one.learn)).encode())
    assert digest.hexdigest() == expected


@pytest.mark.parametrize(("size", "boxes", "lengths", "n", "expected"), LEVELS, ids=["6x6/1", "7x7/2", "8x8/3"])
def test_the_first_generated_levels(size, boxes, lengths, n, expected):
    made = generate(np.random.default_rng(7), n, size, boxes, lengths)
    assert hashlib.sha256(format_levels(made).encode()).hexdigest() == expected
