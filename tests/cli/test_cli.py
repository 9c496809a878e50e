"""The command line as a person meets it: one clear line and exit code 2 for what they can put right; no half files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import needs_training

from himac_lite import cli


def fails(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run a command that must fail; returns the one line that it printed after any progress."""
    assert cli.main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    line = captured.err.strip().splitlines()[-1]
    assert line.startswith("himac-lite: ")
    assert "Traceback" not in captured.err
    return line


def test_missing_level_file_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    missing = str(tmp_path / "nowhere.xsb")
    line = fails(capsys, "levels", "read", missing)
    assert missing in line
    assert "core" in line  # what would have been allowed


def test_impossible_level_names_file_level_and_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "two.xsb"
    file.write_text("#####\n#@$.#\n#####\n\n; no player\n#####\n# $.#\n#####\n")
    line = fails(capsys, "levels", "read", str(file))
    assert str(file) in line
    assert "level 2" in line
    assert "player" in line


@needs_training
def test_unknown_variant_lists_the_known_ones(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    line = fails(capsys, "train", "--variant", "hierarchical", "--out", str(tmp_path / "run"))
    assert "'hierarchical'" in line
    assert "flat_grpo" in line
    assert not (tmp_path / "run").exists()


@needs_training
@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("update.lr=fast", "lr must be float"),
        ("update.speed=1", "unknown setting 'speed'"),
        ("update.lr", "NAME=VALUE"),
        ("rollout.group=1", "rollout.group must lie between 2"),
        ("update=1", "update.lr"),
    ],
)
def test_bad_settings_name_the_setting(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, setting: str, said: str
) -> None:
    assert said in fails(capsys, "train", "--set", setting, "--out", str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@needs_training
def test_a_path_that_is_no_model(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert str(tmp_path) in fails(capsys, "evaluate", str(tmp_path), "--limit", "1")
    assert str(tmp_path) in fails(capsys, "train", "--model", str(tmp_path), "--out", str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@needs_training
def test_resuming_what_is_no_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "manifest.json" in fails(capsys, "train", "--resume", str(tmp_path))


@needs_training
def test_an_existing_run_is_not_overwritten(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    assert "--resume" in fails(capsys, "train", "--out", str(tmp_path))
    assert (tmp_path / "manifest.json").read_text() == "{}"


@needs_training
def test_scoring_no_level_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--limit must be at least 1" in fails(capsys, "evaluate", "sokoban-base", "--limit", "0")


def test_pretrain_takes_its_own_folder_only(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from himac_lite.pretraining import driver

    made: list[Path] = []
    monkeypatch.setattr(driver, "pretrain", lambda recipe, settings, out, say: made.append(out))
    assert str(tmp_path) in fails(capsys, "pretrain", "--out", str(tmp_path))
    (tmp_path / "unfinished").mkdir()  # what an interrupted pretraining leaves
    assert cli.main(["pretrain", "--out", str(tmp_path)]) == 0
    assert made == [tmp_path]


def test_levels_json_is_one_object(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["levels", "generate", str(tmp_path / "new.xsb"), "--n", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n"] == 2


SETTINGS = ("rollout.levels=2", "rollout.group=2", "test_limit=4", "validate_every=0")
SHORT = ["--levels", "core", "--iterations", "1", *(a for s in SETTINGS for a in ("--set", s))]


@needs_training
def test_train_then_evaluate_the_shipped_model(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert cli.main(["train", "--out", str(out), "--json", *SHORT]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["trained"]["n"] == 4
    assert set(printed) >= {"trained", "base", "random", "env_steps", "run"}
    assert cli.main(["evaluate", str(out), "--limit", "4", "--json"]) == 0
    scored = json.loads(capsys.readouterr().out)
    assert set(scored) >= {
        "success", "ci95", "n", "by_length", "mean_return", "blueprint_valid", "random_success", "base_success"
    }  # fmt: skip
    assert scored["success"] == printed["trained"]["success"]
    assert scored["base_success"] == printed["base"]["success"]


def test_interrupted_training_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from himac_lite.runs import training

    real = training.iterate

    def interrupted(*args: object, **kwargs: object) -> object:
        if (tmp_path / "run" / "checkpoints" / "000001").exists():
            raise KeyboardInterrupt
        return real(*args, **kwargs)  # type: ignore[arg-type]

    argv = ["train", "--out", str(tmp_path / "run"), *SHORT, "--iterations", "2", "--set", "checkpoint_every=1"]
    with monkeypatch.context() as patch:
        patch.setattr(training, "iterate", interrupted)
        assert cli.main(argv) == 130
    assert f"--resume {tmp_path / 'run'}" in capsys.readouterr().err
    assert cli.main(["train", "--resume", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["iterations"] == 2
