"""Notebooks: in step with their masters, without outputs, and running."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

import nbformat
import pytest
from notebook_runs import ROOT, run_in_process, script
from recorded_runs import make_run

from himac_lite.storage import data_dir

BOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SOLVED = sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb"))

build = script("build")


def test_notebooks_are_what_their_masters_make():
    assert BOOKS, "no notebook found"
    assert build.out_of_step() == [], "run: python notebooks/build.py"


@pytest.mark.parametrize("path", [*BOOKS, *SOLVED], ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_notebook_is_committed_without_outputs(path):
    book = nbformat.read(path, as_version=4)
    assert path.stat().st_size < 300_000
    assert "widgets" not in book.metadata
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert len(code) <= 30
    for cell in code:
        assert cell.outputs == []
        assert cell.execution_count is None
    assert code[0].source.startswith('import sys\n\nif "google.colab" in sys.modules:\n    %pip install -q')
    assert not re.search(r"pip install[^\n]* -U", code[0].source)
    wide = [line for cell in code for line in cell.source.split("\n") if len(line) > 104]
    assert not wide, "cut off in JupyterLab at 1280 pixels, with the file browser beside the notebook"


def test_nbstripout_would_change_nothing(tmp_path):
    copy = tmp_path / "copy.ipynb"
    shutil.copy(BOOKS[0], copy)
    options = ["--drop-empty-cells", "--extra-keys", "metadata.widgets"]  # as in .pre-commit-config.yaml
    subprocess.run([sys.executable, "-m", "nbstripout", *options, str(copy)], check=True)
    assert copy.read_text("utf-8") == BOOKS[0].read_text("utf-8")


def test_a_student_gets_stubs_and_a_teacher_solutions():
    student, teacher = (path.read_text("utf-8") for path in (BOOKS[0], SOLVED[0]))
    assert student.count("raise NotImplementedError") == 2
    assert "returns.std() + eps" not in student
    assert "NotImplementedError" not in teacher
    assert "returns.std() + eps" in teacher
    assert "SOLUTION" not in student + teacher


def test_a_solution_mark_without_its_partner_is_an_error():
    with pytest.raises(ValueError, match="without its partner"):
        build.notebook("# %%\ndef f():\n    ### BEGIN SOLUTION\n    return 1\n", solved=False)


TORCH = ("torch", "transformers", "peft", "bitsandbytes")
WITHOUT_TORCH = [path for path in BOOKS if path.stem < "04"]


@pytest.fixture
def fast(monkeypatch):
    """The least that a notebook can do."""
    monkeypatch.setenv("HIMAC_FAST", "1")
    monkeypatch.setattr("himac_lite.exercises.course.FAST", True)


@pytest.fixture
def no_torch(monkeypatch, fast):
    """A Python in which importing torch fails."""
    for name in TORCH:
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.usefixtures("no_torch")
@pytest.mark.parametrize("path", WITHOUT_TORCH, ids=lambda p: p.stem)
def test_it_runs_without_torch(path, capsys):
    """A notebook as a student opens it: no exercise started, no torch (00 then says so where it would train)."""
    names = run_in_process(path)
    out = capsys.readouterr().out
    assert out.count("not started yet") == path.read_text("utf-8").count("raise NotImplementedError")
    assert "False\n" not in out
    if path.stem.startswith("00"):
        assert names["mine"] is None
        assert "mean 0.25, std 0.433: +1.73, -0.58" in out
        assert "Training needs torch, transformers, peft, bitsandbytes" in out


@pytest.mark.usefixtures("no_torch")
def test_the_quickstart_runs_on_a_run_that_has_little_to_show(tmp_path, monkeypatch, capsys):
    (tmp_path / "levels").symlink_to(data_dir() / "levels")
    make_run(tmp_path / "runs" / "quickstart")
    monkeypatch.setattr("himac_lite.storage.data_dir", lambda: tmp_path)
    run_in_process(ROOT / "notebooks" / "solutions" / "00_quickstart.ipynb")
    out = capsys.readouterr().out
    assert "✓ group advantage" in out
    assert "✓ trained tokens" in out


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("path", [path for path in SOLVED if path.stem >= "01"], ids=lambda p: p.stem)
def test_the_solutions_pass_their_checks(path, capsys):
    run_in_process(path)
    out = capsys.readouterr().out
    student = (ROOT / "notebooks" / path.name).read_text("utf-8")
    assert out.count("✓") == student.count("raise NotImplementedError") >= 2
    assert "not started yet" not in out


def test_every_exercise_of_the_package_is_set_in_one_notebook():
    from himac_lite import exercises

    books = [path.read_text("utf-8") for path in BOOKS]
    for name in exercises.__all__:
        if name.startswith("check_"):
            assert sum(f"{name}(" in text for text in books) == 1, name


@pytest.mark.parametrize("path", BOOKS, ids=lambda p: p.stem)
def test_a_notebook_has_what_every_notebook_has(path):
    """The question, the toy numbers, what can go wrong, something to discuss; and the address that Colab opens."""
    words = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")
    for needed in ("**The question.**", "y hand", "hat can go wrong", "## To discuss", f"notebooks/{path.name}"):
        assert needed in words, needed


def test_no_notebook_types_a_figure_of_a_recorded_run():
    """Records change with the base model, so notebooks compute what they say of them."""
    files = sorted((data_dir() / "runs").glob("**/results.json"))
    scores = [score for file in files for score in json.loads(file.read_text("utf-8")).values()]
    figures = {f"{100 * s['success']:.1f} %" for s in scores if isinstance(s, dict) and "success" in s}
    assert len(figures) >= 5
    for path in sorted((ROOT / "notebooks" / "src").glob("*.py")):
        text = " ".join(path.read_text("utf-8").replace("\n# ", " ").split())
        assert not [figure for figure in figures if figure in text], path.name


NEEDED = [data_dir() / "runs" / "quickstart" / "manifest.json", data_dir() / "models" / "sokoban-base" / "config.json"]


@pytest.mark.notebook
@pytest.mark.skipif(not all(file.is_file() for file in NEEDED), reason="the recorded run or the base model is absent")
@pytest.mark.parametrize("path", [*BOOKS, *SOLVED], ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_whole_notebook_in_a_fresh_kernel(path):
    command = [sys.executable, "-m", "pytest", "-q", "-m", "", "--nbmake", "--nbmake-timeout=600", str(path)]
    environment = {**os.environ, "HIMAC_FAST": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.notebook
@pytest.mark.parametrize("path", WITHOUT_TORCH, ids=lambda p: p.stem)
def test_the_light_notebooks_stay_light(path):
    """00 to 03 in a process of their own, in which torch cannot be imported: under 900 MB."""
    code = f"""
import resource, sys
sys.path.insert(0, {str(ROOT / "tests")!r})
sys.modules |= dict.fromkeys({TORCH!r})
from pathlib import Path
from notebook_runs import run_in_process
run_in_process(Path({str(path)!r}))
print("LARGEST", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.rsplit("LARGEST", 1)[1]) < 900e6
