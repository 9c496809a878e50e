"""FILE.py:NAME: what is loaded, every mistake as one line, and that a manifest never imports a file."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from himac_lite import cli, from_file, hierarchy
from himac_lite.config import Train
from himac_lite.errors import ConfigError, HimacError, RunError
from himac_lite.evaluation import grid, rows
from himac_lite.hierarchy import PRESETS, Hierarchy
from himac_lite.runs.folder import Run, create_run, load_run
from himac_lite.runs.training import train
from himac_lite.tasks import World, registry
from himac_lite.widgets import TrainingDashboard

ROOT = Path(__file__).parents[1]
GOOD = """
from dataclasses import dataclass
from himac_lite.hierarchy import Hierarchy

@dataclass
class Settings:
    depth: int = 3

mine = Hierarchy(depth=Settings().depth)
flat = lambda: Hierarchy(depth=1)
himac = Hierarchy()
replan = Hierarchy(depth=1)
number = 7
def clash():
    return Hierarchy(depth=3, exhausted="replan")
def leave():
    raise SystemExit(3)
"""


@pytest.fixture
def mine(tmp_path: Path) -> str:
    (tmp_path / "my.py").write_text(GOOD)
    return str(tmp_path / "my.py")


def said(error: pytest.ExceptionInfo[BaseException]) -> str:
    assert isinstance(error.value, HimacError)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_value_a_function_and_what_a_manifest_keeps(mine):
    chosen = hierarchy.choose(f"{mine}:mine", "himac")
    assert (chosen.name, chosen.value) == ("mine", Hierarchy(depth=3))
    digest = hashlib.sha256(GOOD.encode()).hexdigest()
    assert chosen.origin == {"file": "my.py", "sha256": digest, "name": "mine", "value": "depth=3"}
    assert hierarchy.choose(f"{mine}:flat", "himac").value == Hierarchy(depth=1)
    assert hierarchy.choose(f"{mine}:himac", "himac").value == PRESETS["himac"]
    assert hierarchy.choose("flat_grpo", "himac") == from_file.Chosen("flat_grpo", PRESETS["flat_grpo"])
    assert hierarchy.choose(Hierarchy(), "himac").origin is None
    assert hierarchy.choose(Hierarchy(), "flat_grpo").origin == {"value": ""}


def test_the_same_bytes_are_imported_once_and_other_bytes_again(tmp_path):
    count = tmp_path / "count"
    text = f"from himac_lite.hierarchy import Hierarchy\nmine = Hierarchy()\nopen({str(count)!r}, 'a').write('x')\n"
    file = tmp_path / "my.py"
    for source, imports in ((text, 1), (text, 1), (text + "#", 2)):
        file.write_text(source)
        from_file.load(f"{file}:mine", Hierarchy)
        assert count.read_text() == "x" * imports
    assert sorted(f.name for f in tmp_path.iterdir()) == ["count", "my.py"]  # no __pycache__


@pytest.mark.skipif(os.name == "nt", reason="C: is a drive there")
def test_the_last_colon_divides(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("C:").mkdir()
    Path("C:/x.py").write_text(GOOD)
    assert from_file.load("C:/x.py:mine", Hierarchy)[0] == Hierarchy(depth=3)
    with pytest.raises(ConfigError, match=r"cannot read C:\\x.py"):
        from_file.load("C:\\x.py:mine", Hierarchy)


MISTAKES = [
    (None, ":mine", "should be FILE.py:NAME"),
    (None, "my.py:", "should be FILE.py:NAME"),
    (None, "my.py:a/b", "should be FILE.py:NAME"),
    (None, "my.py:../run", "should be FILE.py:NAME"),
    (None, "nowhere.py:mine", "cannot read nowhere.py: No such file"),
    (None, ".:mine", "cannot read .: "),
    ("mine = (", "my.py:mine", "my.py: SyntaxError: '(' was never closed (my.py, line 1)"),
    ("\0", "my.py:mine", "my.py: "),
    ("\n\nraise RuntimeError('two\\nlines')", "my.py:mine", "my.py, line 3: RuntimeError: two lines"),
    ("import nowhere_to_be_found", "my.py:mine", "my.py, line 1: ModuleNotFoundError: No module named"),
    ("import sys; sys.exit(0)", "my.py:mine", "my.py, line 1: SystemExit: 0"),
    (GOOD, "my.py:yours", "my.py:yours does not exist; wanted is a Hierarchy, of which my.py has: mine, himac, replan"),
    (GOOD, "my.py:number", "my.py:number is a int; wanted is a Hierarchy"),
    (GOOD, "my.py:clash", "my.py, line 15: depth=3 clashes with exhausted='replan'"),
    (GOOD, "my.py:leave", "my.py, line 17: SystemExit: 3"),
    (GOOD, "my.py:replan", "my.py:replan is not the preset replan; give it another name"),
]


@pytest.mark.parametrize(("source", "spec", "words"), MISTAKES, ids=[m[1] + m[2][-12:] for m in MISTAKES])
def test_every_mistake_is_one_line_and_nothing_is_written(tmp_path, monkeypatch, capsys, source, spec, words):
    monkeypatch.chdir(tmp_path)
    if source:
        Path("my.py").write_text(source)
    for argv in (["train", "--out", "run"], ["memory"], ["evaluate", "sokoban-base"], ["reproduce", "ablations"]):
        option = "--variants" if argv[0] == "reproduce" else "--variant"
        assert cli.main([*argv, option, spec]) == 2
        out, err = capsys.readouterr()
        assert (out, "Traceback" in err) == ("", False)
        assert words in err.strip().splitlines()[-1]
    assert [f.name for f in tmp_path.iterdir()] == (["my.py"] if source else [])


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("chess", "unknown task 'chess'; choose one of sokoban, webshop, alfworld, or FILE.py:NAME of your own"),
        ("my.py:number", "wanted is a World, of which my.py has: none"),
        ("task.py:sokoban", "sokoban is a shipped task; give yours another name"),
        ("task.py:wrong", "unknown setting 'level'; choose one of levels, "),
        ("task.py:named", "the name of a task must be a plain Python name, not 'a b'"),
    ],
)
def test_every_mistake_in_a_task_is_one_line(mine, monkeypatch, capsys, spec, words):
    monkeypatch.chdir(Path(mine).parent)
    Path("task.py").write_text(
        "from himac_lite.tasks import World\n"
        "sokoban = World('sokoban', print, print)\n"
        "wrong = World('wrong', print, print, {'rollout.level': 3})\n"
        "named = lambda: World('a b', print, print)\n"
    )
    for argv in (["train", "--out", "run"], ["evaluate", "sokoban-base"], ["reproduce", "ablations"]):
        assert cli.main([*argv, "--task", spec]) == 2
        assert words in capsys.readouterr().err.strip().splitlines()[-1]
    assert not Path("run").exists()


@pytest.mark.parametrize("name", registry.WORLDS)
def test_a_shipped_world_is_in_its_own_folder(name):
    world = registry.world(name)
    assert (world.name, world.make.__module__) == (name, registry.WORLDS[name])
    config = registry.for_task(Train(), name)
    assert config.task == name
    assert len(config.validation_levels.split("/")) == 2
    task = world.make(config.rollout.max_steps, config.rollout.subgoal_budget)
    assert (task.max_steps, task.subgoal_budget) == (config.rollout.max_steps, config.rollout.subgoal_budget)


def test_names_do_not_import_a_world():
    code = (
        "import sys; from himac_lite.cli import _parser; _parser(); import himac_lite.runs.folder;"
        "print([m for m in sys.modules if m.startswith(('himac_lite.tasks.webshop', 'himac_lite.tasks.alfworld'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


# ---- a manifest never imports a file -----------------------------------------------------------------------------


@pytest.fixture
def hostile(tmp_path: Path) -> tuple[Run, Path]:
    """A run whose manifest names a file with a side effect, in every place that has a name, and the side effect."""
    evil, mark = tmp_path / "evil.py", tmp_path / "mark"
    evil.write_text(
        f"open({str(mark)!r}, 'w').close()\nfrom himac_lite.hierarchy import Hierarchy\nevil = Hierarchy(depth=1)\n"
    )
    digest = hashlib.sha256(evil.read_bytes()).hexdigest()
    origin = {"file": str(evil), "sha256": digest, "name": "evil", "value": ""}
    run = create_run(tmp_path / "run", Train(variant="evil", task="evil"), {}, {"hierarchy": origin, "world": origin})
    return run, mark


def test_a_manifest_that_names_a_file_never_imports_it(hostile, capsys, monkeypatch):
    run, mark = hostile
    monkeypatch.chdir(mark.parent)
    assert load_run(run.folder).variant == "evil"
    assert run.metrics() == []
    TrainingDashboard(load_run(run.folder))
    folder = str(run.folder)
    for argv in (
        ["evaluate", folder], ["evaluate", folder, "--mode", "flat"], ["evaluate", folder, "--task", "sokoban"],
        ["train", "--resume", folder], ["export", folder, "--out", "out"],
        ["export", folder, "--rollouts", "--out", "out"],
    ):  # fmt: skip
        assert cli.main(argv) == 2, argv
        assert "Traceback" not in capsys.readouterr().err
    asks = r"begun with 'evil' of '.*evil.py', which a manifest cannot restore; add --"
    for action in (run.hierarchy, run.world, lambda: train(run.config, folder, resume=True)):
        with pytest.raises(RunError, match=asks):
            action()
    assert not mark.exists()
    assert run.hierarchy(f"{mark.parent}/evil.py:evil").name == "evil"
    assert mark.exists()  # so the test can fail


@pytest.mark.parametrize("key", ["variant", "task"])
def test_a_configuration_that_names_a_file_never_imports_it(hostile, key):
    run, mark = hostile
    spec = f"{mark.parent}/evil.py:evil"
    manifest = run.manifest | {"hierarchy": None, "world": None}
    manifest["config"][key] = spec
    (run.folder / "manifest.json").write_text(json.dumps(manifest))
    for action in (run.hierarchy, run.world, lambda: train(Train(), run.folder, resume=True)):
        with pytest.raises(RunError, match=f"{key} must be a plain Python name"):
            action()
    for choose in (hierarchy.choose, registry.choose):
        with pytest.raises(ConfigError, match="unknown"):
            choose(None, spec)
    assert not mark.exists()


def test_two_functions_load_a_file_and_both_are_given_what_the_user_said():
    """`load` is called where an option or an argument was given, and nowhere else."""
    callers = {
        f.relative_to(ROOT / "himac_lite").as_posix()
        for f in (ROOT / "himac_lite").rglob("*.py")
        for node in ast.walk(ast.parse(f.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module == "himac_lite.from_file"
        if "load" in {a.name for a in node.names}
    }
    assert callers == {"hierarchy/presets.py", "tasks/registry.py"}


# ---- in reproduce ------------------------------------------------------------------------------------------------


def test_cells_of_a_variant_from_a_file(mine, tmp_path):
    cells = grid.cells("ablations", ["himac", f"{mine}:mine"], 1)
    assert cells == [grid.Cell("himac", 0), grid.Cell("mine", 0, f"{mine}:mine")]
    assert [c.name for c in cells] == ["himac-0", "mine-0"]
    (tmp_path / "other.py").write_text(GOOD + "prompt_flat = mine")
    for two in ([f"{mine}:mine", f"{tmp_path}/other.py:mine"], [f"{tmp_path}/other.py:prompt_flat"]):
        with pytest.raises(ConfigError, match="two variants are called"):
            grid.cells("ablations", two)
    with pytest.raises(ConfigError, match="the grid webshop has its own task"):
        grid.settings_for("webshop", "alfworld")
    assert grid.settings_for("efficiency", "webshop").test_levels == "webshop/test"


def test_a_table_holds_one_version_of_a_file(tmp_path):
    """A variant may be added to a table that has rows; its hash is kept from then on."""
    name = f"{rows.OWN_FILE}mine"
    rows.keep_settings(tmp_path, {"seeds": 3}, begun=False)
    rows.keep_settings(tmp_path, {"seeds": 3, name: "aa"}, begun=True)
    assert json.loads((tmp_path / "settings.json").read_text()) == {"seeds": 3, name: "aa"}
    with pytest.raises(RunError, match="sha256 of the file of mine='aa', not 'bb'"):
        rows.keep_settings(tmp_path, {"seeds": 3, name: "bb"}, begun=True)


def test_a_world_is_given_as_a_value_or_refused():
    world = World("mine", print, print)  # type: ignore[arg-type]
    assert registry.choose(world, "sokoban").origin == {"value": "mine"}
    with pytest.raises(ConfigError) as error:
        train(Train(), "nowhere", world=world)
    assert "make it with for_task(config, mine)" in said(error)
    assert not Path("nowhere").exists()
