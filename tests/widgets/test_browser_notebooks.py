"""Every notebook in JupyterLab at 1280 pixels, all cells run: no error, no warning, nothing cut off; and its pictures.

    python -m pytest -m browser -n 0 tests/widgets/test_browser_notebooks.py -k "light and 03"

leaves .browser/notebooks/light-03_…-1.png and so on, one a screenful, for a person to look at (never committed).
Trainings are shortened as in the other tests (HIMAC_FAST=1); HIMAC_PATIENCE=5 is for a machine that is busy.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, ROOT, chromium, jupyter, open_and_run, run_to_the_end, shut_down, until

pytest.importorskip("playwright")
pytest.importorskip("jupyterlab")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.is_file(), reason=f"no {CHROMIUM}: apt-get install chromium"),
]
SHOTS = ROOT / ".browser" / "notebooks"
BOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
DARK = ("00", "06")
"""One with every widget, one with curves that are drawn live."""

FAULTS = """() => {
  const found = [], say = (n, what, node) => found.push(`cell ${n}: ${what}: ${node.innerText.slice(0, 200)}`);
  document.querySelectorAll(".jp-Notebook .jp-Cell").forEach((cell, n) => {
    const outputs = cell.querySelectorAll(".jp-OutputArea-output");
    for (const o of outputs) {
      const mime = o.dataset.mimeType ?? "";
      if (/stderr|error/.test(mime)) say(n, mime, o);
      if (mime === "text/plain" && /^<|^\\w+\\(/.test(o.innerText)) say(n, "shown as code", o);
      if (/Loading widget|Error displaying widget/.test(o.innerText)) say(n, "no widget", o);
    }
    for (const box of [...outputs, ...cell.querySelectorAll(".jp-RenderedMarkdown")])
      if (box.scrollWidth > box.clientWidth + 1) say(n, `${box.scrollWidth - box.clientWidth} pixels too wide`, box);
    for (const code of cell.querySelectorAll(".cm-scroller"))
      if (code.scrollWidth > code.clientWidth + 1) say(n, "code cut off", code);
    for (const plot of cell.querySelectorAll(".js-plotly-plot")) {
      const all = plot.getBoundingClientRect(), inner = plot.querySelector(".nsewdrag").getBoundingClientRect();
      const legend = plot.querySelector(".legend .bg")?.getBoundingClientRect();
      if (legend && legend.bottom > inner.top + 1) say(n, "the legend lies on the plot", plot);
      for (const text of plot.querySelectorAll(".main-svg text")) {
        const box = text.getBoundingClientRect();
        if (box.width && (box.left < all.left - 1 || box.right > all.right + 1 || box.top < all.top - 1
            || box.bottom > all.bottom + 1)) say(n, "text cut off", text);
      }
    }
  });
  return found;
}"""
"""What nobody wants on a screen, each with its cell's number (counted from 0, words included)."""


def photograph(page: Any, stem: str) -> list[Path]:
    """The notebook from top to bottom, one picture a screenful."""
    panel, taken = page.locator(".jp-WindowedPanel-outer"), []
    panel.evaluate("(p) => p.scrollTo(0, 0)")
    last, step = page.locator(".jp-Notebook .jp-Cell").last.bounding_box(), panel.evaluate("(p) => p.clientHeight")
    height = int(last["y"] + last["height"] - panel.bounding_box()["y"])  # the panel can be scrolled past its end
    for k, top in enumerate(range(0, height, step)):
        panel.evaluate("(p, top) => p.scrollTo(0, top)", top)
        page.evaluate("() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
        taken.append(SHOTS / f"{stem}-{k + 1}.png")
        page.screenshot(path=taken[-1])
    return taken


@pytest.fixture(scope="module", params=["light", "dark"])
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, Any]]:
    """A theme, the address of a JupyterLab that shows it and has all notebooks, and a browser."""
    place = tmp_path_factory.mktemp(request.param)
    for path in BOOKS:
        shutil.copy(path, place)
    SHOTS.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HIMAC_FAST", "1")
        with jupyter(place, dark=request.param == "dark") as address, chromium() as browser:
            yield request.param, address, browser


@pytest.mark.parametrize("path", BOOKS, ids=lambda p: p.stem)
def test_a_notebook_on_the_screen(lab, path):
    theme, address, browser = lab
    if theme == "dark" and path.stem[:2] not in DARK:
        pytest.skip("looked at in the light theme")
    for old in SHOTS.glob(f"{theme}-{path.stem}-*.png"):
        old.unlink()
    page = browser.new_page(viewport={"width": 1280, "height": 1600})
    open_and_run(page, address, path.name)
    run_to_the_end(page, 300)
    until(lambda: page.evaluate(FAULTS), [])  # figures are drawn after the kernel has answered
    assert photograph(page, f"{theme}-{path.stem}")
    assert page.evaluate(FAULTS) == []
    shut_down(page)
