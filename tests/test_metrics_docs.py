"""docs/metrics.md defines exactly the names that a run logs."""

from __future__ import annotations

import json
import re
from pathlib import Path

from conftest import TOY_STEPS, needs_training

from himac_lite import cli

DOCUMENT = Path(__file__).parents[1] / "docs" / "metrics.md"


@needs_training
def test_every_logged_name_is_defined_and_every_defined_name_is_logged(
    tiny_model: Path, toy_file: str, tmp_path: Path
) -> None:
    defined = set(re.findall(r"^\| `([^`]+)`", DOCUMENT.read_text("utf-8"), re.M))
    settings = ["rollout.levels=4", "rollout.group=8", "rollout.min_length=0", f"rollout.max_steps={TOY_STEPS}"]
    settings += ["rollout.progress_share=0.1", f"rollout.subgoal_budget={TOY_STEPS}", "validate_every=1"]
    settings += [f"model.path={tiny_model}", "model.rank=4", "model.alpha=8"]
    settings += [f"{part}_levels={toy_file}" for part in ("train", "validation", "test")]
    logged: set[str] = set()
    own = tmp_path / "own.py"
    own.write_text("from himac_lite.hierarchy import Hierarchy\n\nbegun = Hierarchy(midway=1.0)\n", "utf-8")
    # The last two have groups of their own.
    for variant, out in (("himac", "himac"), ("three_levels", "three"), (f"{own}:begun", "begun")):
        argv = ["train", "--variant", variant, "--iterations", "2", "--out", str(tmp_path / out)]
        assert cli.main([*argv, *(a for s in settings for a in ("--set", s))]) == 0
        for line in (tmp_path / out / "metrics.jsonl").read_text("utf-8").splitlines():
            logged |= set(json.loads(line))
    assert logged == defined
