"""The shape of the package: one-way imports, a light front door, short files."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "himac_lite"

ORDER = (
    "errors",
    "processors",
    "types",
    "settings",
    "config",
    "storage",
    "checkpoints",
    "health",
    "sokoban.rules",
    "sokoban.cells",
    "sokoban.batch",
    "sokoban.render",
    "sokoban.pixels",
    "sokoban.playing",
    "sokoban.geometry",
    "sokoban.distances",
    "sokoban.bounds",
    "sokoban.astar",
    "sokoban.solver",
    "sokoban.files",
    "sokoban.levels",
    "sokoban.generator",
    "sokoban.binned",
    "sokoban.game",
    "sokoban.env",
    "sokoban.vector",
    "language",
    "chat",
    "instructions",
    "tokenizer",
    "webshop.*",
    "alfworld.*",
    "tasks.*",
    "lessons",
    "webshop.players",
    "alfworld.players",
    "sokoban.commands",
    "sokoban",
    "planners",
    "sokoban.goals",
    "demonstrations",
    "augment",
    "advantage",
    "objective",
    "parallel",
    "generation",
    "static_decoding",
    "packed",
    "codes",
    "pictures",
    "speech",
    "distributed",
    "model",
    "saving",
    "loading",
    "memory",
    "carrying",
    "rollout",
    "scripted",
    "hierarchy.*",
    "records",
    "runs",
    "update",
    "credit",
    "coevolution",
    "probe",
    "evaluation",
    "prompting",
    "intervals",
    "curriculum",
    "training",
    "scoring",
    "sft",
    "export",
    "reproduce.*",
    "stage",
    "pretrain",
    "textbase",
    "plots.*",
    "widgets.*",
    "course",
    "exercises.*",
    "bench.*",
    "cli.*",
    "__main__",
    "",
)
"""A module imports only from the modules above it. ``tasks.*`` is a package whose members may import each other; ``""``
is ``himac_lite/__init__.py``, the roof, which may import everything and which nothing imports."""

MAX_LINES = 300
LONGER: dict[str, int] = {}
"""Files that were already longer when the rule was made, and how long they may be. Take entries out; add none."""

HEAVY = ("torch", "transformers", "bitsandbytes", "peft", "plotly")


def dotted(path: Path) -> str:
    """The module's name inside the package: ``sokoban.rules``, ``sokoban``, and ``""`` for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {dotted(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def place(module: str) -> str | None:
    """The entry of ORDER that a module belongs to."""
    if module in ORDER:
        return module
    return next((entry for entry in ORDER if entry.endswith(".*") and f"{module}.".startswith(entry[:-1])), None)


def imports(module: str, source: str, is_package: bool = False) -> Iterator[tuple[int, str]]:
    """(line, imported module of this package) of every import, those inside functions too."""
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
    """What the imports of a module break, one sentence each."""
    own = place(module)
    assert own is not None
    found = []
    for line, target in imports(module, source, is_package):
        entry = place(target)
        if entry is None:
            found.append(f"line {line} imports himac_lite.{target}, which has no place in ORDER")
        elif target == module or (entry == own and not own.endswith(".*")):
            found.append(f"line {line} imports himac_lite.{target}: itself")
        elif ORDER.index(entry) > ORDER.index(own):
            found.append(f"line {line} imports himac_lite.{target}, which stands below it")
    return found


@pytest.mark.parametrize("module", MODULES)
def test_module_has_a_place_and_imports_only_from_above(module):
    path = MODULES[module]
    assert place(module) is not None, (
        f"himac_lite/{path.relative_to(PACKAGE)} is in no list: add {module!r} to ORDER in tests/test_house.py, below "
        "everything that it imports, and a row for it to the table in docs/architecture.md"
    )
    found = upward(module, path.read_text("utf-8"), path.name == "__init__.py")
    assert not found, f"himac_lite/{path.relative_to(PACKAGE)}: " + "; ".join(found)


@pytest.mark.parametrize(
    ("module", "source", "words"),
    [
        ("types", "from himac_lite.language import prompt", "himac_lite.language, which stands below"),
        ("types", "from himac_lite import language", "himac_lite.language, which stands below"),
        ("types", "import himac_lite.language as l", "himac_lite.language, which stands below"),
        ("sokoban.rules", "def f():\n    from ..language import prompt", "line 2 imports himac_lite.language"),
        ("sokoban.rules", "from .solver import solve", "himac_lite.sokoban.solver, which stands below"),
        ("language", "from himac_lite import train", "imports himac_lite., which stands below"),
        ("language", "from himac_lite import nowhere_to_be_found, __version__", "imports himac_lite."),
    ],
)
def test_the_check_sees_an_upward_import(module, source, words):
    assert any(words in sentence for sentence in upward(module, source))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("language", "import re\nfrom himac_lite.sokoban.rules import STEP\nfrom himac_lite import types"),
        ("cli", "from himac_lite import __version__, language"),
        ("sokoban.solver", "from .rules import STEP\nfrom ..types import Level"),
        ("tasks.sokoban", "from himac_lite.tasks.base import Task"),
    ],
)
def test_the_check_lets_a_downward_import_pass(module, source):
    assert upward(module, source) == []


def test_every_row_of_the_order_but_the_planned_ones_exists():
    """A name that is left over after a module was renamed would hide the new one's place."""
    planned = {
        "__main__",
        "tasks.*",
        "webshop.*",
        "alfworld.*",
        "plots.*",
        "widgets.*",
        "bench.*",
        "cli.*",
        "exercises.*",
        "hierarchy.*",
        "reproduce.*",
    }
    missing = {m for m in ORDER if m not in MODULES} - planned
    assert not missing, f"ORDER in tests/test_house.py names modules that do not exist: {sorted(missing)}"


@pytest.mark.parametrize("module", MODULES)
def test_file_is_short(module):
    lines = len(MODULES[module].read_text("utf-8").splitlines())
    limit = LONGER.get(module, MAX_LINES)
    assert lines <= limit, f"himac_lite.{module} has {lines} lines, more than {limit}: divide it"


@pytest.mark.parametrize("module", ["himac_lite", "himac_lite.advantage", "himac_lite.sokoban.levels"])
def test_import_is_light(module):
    code = f"import sys, {module}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "", f"import {module} also imports {done.stdout.strip()}"
