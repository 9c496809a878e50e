"""docs/metrics.md defines exactly the names that a run logs."""

from __future__ import annotations

import json
import re
from pathlib import Path

from conftest import needs_training

from himac_lite import cli

DOCUMENT = Path(__file__).parents[1] / "docs" / "metrics.md"


@needs_training
def test_every_logged_name_is_defined_and_every_defined_name_is_logged(tmp_path: Path) -> None:
    defined = set(re.findall(r"^\| `([^`]+)`", DOCUMENT.read_text("utf-8"), re.M))
    settings = ["rollout.levels=8", "rollout.group=4", "test_limit=2", "validate_on=2", "validate_every=1"]
    settings.append("rollout.progress_share=0.1")
    logged: set[str] = set()
    for variant in ("himac", "three_levels"):  # the latter has a group of its own in between
        argv = ["train", "--variant", variant, "--iterations", "2", "--out", str(tmp_path / variant)]
        assert cli.main([*argv, *(a for s in settings for a in ("--set", s))]) == 0
        for line in (tmp_path / variant / "metrics.jsonl").read_text("utf-8").splitlines():
            logged |= set(json.loads(line))
    assert logged == defined
