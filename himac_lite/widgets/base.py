"""Shared parts of the widgets: browser code, the static picture for saved notebooks, recorded runs."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from himac_lite import storage
from himac_lite.errors import RunError, checked
from himac_lite.runs import records
from himac_lite.runs.folder import Run, load_run

STATIC = Path(__file__).parent / "static"
_TEXT = re.compile(r"""("(?:\\.|[^"\\\n])*"|`(?:\\.|[^`\\])*`)""")
_SPACES = (re.compile(r" *([-+*/=<>!?:;,.(){}\[\]&|]) *"), re.compile(r"(?<=[;,{(\[])\n"))


def browser_code(*names: str) -> str:
    """Files of widgets/static, concatenated without comments, indentation and unnecessary spaces.

    Strings and templates are unchanged; templates must not be nested, and a comment needs its own line.
    """
    lines = (line.strip() for name in names for line in (STATIC / name).read_text("utf-8").splitlines())
    code = "\n".join(line for line in lines if line and not line.startswith("//"))
    if not names[0].endswith(".js"):
        return code
    parts = enumerate(_TEXT.split(code))
    return "".join(part if i % 2 else _SPACES[1].sub("", _SPACES[0].sub(r"\1", part)) for i, part in parts)


def packed(value: Any, _: Any = None) -> str:
    """A trait's value for transport: JSON, deflated, in base64; himac_lite/widgets/static/unpack.js reads it.

    A saved notebook writes each number of a list on its own line, so plain positions and log-probs would dominate it.
    """
    return base64.b64encode(zlib.compress(json.dumps(value, separators=(",", ":")).encode(), 9)).decode()


def unpacked(text: str, _: Any = None) -> Any:
    """The inverse of `packed`."""
    return json.loads(zlib.decompress(base64.b64decode(text)))


PACKED = {"sync": True, "to_json": packed, "from_json": unpacked}
"""Metadata of a large trait."""
STYLE = f"<style>{browser_code('explorer.css')}</style>"


class Pictured:
    """A widget with a PNG picture and a text alternative, which a saved notebook shows without a kernel.

    Subclasses implement `picture` (PNG bytes) and `words`. A notebook executed without widget state keeps both.
    """

    def picture(self) -> bytes:
        raise NotImplementedError

    def words(self) -> str:
        """The text alternative, in a few lines."""
        raise NotImplementedError

    _ipython_display_ = None  # ipywidgets 7 would return only the live view

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        words = self.words()
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}  # type: ignore[attr-defined]
        data = {
            "application/vnd.jupyter.widget-view+json": view,
            "image/png": base64.b64encode(self.picture()).decode(),
            "text/plain": words,
        }
        return data, {"image/png": {"alt": words}}


@checked
def records_of(source: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """One record or several, as a list. Raises `RunError` for a record that a widget cannot show."""
    given = [source] if isinstance(source, Mapping) else list(source)
    for record in given:
        if "macro" not in record and "micro" not in record:
            raise RunError("this record has no group; give a run, or one of run.rollouts(iteration)")
        records.check(record)
    return given


@checked
def recorded_run(name: str = "quickstart") -> Run:
    """A run that is shipped with the package. Raises `RunError` that names the expected folder."""
    folder = storage.data_dir() / "runs" / name
    if not folder.is_dir():
        own = "train a run with himac-lite train --out FOLDER and open it with himac_lite.load_run(FOLDER)"
        raise RunError(f"the recorded run {name!r} is not at {folder}: clone the whole repository, or {own}")
    return load_run(folder)


def dropdown(name: str, options: Sequence[Any], value: Any, layout: widgets.Layout | None = None) -> widgets.Dropdown:
    """A menu with automatic width. layout: shared by several menus, to keep saved notebooks small."""
    style, layout = {"description_width": "initial"}, layout or widgets.Layout(width="auto")
    return widgets.Dropdown(description=name, options=options, value=value, style=style, layout=layout)
