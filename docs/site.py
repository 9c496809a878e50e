"""The site: `python docs/site.py OUT` writes it, with OUT/index.html as its start page.

It needs `pip install "himac-lite[site]"`. Every page works from a folder, under any path, and without a network.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
from pathlib import Path

from sphinx.cmd.build import build_main

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "docs" / "site"
sys.path[0] = str(SITE)

import live  # noqa: E402

from himac_lite import widgets  # noqa: E402
from himac_lite.widgets.base import browser_code  # noqa: E402

API = ("himac_lite", "advantage", "objective", "hierarchy", "coevolution", "settings", "types", "widgets", "errors")
REPOSITORY = "https://github.com/himac-lite/himac-lite/blob/main/"


def sources(to: Path) -> None:
    """All pages, in the same folders as in the repository; links to files that are no pages lead to the repository."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "notebooks").glob("*.ipynb")]
    for page in pages:
        target = to / page.relative_to(ROOT)
        target.parent.mkdir(exist_ok=True)
        text = page.read_text("utf-8")

        def elsewhere(found: re.Match[str], folder: Path = page.parent) -> str:
            path = (folder / found[1]).resolve()
            page_of_ours = path in pages or path.is_relative_to(ROOT / "docs" / "img")
            return found[0] if page_of_ours or not path.exists() else f"]({REPOSITORY}{path.relative_to(ROOT)})"

        target.write_text(re.sub(r"\]\((?!https?:|#)([^)#\s]+)(?:#[^)]*)?\)", elsewhere, text), "utf-8")
    shutil.copytree(ROOT / "docs" / "img", to / "docs" / "img")
    for name in ("conf.py", "index.md"):
        shutil.copy(SITE / name, to)
    modules = [name if name == "himac_lite" else f"himac_lite.{name}" for name in API]
    blocks = [f"## `{m}`\n\n```{{eval-rst}}\n.. automodule:: {m}\n   :members:\n```\n" for m in modules]
    (to / "api.md").write_text("# Reference\n\n" + "\n".join(blocks), "utf-8")


def scripts(static: Path) -> None:
    """The explorer of the start page, and the browser code of the widgets."""
    static.mkdir()
    modules: live.Modules = {}
    saved = live.explorer(widgets.recorded_run(), modules, (0, -1))
    (static / "explorer.js").write_text(live.show_script("explorer", saved), "utf-8")
    (static / "modules.js").write_text(live.module_script(modules), "utf-8")
    shutil.copy(SITE / "live.js", static)
    css = (SITE / "live.css").read_text("utf-8") + browser_code("explorer.css", "player.css")
    (static / "live.css").write_text(css, "utf-8")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    out = parser.parse_args(arguments).out
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        source.mkdir()
        sources(source)
        scripts(source / "_static")
        done: int = build_main(["-q", "-b", "html", "-d", str(Path(folder) / "trees"), str(source), str(out)])
    return done


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
