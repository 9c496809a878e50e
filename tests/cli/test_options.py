"""No option is silently without effect: each is used, or refused in one line before any work."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import needs_training

from himac_lite import cli
from himac_lite.storage import data_dir

RUN = data_dir() / "runs" / "core" / "himac-0"
WITHOUT_EFFECT = [
    (f"train --resume {RUN} --seed 3", "--seed has no effect with --resume"),
    (f"train --resume {RUN} --set update.lr=0.5", "--set has no effect with --resume"),
    (f"train --resume {RUN} --model M", "--model has no effect with --resume"),
    (f"train --resume {RUN} --adapter A", "--adapter has no effect with --resume"),
    (f"train --resume {RUN} --levels core", "--levels has no effect with --resume"),
    (f"train --resume {RUN} --preset quick", "--preset has no effect with --resume"),
    (f"train --resume {RUN} --variant flat_grpo", "was begun with 'himac', not with 'flat_grpo'"),
    (f"train --resume {RUN} --task webshop", "was begun with 'sokoban', not with 'webshop'"),
    ("train --out new --seed 3 --set seed=4", "seed is given twice, by --seed and by --set seed=4"),
    ("train --out new --levels core --set train_levels=hard", "train_levels is given twice, by --levels and by --set"),
    ("train --out new --iterations 3 --set iterations=4", "iterations is given twice"),
    ("memory --model M --set model.path=N", "model.path is given twice, by --model and by --set"),
    ("sft --out new --steps 3 --set steps=4", "steps is given twice"),
    ("sft --out new --validate -1", "--validate must be at least 0, not -1"),
    ("pretrain --out new --seed 3 --set seed=4", "seed is given twice"),
    ("pretrain --out new --set drill_steps=9", "drill_steps has no effect on the base model of sokoban"),
    ("pretrain --out new --task webshop --set noise=0.1", "noise has no effect on the base model of webshop"),
    ("pretrain --out new --set seed", "--set needs NAME=VALUE, not 'seed'"),
    ("evaluate sokoban-base --checkpoint best", "--checkpoint has no effect with a model"),
    (f"evaluate {RUN} --mode random --checkpoint last", "--checkpoint has no effect with --mode random"),
    (f"evaluate {RUN} --mode flat --variant himac", "--variant has no effect with --mode flat"),
    (f"export {RUN} --out new --solved", "--solved has no effect with the export of weights: add --rollouts"),
    (f"export {RUN} --out new --format messages", "--format has no effect with the export of weights"),
    (f"export {RUN} --out new --rollouts --dtype float32", "--dtype has no effect with --rollouts"),
    ("reproduce ablations --list --workers 2", "--workers has no effect with --list: nothing is trained"),
    ("reproduce ablations --list --minutes 2", "--minutes has no effect with --list"),
    ("reproduce ablations --list --env-steps 2", "--env-steps has no effect with --list"),
    ("reproduce ablations --list --runs new", "--runs has no effect with --list"),
    ("reproduce ablations --list --set seed=1", "--set has no effect with --list"),
    ("reproduce ablations --out new --minutes nan", "--minutes must be at least 0, not nan"),
    ("reproduce ablations --out new --env-steps 9 --set env_steps=8", "env_steps is given twice"),
    ("reproduce ablations --out new --variants=", "unknown variant ''"),
    ("bench env --runs 0", "--runs must be at least 1, not 0"),
]


@needs_training
@pytest.mark.parametrize(("line", "words"), WITHOUT_EFFECT, ids=[line for line, _ in WITHOUT_EFFECT])
def test_an_option_without_effect_is_refused(
    line: str, words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err.strip().splitlines()[-1]
    assert list(tmp_path.iterdir()) == []  # before any work


@needs_training
@pytest.mark.parametrize(
    ("line", "budget"),
    [
        ("", (40, None, None)),
        ("--iterations 3", (3, None, None)),
        ("--minutes 3", (10**6, 3.0, None)),
        ("--env-steps 999999", (10**6, None, 999_999)),
        ("--iterations 3 --env-steps 7", (3, None, 7)),
        ("--set iterations=3", (3, None, None)),
    ],
)
def test_the_options_of_the_budget_replace_that_of_the_preset(line: str, budget: tuple[object, ...]) -> None:
    from himac_lite.cli.train import config_of

    config = config_of(cli._parser().parse_args(["train", *line.split()]))
    assert (config.iterations, config.minutes, config.env_steps) == budget
