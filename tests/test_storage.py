"""Written beside, then renamed: the target is the old one or the new one, and nothing else stays behind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from himac_lite.errors import RunError
from himac_lite.storage import beside, write


def fill(folder: Path, text: str) -> None:
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "weights").write_text(text)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A folder that is there already, alone in its parent."""
    fill(tmp_path / "place" / "model", "old")
    return tmp_path / "place" / "model"


def there(target: Path) -> tuple[list[str], str]:
    """(the names in the parent, what the folder holds)."""
    return sorted(f.name for f in target.parent.iterdir()), (target / "inner" / "weights").read_text()


def test_a_folder_takes_the_place_of_another(target):
    with beside(target) as made:
        fill(made, "new")
        assert there(target)[1] == "old"
    assert there(target) == (["model"], "new")


def fails(target: Path, error: BaseException) -> None:
    with beside(target) as made:
        fill(made, "new")
        raise error


@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt()])
def test_after_an_error_the_old_one_is_there(target, error):
    with pytest.raises(type(error)):
        fails(target, error)
    assert there(target) == (["model"], "old")


def test_a_full_disk_is_one_line(target):
    line = f"cannot write to {target}: No space left on device; what was written before is kept"
    with pytest.raises(RunError, match=f"^{re.escape(line)}$"):
        fails(target, OSError(28, "No space left on device"))
    assert there(target) == (["model"], "old")


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_after_a_kill_the_old_one_is_there_and_the_next_write_clears_up(target):
    code = (
        "import os, pathlib, signal, sys\nfrom himac_lite.storage import beside\n"
        "with beside(pathlib.Path(sys.argv[1])) as made:\n"
        "    made.mkdir()\n    (made / 'half').write_text('half')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(target)], cwd=Path(__file__).parents[1], check=False, timeout=60)
    assert there(target) == ([".model.tmp", "model"], "old")
    with beside(target) as made:
        fill(made, "new")
    assert there(target) == (["model"], "new")
    assert not (target / "half").exists()


def test_a_folder_does_not_take_the_place_of_a_file(tmp_path):
    (tmp_path / "model").write_text("mine")
    with pytest.raises(RunError, match=r"cannot write to .*model: "), beside(tmp_path / "model") as made:
        fill(made, "new")
    assert [f.name for f in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model").read_text() == "mine"


@pytest.mark.skipif(os.name == "nt", reason="folders are not flushed there")
def test_everything_inside_is_on_the_disk_before_the_renaming_and_the_parent_after_it(target, monkeypatch):
    flushed, flush = [], os.fsync

    def seen(handle: int) -> None:
        flushed.append((os.fstat(handle).st_ino, (target / "inner" / "weights").read_text()))
        flush(handle)

    monkeypatch.setattr(os, "fsync", seen)
    with beside(target) as made:
        fill(made, "new")
    new = {path.stat().st_ino for path in (target, target / "inner", target / "inner" / "weights")}
    assert {inode for inode, holds in flushed if holds == "old"} == new
    assert [inode for inode, holds in flushed if holds == "new"] == [target.parent.stat().st_ino]


def test_a_text_has_the_same_bytes_on_every_system(tmp_path):
    write(tmp_path / "a", "é\n")
    assert (tmp_path / "a").read_bytes() == b"\xc3\xa9\n"
