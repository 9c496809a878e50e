"""`himac-lite doctor`: what is installed and what will be used."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from himac_lite import __version__

HELP = "say what is installed and what will be used"


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("--json", action="store_true", help="print one JSON object")
    p.set_defaults(run=run)


def run(given: argparse.Namespace) -> dict[str, Any]:
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, Any] = {"himac-lite": __version__, "python": sys.version.split()[0], "cpus": os.cpu_count()}
    numerics, models = ("numpy", "numba", "gymnasium"), ("torch", "transformers", "peft", "bitsandbytes")
    for name in (*numerics, *models, "ipywidgets", "plotly"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    if found["torch"]:
        import torch

        found["cuda"] = torch.cuda.is_available()
    if not given.json:
        for name, value in found.items():
            print(f"{name:14} {value if value is not None else 'not installed: pip install himac-lite[train,qlora]'}")
    return found
