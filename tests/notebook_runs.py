"""Run a notebook's code cells in this process."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from types import ModuleType

import nbformat
from IPython.core.inputtransformer2 import TransformerManager

ROOT = Path(__file__).resolve().parents[1]


def script(name: str) -> ModuleType:
    """One of the scripts beside the notebooks, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "notebooks" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_in_process(path: Path) -> dict:
    """Every code cell in order, as a kernel would; the text of a last line's value is printed."""
    names: dict = {"__name__": "__main__"}
    for number, cell in enumerate(nbformat.read(path, as_version=4).cells):
        if cell.cell_type == "code":
            code = ast.parse(TransformerManager().transform_cell(cell.source))
            if code.body and isinstance(last := code.body[-1], ast.Expr):
                code.body[-1] = ast.parse("_ = None").body[0]
                code.body[-1].value = last.value
                code.body.append(ast.parse("if _ is not None: print(repr(_))").body[0])
            exec(compile(code, f"{path.name}, cell {number}", "exec"), names)
    return names
