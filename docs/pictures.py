"""The pictures of README.md and docs/: `python docs/pictures.py`, after the browser tests have taken them.

    python -m pytest -m browser -n 0 tests/widgets/test_browser.py -k pictures
    python docs/pictures.py

The tests leave whole cells in .browser/, named theme-width-cell.png.
This script crops some of them, reduces their colours, and writes them to docs/img/.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
TAKEN, KEPT = ROOT / ".browser", ROOT / "docs" / "img"
WIDE, NARROW = (70, 55, 1180, 828), (70, 262, 700, 834)
"""Left, top, right, bottom: the explorer with its controls and the board, and its two groups alone."""
PICTURES = {
    "explorer": ("light-1280-1", WIDE),
    "explorer-dark": ("dark-1280-1", WIDE),
    "explorer-narrow": ("light-800-1", NARROW),
    "explorer-narrow-dark": ("dark-800-1", NARROW),
    "player": ("light-1280-2", None),
    "dashboard": ("light-1280-3", None),
    "strip": ("light-1280-4", None),
}
"""Name → which picture of the tests, and what is cut out of it (None: all of it)."""
LARGEST = 150_000


def shrink(taken: Path, kept: Path, box: tuple[int, int, int, int] | None) -> int:
    """Write one picture with as many colours as fit into `LARGEST` bytes; return its size."""
    image = Image.open(taken).convert("RGB").crop(box)
    for colours in (128, 64, 32, 16):
        image.quantize(colours, dither=Image.Dither.NONE).save(kept, "PNG", optimize=True)
        if kept.stat().st_size <= LARGEST:
            break
    return kept.stat().st_size


def main() -> int:
    missing = [name for name, _ in PICTURES.values() if not (TAKEN / f"{name}.png").is_file()]
    if missing:
        print(f"no {missing[0]}.png in {TAKEN}: pytest -m browser -n 0 tests/widgets/test_browser.py -k pictures")
        return 2
    KEPT.mkdir(exist_ok=True)
    for name, (taken, box) in PICTURES.items():
        size = shrink(TAKEN / f"{taken}.png", KEPT / f"{name}.png", box)
        print(f"docs/img/{name}.png {size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
