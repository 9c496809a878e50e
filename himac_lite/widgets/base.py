"""What the widgets share: their browser code, a picture where no kernel runs, the recorded runs."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from himac_lite import storage
from himac_lite.errors import RunError
from himac_lite.runs.folder import Run, load_run

STATIC = Path(__file__).parent / "static"


_TEXT = re.compile(r"""("(?:\\.|[^"\\\n])*"|`(?:\\.|[^`\\])*`)""")
_SPACES = (re.compile(r" *([-+*/=<>!?:;,.(){}\[\]&|]) *"), re.compile(r"(?<=[;,{(\[])\n"))


def browser_code(*names: str) -> str:
    """Files of widgets/static, concatenated as they are sent: no comments, no indentation, no idle spaces.

    Strings and templates stay as they are (so a template must not stand inside another). A comment has its own line.
    """
    lines = (line.strip() for name in names for line in (STATIC / name).read_text("utf-8").splitlines())
    code = "\n".join(line for line in lines if line and not line.startswith("//"))
    if not names[0].endswith(".js"):
        return code
    parts = enumerate(_TEXT.split(code))
    return "".join(part if i % 2 else _SPACES[1].sub("", _SPACES[0].sub(r"\1", part)) for i, part in parts)


def packed(value: Any, _: Any = None) -> str:
    """A trait's value as it is sent and saved: JSON, deflated, as base64; himac_lite/widgets/static/unpack.js reads it.

    A saved notebook writes one number of a list a line, so that recorded positions and log-probs would be most of it.
    """
    return base64.b64encode(zlib.compress(json.dumps(value, separators=(",", ":")).encode(), 9)).decode()


def unpacked(text: str, _: Any = None) -> Any:
    """What `packed` was given."""
    return json.loads(zlib.decompress(base64.b64decode(text)))


PACKED = {"sync": True, "to_json": packed, "from_json": unpacked}
"""Metadata of a trait that is large."""
STYLE = f"<style>{browser_code('explorer.css')}</style>"


class Pictured:
    """A widget that a saved notebook shows as a picture and as words, where there is no kernel to show it alive.

    Subclasses say `picture` (PNG bytes) and `words`. A notebook executed without storing widget state keeps both.
    """

    def picture(self) -> bytes:
        raise NotImplementedError

    def words(self) -> str:
        """The text alternative: what a person sees, in a few lines."""
        raise NotImplementedError

    _ipython_display_ = None  # ipywidgets 7 would hand over the live view alone

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        words = self.words()
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}  # type: ignore[attr-defined]
        data = {
            "application/vnd.jupyter.widget-view+json": view,
            "image/png": base64.b64encode(self.picture()).decode(),
            "text/plain": words,
        }
        return data, {"image/png": {"alt": words}}


def recorded_run(name: str = "quickstart") -> Run:
    """A run that is recorded with the package. Raises `RunError` that says where it was looked for and what to do."""
    folder = storage.data_dir() / "runs" / name
    if not folder.is_dir():
        mine = "open one of your own by himac_lite.load_run(FOLDER); himac-lite train --out FOLDER makes it"
        raise RunError(f"the recorded run {name!r} is not at {folder}: get the whole repository, or {mine}")
    return load_run(folder)


def dropdown(name: str, options: Sequence[Any], value: Any, layout: widgets.Layout | None = None) -> widgets.Dropdown:
    """A menu as wide as what it says. layout: one for several, since a saved notebook spells out 50 fields of each."""
    style, layout = {"description_width": "initial"}, layout or widgets.Layout(width="auto")
    return widgets.Dropdown(description=name, options=options, value=value, style=style, layout=layout)
