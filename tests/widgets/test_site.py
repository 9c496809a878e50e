"""The site, built and opened from a folder in Chromium: the live explorer shows what the library computes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, PATIENCE, ROOT, chromium, until

from himac_lite import widgets
from himac_lite.widgets import plots

for needed in ("playwright", "furo", "myst_nb"):
    pytest.importorskip(needed)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.is_file(), reason=f"no {CHROMIUM}: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site") / "out"
    subprocess.run([sys.executable, ROOT / "docs" / "site.py", out], check=True)
    return out


@pytest.fixture(scope="module")
def start(site: Path) -> Iterator[Any]:
    """The start page, opened by its path; it remembers what it fetched and its errors."""
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.fetched, page.faults = [], []
        page.on("request", lambda request: page.fetched.append(request.url))
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.goto((site / "index.html").as_uri())
        page.wait_for_selector(".hx-a >> nth=6", timeout=30_000 * PATIENCE)
        yield page


def test_the_start_page_is_small_and_asks_nobody(start, site):
    files = {Path(url.split("?")[0].removeprefix("file://")) for url in start.fetched if url.startswith("file:")}
    assert all(url.startswith(("file:", "data:", "blob:")) for url in start.fetched)
    assert site / "index.html" in files
    assert sum(file.stat().st_size for file in files) <= 500_000
    assert start.faults == []


@pytest.mark.parametrize("control", ["", "baseline b", "scale s", "over", "return"])
def test_every_puzzle_has_the_librarys_advantages(start, control):
    """Of each iteration on the page, each level, with the first choice and with the second of a control."""
    run = widgets.recorded_run()
    mine = widgets.AdvantageExplorer(run)
    names = {title: name for name, title in widgets.explorer.TITLES.items()}
    choice = start.locator(".widget-dropdown", has_text=control).locator("select").first if control else None
    if choice:
        choice.select_option(index=1)
        getattr(mine, names[control]).index = 1
    for place, iteration in enumerate((run.recorded_iterations()[0], run.recorded_iterations()[-1])):
        start.get_by_label("iteration").select_option(index=place)
        mine.iteration.value = iteration
        for level in range(len(run.rollouts(iteration))):
            start.get_by_label("level", exact=True).select_option(index=level)
            mine.level.value = level
            wanted = [plots.signed(a) for values in mine.advantages.values() for a in values]
            until(lambda: [text for text in start.locator(".hx-a").all_inner_texts() if text], wanted)
            until(lambda: start.locator(".himac-stage .himac-rollout-title").inner_text().split(",")[0],
                  mine.player.data["members"][mine.player.shown[0]]["name"])  # fmt: skip
    if choice:
        choice.select_option(index=0)


def test_a_member_is_chosen_and_played(start):
    mine = widgets.AdvantageExplorer(widgets.recorded_run())
    start.get_by_label("iteration").select_option(index=0)
    start.get_by_label("level", exact=True).select_option(index=0)
    start.get_by_role("button", name="z2", exact=True).click()
    mine.iteration.value = widgets.recorded_run().recorded_iterations()[0]
    mine.choose("macro", 1)
    title = start.locator(".himac-stage .himac-rollout-title")
    until(title.inner_text, mine.player.data["members"][1]["title"])
    start.get_by_label("to the end").click()
    steps = len(mine.player.data["members"][1]["moves"])
    assert start.locator(".himac-rollout-caption").inner_text().startswith(f"step {steps} of {steps}")
    assert start.faults == []
