"""Executed copies of the notebooks as web pages: `python notebooks/gallery.py [NUMBER …] [--fast] [--out FOLDER]`.

Every page shows its pictures without kernel and network: plots use one plotly.min.js in the same folder, and widgets
appear in their last state. Each notebook runs in a fresh kernel; its seconds and peak memory are printed. Needs
`pip install "himac-lite[gallery]"`. The folder (notebooks/gallery/ by default) is never committed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
import plotly.io
import plotly.offline

HERE = Path(__file__).resolve().parent
PLOTLY, WIDGET = "application/vnd.plotly.v1+json", "application/vnd.jupyter.widget-view+json"

PRELUDE = """
def _still():
    from IPython import get_ipython
    from IPython.display import HTML, display
    from himac_lite import widgets

    shell, shown = get_ipython(), []

    def figure(dashboard):
        return f"<!--still:{id(dashboard)}-->{dashboard.summary.value}<!--plotly:{dashboard.figure().to_json()}-->"

    def remember(dashboard):
        shown.append((dashboard, dashboard.summary.value))
        return figure(dashboard)

    def later(*_):
        for n, (dashboard, before) in enumerate(shown):
            if dashboard.summary.value != before:
                shown[n] = (dashboard, dashboard.summary.value)
                display(HTML(figure(dashboard)))

    shell.display_formatter.formatters["text/html"].for_type(widgets.TrainingDashboard, remember)
    shell.events.register("post_run_cell", later)

_still()
"""
"""Runs before the first cell: a dashboard also emits its last state as HTML. Other widgets carry a PNG."""

MEASURE = """
import sys as _sys
try:
    import resource as _resource
    print(_resource.getrusage(_resource.RUSAGE_SELF).ru_maxrss * (1 if _sys.platform == "darwin" else 1024))
except ImportError:
    print(0)
"""


def picture(figure: str) -> str:
    """The HTML of a plotly figure's JSON; it needs the page's plotly.min.js."""
    options = {"full_html": False, "include_plotlyjs": False, "config": {"responsive": True}}
    return str(plotly.io.to_html(json.loads(figure), **options))


def still(outputs: list[Any]) -> list[Any]:
    """Outputs for a page without a kernel; a dashboard that was redrawn appears once, in its last state."""
    made = []
    for output in outputs:
        if output.output_type == "stream" and output.name == "stderr":
            continue
        data = output.get("data", {})
        if PLOTLY in data:
            data = {"text/html": picture(json.dumps(data[PLOTLY]))}
        elif WIDGET in data:  # a widget's fallback; HTML is the best one for a page
            data = {kind: value for kind, value in data.items() if kind != WIDGET}
            data = {"text/html": data["text/html"]} if "text/html" in data else data
        if "text/html" in data and (found := re.match(r"<!--still:\d+-->", data["text/html"])):
            mark = found[0]
            made = [o for o in made if not o.get("data", {}).get("text/html", "").startswith(mark)]
            before, figure = data["text/html"].split("<!--plotly:")
            data = {"text/html": before + picture(figure.removesuffix("-->"))}
        if "data" in output:
            output = nbformat.from_dict({**output, "data": data})
        made.append(output)
    return made


def page(path: Path, fast: bool) -> tuple[str, dict[str, Any]]:
    """Run one notebook in a fresh kernel.

    Returns: the page's HTML; its seconds, peak memory in bytes, code cells and warnings.
    """
    from nbclient import NotebookClient
    from nbconvert import HTMLExporter

    book = nbformat.read(path, as_version=4)
    hidden = [nbformat.v4.new_code_cell(PRELUDE), nbformat.v4.new_code_cell(MEASURE)]
    book.cells = [hidden[0], *book.cells, hidden[1]]
    os.environ["HIMAC_FAST"] = "1" if fast else "0"
    begun = time.monotonic()
    NotebookClient(
        book, timeout=600, store_widget_state=False, resources={"metadata": {"path": str(path.parent)}}
    ).execute()
    seconds = time.monotonic() - begun
    memory = int("".join(o.text for o in book.cells[-1].outputs))
    book.cells = book.cells[1:-1]
    loud = [
        o.text for c in book.cells for o in c.get("outputs", []) if o.output_type == "stream" and o.name == "stderr"
    ]
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs = still(cell.outputs)
    exporter = HTMLExporter(mathjax_url="", require_js_url="", jquery_url="", mermaid_js_url="", widget_renderer_url="")
    text, _ = exporter.from_notebook_node(book, {"metadata": {"name": path.stem}})
    text = text.replace("<head>", '<head><script src="plotly.min.js"></script>', 1)
    code = sum(cell.cell_type == "code" for cell in book.cells)
    return text, {"seconds": seconds, "memory": memory, "cells": code, "warnings": "".join(loud)}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("numbers", nargs="*", help="notebooks such as 00 03; default: all")
    parser.add_argument("--fast", action="store_true", help="use few levels and one iteration, as the tests do")
    parser.add_argument("--out", type=Path, default=HERE / "gallery")
    given = parser.parse_args(arguments)
    books = [b for b in sorted(HERE.glob("*.ipynb")) if not given.numbers or b.stem[:2] in given.numbers]
    if not books:
        parser.error(f"no notebook has the number {' or '.join(given.numbers)}")
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "plotly.min.js").write_text(plotly.offline.get_plotlyjs(), "utf-8")
    for book in books:
        text, cost = page(book, given.fast)
        (given.out / f"{book.stem}.html").write_text(text, "utf-8")
        shown = f"{cost['seconds']:6.1f} s  {cost['memory'] / 1e6:6.0f} MB  {cost['cells']} code cells"
        loud = f"  WARNINGS: {cost['warnings']}" if cost["warnings"] else ""
        print(f"{book.stem:28} {shown}  {len(text) / 1e3:.0f} kB{loud}", flush=True)
    links = "".join(f'<li><a href="{b.stem}.html">{b.stem}</a></li>' for b in sorted(given.out.glob("[0-9]*.html")))
    index = (
        f'<!doctype html><meta charset="utf-8"><title>himac-lite</title><h1>The course, executed</h1><ul>{links}</ul>'
    )
    (given.out / "index.html").write_text(index, "utf-8")
    print(given.out / "index.html")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
