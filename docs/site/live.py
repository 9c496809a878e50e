"""A widget's state as scripts for a page without a kernel; live.js shows it.

Scripts rather than JSON and modules: a page that is opened from a folder may load nothing else.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

from ipywidgets.embed import dependency_state

from himac_lite import widgets
from himac_lite.runs.folder import Run
from himac_lite.widgets.base import packed
from himac_lite.widgets.credit import level_data
from himac_lite.widgets.player import level_playback
from himac_lite.widgets.plots import best_of

Modules = dict[str, str]
"""Name → browser code of a widget."""
UNUSED = ("_model_module", "_model_module_version", "_view_module", "_view_module_version", "_view_name", "_view_count",
          "_model_name", "_anywidget_id", "_css")  # fmt: skip


def state_of(widget: Any, modules: Modules) -> dict[str, Any]:
    """The models of a widget and of all that it refers to; their browser code goes into `modules`, once."""
    models = {}
    for key, model in dependency_state([widget], drop_defaults=False).items():
        state = {k: v for k, v in model["state"].items() if k not in UNUSED and v is not None}
        if "_esm" in state:
            name = hashlib.sha256(state["_esm"].encode()).hexdigest()[:8]
            modules[name], state["_esm"] = state["_esm"], name
        models[key] = {"model_name": model["model_name"], "state": state}
    return {"root": widget.model_id, "models": models}


def explorer(run: Run, modules: Modules, which: Sequence[int]) -> dict[str, Any]:
    """An `AdvantageExplorer` with what the kernel would send for each choice.

    which: places among the recorded iterations; each adds about 100 kB to the page.
    """
    shown = widgets.AdvantageExplorer(run)
    numbers = [run.recorded_iterations()[n] for n in which]
    shown.iteration.options = numbers
    iterations, episodes = [], {}
    for i in numbers:
        records = run.rollouts(i)
        levels = [level_data(record) for record in records]
        for p, (record, level) in enumerate(zip(records, levels, strict=True)):
            for plan in {best_of(record), *range(len(level.get("macro", [])))}:
                group = "macro" if "macro" in record else "micro"
                data = level_playback(record, group, 0, plan)[0]
                episodes[f"{i}:{p}:{plan}"] = packed(data | {"channel": shown.groups.channel, "key": f"{i}:{p}:{plan}"})
        groups = [rows for level in levels for rows in (level.get("macro", []), *level["micros"].values())]
        iterations.append({
            "iteration": i, "data": packed({"iteration": i, "levels": levels}), "size": max(2, *map(len, groups)),
            "titles": [f"{p + 1}: {level['title']}" for p, level in enumerate(levels)],
            "levels": [{"best": level["best"], "macro": len(level.get("macro", []))} for level in levels],
        })  # fmt: skip
    parts = {name: getattr(shown, name).model_id for name in ("groups", "player", "iteration", "level", "size")}
    kernel = {"name": "explorer", "parts": parts, "iterations": iterations, "episodes": episodes}
    return state_of(shown, modules) | {"kernel": kernel}


def module_script(modules: Modules) -> str:
    """The browser code of all widgets as one script: the same text, where `export default` becomes `return`."""
    out = []
    for name, code in modules.items():
        body = re.sub(
            r"^export default ?", "return ", re.sub(r"^export function", "function", code, flags=re.M), flags=re.M
        )
        out.append(f"himacLive.modules[{json.dumps(name)}] = () => {{\n{body}\n}};\n")
    return "".join(out)


def show_script(element: str, saved: dict[str, Any]) -> str:
    """A script that shows a saved widget in the element of this id."""
    text = json.dumps(saved, separators=(",", ":"), ensure_ascii=False).replace("</", "<\\/")
    return f"himacLive.show(document.getElementById({json.dumps(element)}), {text});\n"
