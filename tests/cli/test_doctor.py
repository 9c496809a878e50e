"""`himac-lite doctor` says whether the default run will work: by exit code, in one line, and by doing it in small."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import needs_training

from himac_lite import cli
from himac_lite.cli import doctor
from himac_lite.config import TRAIN_PRESETS


@needs_training
def test_here_the_default_run_will_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is True
    assert found["problems"] == []
    assert found["torch"]
    assert found["device"]["dtype"] in ("float32", "float16", "bfloat16")
    assert found["levels"] == "9 frozen files"
    assert found["4 bit"].startswith("NF4 on")
    assert "learns in 4 bit" in found["model"]
    assert (found["presets"]["quick"], found["presets"]["paper"]) == ("yes", "yes")


def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the checks that load a model."""
    monkeypatch.setattr(doctor, "_four_bit", lambda: doctor.Check("4 bit", "skipped"))
    monkeypatch.setattr(doctor, "_one_step", lambda: doctor.Check("model", "skipped"))


def fails(capsys: pytest.CaptureFixture[str], words: str) -> dict:
    assert cli.main(["doctor", "--json"]) == 2
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["ok"] is False
    (line,) = captured.err.strip().splitlines()
    assert line.startswith("himac-lite: the default run will not work here:")
    assert words in line
    assert found["presets"]["quick"] == "no"
    return found


def test_a_package_that_is_missing_or_too_old(capsys, monkeypatch) -> None:
    light(monkeypatch)
    monkeypatch.setattr(doctor, "NEEDED", (*doctor.NEEDED, "nonexistent-package"))
    assert fails(capsys, "nonexistent-package: not installed")["nonexistent-package"] is None
    monkeypatch.undo()
    light(monkeypatch)
    from packaging.specifiers import SpecifierSet

    monkeypatch.setattr(doctor, "_bounds", lambda: {"numpy": SpecifierSet(">=99")})
    fails(capsys, "numpy: ")


def test_too_little_memory_or_disk(capsys, monkeypatch) -> None:
    light(monkeypatch)
    monkeypatch.setattr(doctor, "available_gb", lambda: 0.5)
    fails(capsys, "memory: 0.5 GB are free, 1.5 GB are needed")
    monkeypatch.undo()
    light(monkeypatch)
    monkeypatch.setattr(doctor, "DISK_GB", 1e9)
    fails(capsys, "disk: ")


def test_changed_levels_and_a_broken_four_bit(capsys, monkeypatch, tmp_path: Path) -> None:
    light(monkeypatch)
    (tmp_path / "levels").mkdir()
    (tmp_path / "levels" / "core-test.xsb").write_text("#")
    (tmp_path / "levels" / "manifest.json").write_text('{"core-test.xsb": {"sha256": "0"}}')
    monkeypatch.setattr("himac_lite.storage.data_dir", lambda: tmp_path)
    fails(capsys, "is not the frozen file")
    (tmp_path / "levels" / "manifest.json").write_text("[]")
    fails(capsys, "cannot be read")
    monkeypatch.undo()

    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no kernel image\nis available")

    monkeypatch.setattr("bitsandbytes.functional.quantize_4bit", broken)
    monkeypatch.setattr(doctor, "_one_step", lambda: doctor.Check("model", "skipped"))
    fails(capsys, "bitsandbytes cannot quantise on cpu: no kernel image")


def test_a_model_that_does_not_load(capsys, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "_four_bit", lambda: doctor.Check("4 bit", "skipped"))
    monkeypatch.setattr("himac_lite.runs.training.resolve_model", lambda _: str(tmp_path))
    fails(capsys, "is not a model folder")


def test_what_a_container_leaves_counts(tmp_path: Path) -> None:
    """8 GB are free on the machine; the container may have 4 and uses 1.5, of which half a GB is a cache of files."""
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   8000000 kB\n")
    assert doctor.available_gb(tmp_path / "meminfo", tmp_path) == 8.192
    (tmp_path / "memory.max").write_text("4000000000\n")
    (tmp_path / "memory.current").write_text("1500000000\n")
    (tmp_path / "memory.stat").write_text("anon 900000000\ninactive_file 500000000\n")
    assert doctor.available_gb(tmp_path / "meminfo", tmp_path) == 3.0
    (tmp_path / "memory.max").write_text("max\n")
    assert doctor.available_gb(tmp_path / "meminfo", tmp_path) == 8.192
    assert doctor.available_gb(tmp_path / "nowhere", tmp_path) is None


@pytest.mark.parametrize(
    ("device", "answer"),
    [
        ({"cuda": False}, "no: needs a CUDA device"),
        ({"cuda": True, "GB": 15.8, "dtype": "float16"}, "yes, with access to a hub, in float16"),
        ({"cuda": True, "GB": 4.0, "dtype": "float16"}, "no: needs 6 GB"),
    ],
)
def test_which_presets_fit(device, answer) -> None:
    checks = [doctor.Check("device", device), doctor.Check("memory", "8 GB", True)]
    found = doctor._presets(checks).value
    assert set(found) == set(TRAIN_PRESETS)
    assert (found["quick"], found["paper"]) == ("yes", "yes")
    assert found["colab"].startswith(answer)


@needs_training
def test_a_person_reads_a_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    light(monkeypatch)
    assert cli.main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert "ok torch" in printed
    assert printed.endswith("himac-lite train will work here.\n")
