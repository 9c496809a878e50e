"""What commands print reaches any terminal, pipe and file: other encodings, closed streams, a full disk."""

from __future__ import annotations

import ast
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import needs_training

from himac_lite import cli

ROOT = Path(__file__).resolve().parents[2]
ENCODINGS = ("cp1252", "latin-1", "ascii", "cp932")
HELP = [[], ["levels", "solve"], *([name] for name in cli.COMMANDS)]


def printed(monkeypatch: pytest.MonkeyPatch, encoding: str, *argv: str) -> str:
    """Standard output of a command in a terminal of this encoding; the command must end with exit code 0."""
    out = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", out)
    try:
        code = cli.main(argv)
    except SystemExit as end:  # --help
        code = int(end.code or 0)
    assert code == 0
    return bytes(out.buffer.getvalue()).decode(encoding)  # type: ignore[attr-defined]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("command", HELP, ids=" ".join)
def test_help_in_other_encodings(monkeypatch: pytest.MonkeyPatch, encoding: str, command: list[str]) -> None:
    assert "usage: himac-lite" in printed(monkeypatch, encoding, *command, "--help")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_lists_levels_and_games_in_other_encodings(
    monkeypatch: pytest.MonkeyPatch, encoding: str, tmp_path: Path
) -> None:
    file = tmp_path / "ż.xsb"
    file.write_text("; Größe ż 箱\n#####\n#@$.#\n#####\n", "utf-8")
    for verb in ("read", "solve"):
        assert "?" in printed(monkeypatch, encoding, "levels", verb, str(file))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xe9\x81d\n")))  # two bytes that are not text
    assert "solved" in printed(monkeypatch, encoding, "play", str(file))


@needs_training
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_tables_and_scores_in_other_encodings(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    minus = "－" if encoding == "cp932" else "?"
    assert f"himac {minus} no_sub_done" in printed(monkeypatch, encoding, "reproduce", "ablations", "--list")
    said = printed(monkeypatch, encoding, "evaluate", "sokoban-base", "--limit", "1", "--mode", "random")
    assert "95 % interval 0.0" in said


def test_a_title_that_is_not_text_is_printed_in_utf_8(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "latin.xsb"
    file.write_bytes(b"; Gr\xf6\xdfe\n#####\n#@$.#\n#####\n")
    assert "1 of 1 solved" in printed(monkeypatch, "utf-8", "levels", "solve", str(file))


def test_only_the_console_prints() -> None:
    for file in (ROOT / "himac_lite" / "cli").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
            assert not called or file.name == "console.py", f"{file.name}, line {node.lineno}: use console.say or note"


def shell(line: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """A line of a shell, in which ``himac`` is `python -m himac_lite`."""
    line = f'himac() {{ "{sys.executable}" -m himac_lite "$@"; }}; {line}'
    env = {**os.environ, "PYTHONPATH": str(ROOT), **more}
    return subprocess.run(["bash", "-c", line], env=env, cwd=cwd, capture_output=True, text=True, check=False)


needs_shell = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a Linux shell")


@needs_shell
@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("himac levels split core/test", 0, ""),
        ("himac levels read core/train | true; exit ${PIPESTATUS[0]}", 0, ""),
        ("himac --help | true; exit ${PIPESTATUS[0]}", 0, ""),
        ("himac levels read core/test >&-", 0, ""),
        ("himac levels read core/test >&- 2>&- <&-", 0, ""),
        ("echo r | himac play >&-", 0, ""),
        ("himac play <&- >/dev/null", 0, ""),
        ("himac levels read core/test >/dev/full", 2, "No space left on device"),
        ("himac levels read nowhere 2>/dev/full", 2, ""),
    ],
)
def test_streams_that_are_closed_broken_or_full(tmp_path: Path, line: str, code: int, said: str) -> None:
    done = shell(line, tmp_path, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr.count("\n")) == (code, 1 if said else 0), done.stderr
    assert said in done.stderr


@needs_shell
def test_a_wrong_environment_is_one_line(tmp_path: Path) -> None:
    for variable, words in (
        ("OMP_NUM_THREADS=x", "OMP_NUM_THREADS in the environment must be a whole number"),
        ("NUMBA_NUM_THREADS=0", "NUMBA_NUM_THREADS in the environment must be a whole number"),
        ("NUMBA_DISABLE_JIT=x", "numba cannot be imported"),
    ):
        name, _, value = variable.partition("=")
        done = shell("himac bench env --quick --runs 1", tmp_path, **{name: value})
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert words in done.stderr
        assert f"unset {name}" in done.stderr or "unset it" in done.stderr
    empty = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "WORLD_SIZE", "NO_COLOR", "COLUMNS"), "")
    done = shell("himac levels read core/test", tmp_path, **empty)
    assert (done.returncode, done.stderr) == (0, "")


@needs_shell
@needs_training
def test_libraries_add_nothing_to_what_the_doctor_says(tmp_path: Path) -> None:
    done = shell("himac doctor", tmp_path)
    assert done.stdout.endswith("himac-lite train will work here.\n")
    assert done.stderr == ""


@needs_shell
@needs_training
@pytest.mark.parametrize("variable", ["HF_HUB_DOWNLOAD_TIMEOUT", "TQDM_MININTERVAL"])
def test_a_library_that_the_environment_breaks_is_one_line(tmp_path: Path, variable: str) -> None:
    done = shell("himac train --iterations 0 --out run", tmp_path, **{variable: "soon"})
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "cannot be imported (ValueError: " in done.stderr
    assert f"unset {variable}" in done.stderr
