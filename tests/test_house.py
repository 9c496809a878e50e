"""The layout of the package: rooms in one import order, no cycles, a light front door, short files."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "himac_lite"
ROOMS = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/architecture.md").read_text("utf-8"), re.MULTILINE)
"""The rooms in import order: the table of docs/architecture.md is the only list."""

MAX_LINES = 350
MAX_FOLDERS = 12
MAX_FRONT = 12
"""Modules directly in himac_lite/."""
HEAVY = ("torch", "transformers", "bitsandbytes", "peft", "plotly")


def dotted(path: Path) -> str:
    """The module's name inside the package: ``tasks.sokoban.rules``, ``tasks``, and ``""`` for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {dotted(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def room(module: str) -> str:
    return module.partition(".")[0]


def imports(module: str, source: str, is_package: bool = False) -> Iterator[tuple[int, str]]:
    """(line, imported module of this package) of every import, including those inside functions."""
    here = module.split(".") if module else []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] == "himac_lite":
                    yield node.lineno, alias.name.partition(".")[2]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                up = node.level - 1 if is_package else node.level
                base = ".".join([*here[: len(here) - up], *(node.module or "").split(".")]).strip(".")
            elif (node.module or "").partition(".")[0] == "himac_lite":
                base = (node.module or "").partition(".")[2]
            else:
                continue
            for alias in node.names:
                inner = f"{base}.{alias.name}".strip(".")
                if inner in MODULES:
                    yield node.lineno, inner
                elif not (base == "" and alias.name == "__version__"):  # a constant, harmless from below
                    yield node.lineno, base


def upward(module: str, source: str, is_package: bool = False) -> list[str]:
    """Imports of a module that break the order of the rooms, one sentence each."""
    found = []
    for line, target in imports(module, source, is_package):
        if target and room(target) not in ROOMS:
            found.append(f"line {line} imports himac_lite.{target}, whose room is not in docs/architecture.md")
        elif module and (not target or ROOMS.index(room(target)) > ROOMS.index(room(module))):
            found.append(f"line {line} imports himac_lite.{target}, a room below")
    return found


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_its_own_room_and_those_above(module):
    path = MODULES[module]
    assert not module or room(module) in ROOMS, f"add the room of {module!r} to the table in docs/architecture.md"
    found = upward(module, path.read_text("utf-8"), path.name == "__init__.py")
    assert not found, f"himac_lite/{path.relative_to(PACKAGE)}: " + "; ".join(found)


def graph() -> dict[str, set[str]]:
    """Module → the modules that it imports."""
    return {
        module: {t for _, t in imports(module, path.read_text("utf-8"), path.name == "__init__.py") if t != module}
        for module, path in MODULES.items()
    }


def test_no_modules_import_each_other():
    graphlib.TopologicalSorter(graph()).prepare()


@pytest.mark.parametrize(
    ("module", "source", "words"),
    [
        ("types", "from himac_lite.policy.prompts import Speech", "himac_lite.policy.prompts, a room below"),
        ("types", "from himac_lite import tasks", "himac_lite.tasks, a room below"),
        ("types", "import himac_lite.tasks.text as t", "himac_lite.tasks.text, a room below"),
        ("tasks.text", "def f():\n    from ..policy import chat", "line 2 imports himac_lite.policy.chat"),
        ("policy.chat", "from himac_lite import train", "imports himac_lite., a room below"),
        ("policy.chat", "from himac_lite import nowhere_to_be_found, __version__", "imports himac_lite."),
        ("cli", "from himac_lite.attic import box", "not in docs/architecture.md"),
    ],
)
def test_the_check_sees_an_upward_import(module, source, words):
    assert any(words in sentence for sentence in upward(module, source))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("policy.chat", "import re\nfrom himac_lite.tasks.sokoban.rules import STEP\nfrom himac_lite import types"),
        ("cli", "from himac_lite import __version__, tasks"),
        ("tasks.sokoban.solver", "from .rules import STEP\nfrom ...types import Level"),
    ],
)
def test_the_check_lets_a_downward_import_pass(module, source):
    assert upward(module, source) == []


def test_the_list_of_rooms_is_the_house():
    there = {room(module) for module in MODULES if module}
    assert set(ROOMS) == there
    assert len(ROOMS) == len(set(ROOMS))


def test_the_front_door_is_short():
    folders = [p for p in PACKAGE.iterdir() if p.is_dir() and any(p.glob("*.py"))]
    assert len(folders) <= MAX_FOLDERS
    assert len(list(PACKAGE.glob("*.py"))) <= MAX_FRONT


@pytest.mark.parametrize("module", MODULES)
def test_file_is_short(module):
    lines = len(MODULES[module].read_text("utf-8").splitlines())
    assert lines <= MAX_LINES, f"himac_lite.{module} has {lines} lines, more than {MAX_LINES}: split it"


def test_the_linter_reads_every_module():
    """An exclude such as ``runs`` would also hide a room of that name."""
    pytest.importorskip("ruff")
    command = [sys.executable, "-m", "ruff", "check", "--show-files", str(PACKAGE)]
    found = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert {str(path) for path in MODULES.values()} <= set(found.stdout.splitlines()), found.stderr


def test_one_module_knows_about_ranks():
    words = re.compile(r"\.rank\b(?!s)|\bWORLD_SIZE\b|team\.size|crew\.size|PartialState")
    knowing = {m for m, p in MODULES.items() if words.search(re.sub(r"(model|lora)\.rank", "", p.read_text("utf-8")))}
    assert knowing == {"policy.distributed"}


@pytest.mark.parametrize(
    "module", ["himac_lite", "himac_lite.advantage", "himac_lite.tasks.sokoban.levels", "himac_lite.hierarchy"]
)
def test_import_is_light(module):
    code = f"import sys, {module}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "", f"import {module} also imports {done.stdout.strip()}"


def test_no_test_module_is_imported_from_another_folder():
    for path in (ROOT / "tests").rglob("*.py"):
        for name in re.findall(r"^\s*(?:from|import) (test_\w+)", path.read_text("utf-8"), re.MULTILINE):
            assert (path.parent / f"{name}.py").is_file(), f"{path}: move what it takes from {name} to tests/"
