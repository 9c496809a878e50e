"""`himac-lite bench WHAT`: one benchmark, with its named alternatives in the same run."""

from __future__ import annotations

import argparse
import importlib
from typing import Any

from himac_lite.bench import BENCHMARKS
from himac_lite.cli.console import say
from himac_lite.cli.options import no_less

HELP = "measure speed and a named alternative in the same run"


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("what", choices=BENCHMARKS)
    p.add_argument("--runs", type=int, default=5, help="measured runs of each figure after one warm-up; default: 5")
    p.add_argument("--quick", action="store_true", help="small sizes, no peers: only a check that it runs")
    p.add_argument("--json", action="store_true", help="print one JSON object")
    p.set_defaults(run=run)


def run(given: argparse.Namespace) -> dict[str, Any]:
    no_less(given, runs=1)
    module = importlib.import_module(f"himac_lite.bench.{given.what}")
    report = module.bench(runs=given.runs, quick=given.quick)
    if not given.json:
        say(report.text())
    return report.as_dict()
