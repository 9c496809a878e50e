"""docs/cookbook.md and notebook 09: every variant is defined outside the package, in few lines, and really trains."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
from iterations import one_iteration

from himac_lite.hierarchy import Hierarchy
from himac_lite.policy.loading import LoraSettings, load_policy

ROOT = Path(__file__).resolve().parents[2]
COOKBOOK = (ROOT / "docs" / "cookbook.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", COOKBOOK, re.M | re.S)
AXES = re.findall(r"^## (\d+)\. ", COOKBOOK, re.M)
MASTER = (ROOT / "notebooks" / "src" / "09_your_own_hierarchy.py").read_text("utf-8")
CELLS = dict(re.findall(r"^# %%\n# VARIANT (\w+)\n(.*?)(?=^# %%)", MASTER, re.M | re.S))


def recipes() -> list[tuple[str, Hierarchy]]:
    """Every value that the page names `variant`, in order; the page is one program."""
    names: dict[str, Any] = {}
    out = []
    for number, block in enumerate(BLOCKS):
        parts = re.split(r"^(?=variant = )", block, flags=re.M)
        for part in parts:
            exec(compile(part, f"cookbook.md, block {number + 1}", "exec"), names)
            if part.startswith("variant = "):
                out.append((" ".join(part.split())[10:70], names["variant"]))
    return out


def test_the_cookbook_has_a_recipe_for_each_axis():
    assert [int(number) for number in AXES] == list(range(1, 12))
    told = {name for _, variant in recipes() for name in changed(variant)}
    assert told == set(Hierarchy.__dataclass_fields__) - {"micro_advantage"}


def changed(variant: Hierarchy) -> list[str]:
    return [n for n in Hierarchy.__dataclass_fields__ if getattr(variant, n) != getattr(Hierarchy(), n)]


@pytest.mark.parametrize(("text", "variant"), recipes(), ids=lambda v: v if isinstance(v, str) else "")
def test_every_recipe_trains(tiny_model, toy_levels, text, variant):
    policy = load_policy(str(tiny_model), LoraSettings(4, 8, each_role=variant.sharing == "each"), device="cpu")
    step = one_iteration(policy, toy_levels, variant, seed=6)
    assert step.env_steps > 0
    assert all(math.isfinite(v) for v in step.metrics.values())


def test_notebook_09_builds_three_variants_in_twenty_lines_each():
    assert list(CELLS) == ["never_stuck", "sceptical", "parting"]
    for name, cell in CELLS.items():
        lines = [line for line in cell.splitlines() if line.strip()]
        assert len(lines) <= 20, name
        assert f"{name} = Hierarchy(" in cell


@pytest.mark.parametrize("name", CELLS)
def test_each_variant_of_notebook_09_stands_alone_outside_the_package(policy, toy_levels, tmp_path, monkeypatch, name):
    """A file of one's own, imported from somewhere else: the library's files are not touched and not needed."""
    (tmp_path / "mine_out_here.py").write_text(CELLS[name], "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "mine_out_here", raising=False)
    module = __import__("mine_out_here")
    variant = getattr(module, name)
    assert changed(variant)
    step = one_iteration(policy, toy_levels, variant, seed=6)
    assert step.env_steps > 0
    assert all(math.isfinite(v) for v in step.metrics.values())
    if name == "parting":  # what is common to all executions is left out of the credit
        for group, row in zip(step.micro, step.micro_adv_pn, strict=True):
            shares = module.where_they_part(group, row, 0.0)
            assert [len(s) for s in shares] == [len(t.segments) for t in group.trajectories]
