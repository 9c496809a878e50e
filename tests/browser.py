"""A Jupyter server, Debian's Chromium and a notebook with all widgets, for test_browser.py and its pictures."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import nbformat

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = float(os.environ.get("HIMAC_PATIENCE", "1"))
"""Every waiting limit, and every bound of speed, times this: for a machine that is busy with something else."""
CHROMIUM = Path(os.environ.get("HIMAC_CHROMIUM", "/usr/bin/chromium"))
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip

CELLS = [
    "from himac_lite import widgets\nfrom himac_lite.runs.folder import load_run\nrun = widgets.recorded_run()",
    "explorer = widgets.AdvantageExplorer(run)\nexplorer",
    "player = widgets.RolloutPlayer(explorer.record, 'micro', 0, beside=('micro', 1))\nplayer",
    "dashboard = widgets.TrainingDashboard(run)\ndashboard",
    "strip = widgets.CoEvolutionStrip(run)\nstrip",
]
"""The four widgets."""
MORE = [
    "import json\nlong = widgets.RolloutPlayer(json.load(open('long.json')))\nlong",
    "evil = widgets.AdvantageExplorer(load_run('probed'))\nevil",
    "odd = widgets.CoEvolutionStrip(load_run('probed'))\nodd",
    "seeds = widgets.TrainingDashboard(sorted((widgets.base.storage.data_dir() / 'runs' / 'core').iterdir()))\nseeds",
]
"""A rollout of 200 moves, texts that try to be markup (twice), several seeds."""
EXPLORER, PLAYER, DASHBOARD, STRIP, LONG, EVIL, ODD, SEEDS = range(1, 9)
"""The number of each one's cell."""


def write_notebook(path: Path, cells: list[str]) -> None:
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    book.metadata["kernelspec"] = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    nbformat.write(book, path)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def jupyter(folder: Path, *, dark: bool = False) -> Iterator[str]:
    """A server of JupyterLab and Notebook 7 in a folder; its address. The package is the one in this checkout."""
    settings = folder / ".settings" / "@jupyterlab"
    for extension, name, value in (
        ("notebook-extension", "tracker", {"windowingMode": "none"}),  # cells out of sight are shown, too
        ("apputils-extension", "themes", {"theme": "JupyterLab Dark" if dark else "JupyterLab Light"}),
        ("apputils-extension", "notification", {"fetchNews": "false", "checkForUpdates": False}),
    ):
        (settings / extension).mkdir(parents=True, exist_ok=True)
        (settings / extension / f"{name}.jupyterlab-settings").write_text(json.dumps(value))
    port = free_port()
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "JUPYTERLAB_SETTINGS_DIR": str(folder / ".settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / f".workspaces-{port}"), "JUPYTER_CONFIG_DIR": str(folder / ".config"),
        "IPYTHONDIR": str(folder / ".ipython"), "JUPYTER_PLATFORM_DIRS": "1",
    }  # fmt: skip
    options = [f"--port={port}", "--no-browser", "--allow-root", "--IdentityProvider.token=", "--ServerApp.token="]
    options += [f"--{app}.expose_app_in_browser=True" for app in ("LabApp", "JupyterNotebookApp")]
    command = [sys.executable, "-m", "jupyterlab", *options, f"--ServerApp.root_dir={folder}"]
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            address = f"http://127.0.0.1:{port}"
            for _ in range(int(240 * PATIENCE)):
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"{address}/api/status", timeout=2).read()
                    break
                if server.poll() is not None:
                    raise RuntimeError((folder / "server.log").read_text()[-3000:])
                time.sleep(0.25)
            yield address
        finally:
            server.terminate()
            server.wait(20)


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


PANEL = "window.jupyterapp?.shell.currentWidget"
READY = f"""() => {{
  const panel = {PANEL}, session = panel?.sessionContext, kernel = session?.session?.kernel;
  return Boolean(panel?.context?.isReady && session?.isReady && kernel?.connectionStatus === "connected"
    && kernel.status === "idle" && jupyterapp.commands.isEnabled("notebook:run-all-cells"));
}}"""
"""Whether the notebook is read, its kernel is connected and idle, and the command of "Run All Cells" is enabled."""
RUN = """() => {
  window.ended = false;
  jupyterapp.commands.execute("notebook:run-all-cells").finally(() => { window.ended = true; });
}"""
WIDGETS = (
    ".hx-a", ".himac-stage >> nth=1", ".js-plotly-plot >> nth=1", ".hx-strip section", ".himac-rollout >> nth=3",
    ".hx-a >> nth=20", ".hx-strip >> nth=1",
)  # fmt: skip
"""What is on the page when each widget of `CELLS` and `MORE` is drawn."""


def open_and_run(page: Any, address: str, name: str, *, lab: bool = True, wait: Sequence[str] = ()) -> None:
    """Open a notebook, and run all its cells as soon as they can run.

    wait: selectors. With some, all cells are executed and each selector has its element at the end; without, the cells
    have only begun (`run_to_the_end` waits for them).
    """
    page.set_default_timeout(30_000 * PATIENCE)
    where = f"lab/tree/{name}?reset" if lab else f"notebooks/{name}"  # reset: without the last notebook's tab
    page.goto(f"{address}/{where}", timeout=60_000 * PATIENCE)
    page.wait_for_function(READY, timeout=90_000 * PATIENCE)
    page.evaluate(RUN)
    if wait:
        run_to_the_end(page, 120)
    for selector in wait:
        page.wait_for_selector(selector, timeout=60_000 * PATIENCE)


def run_to_the_end(page: Any, seconds: float) -> None:
    """Wait until all cells are executed, each with its number."""
    page.wait_for_function("() => window.ended", timeout=1000 * seconds * PATIENCE)
    prompts = "() => [...document.querySelectorAll('.jp-CodeCell .jp-InputArea-prompt')].map((p) => p.innerText)"
    until(lambda: [p for p in page.evaluate(prompts) if not re.fullmatch(r"\[\d+\]:", p)], [])


def shut_down(page: Any) -> None:
    """Shut the notebook's kernel down, and close the page."""
    page.evaluate(f"async () => {{ await ({PANEL}).sessionContext.shutdown(); }}")
    page.close()


def crowding() -> float:
    """How many times longer a computation takes now than on a machine with nothing else to do."""
    wall, cpu = time.perf_counter(), time.process_time()
    while time.process_time() - cpu < 0.3:
        pass
    return max(1.0, (time.perf_counter() - wall) / 0.3)


def until(found: Callable[[], Any], wanted: Any, seconds: float = 8) -> None:
    """Look until what is found is what is wanted; when time is up the assertion says what there was instead."""
    end = time.monotonic() + seconds * PATIENCE
    while (last := found()) != wanted and time.monotonic() < end:
        time.sleep(0.05)
    assert last == wanted, f"{last!r} instead of {wanted!r}"


def drag(page: Any, handle: Any, by: float, steps: int = 1) -> None:
    """Move a slider's handle with the mouse."""
    handle.scroll_into_view_if_needed()
    box = handle.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + by, y, steps=steps)
    page.mouse.up()
