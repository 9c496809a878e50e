"""`himac-lite export`: a run's merged weights with a model card, or its rollouts as conversations."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from himac_lite import storage
from himac_lite.errors import RunError

HELP = "write a run's merged weights and model card, or its rollouts as conversations"


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("what", metavar="RUN", help="run folder")
    p.add_argument("--out", type=Path, required=True, help="new folder for the model, or a .jsonl file with --rollouts")
    p.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16", help="of the weights")
    p.add_argument("--rollouts", action="store_true", help="write the recorded rollouts instead, for TRL and others")
    p.add_argument("--format", choices=("messages", "prompt-completion"), default="messages", help="of the rollouts")
    p.add_argument("--solved", action="store_true", help="only rollouts that solved their level")
    p.add_argument("--json", action="store_true", help="print one JSON object")
    p.set_defaults(run=run)


def _say(text: str) -> None:
    print(f"himac-lite: {text}", file=sys.stderr)


def run(given: argparse.Namespace) -> dict[str, Any]:
    from himac_lite.runs import export, training
    from himac_lite.runs import folder as runs

    opened = runs.load_run(given.what)
    if given.rollouts:
        task = training.make_task(replace(opened.config, task="sokoban"))  # `conversations` refuses other runs
        rows = export.conversations(opened, task, given.format, given.solved)
        found = {"conversations": export.write_conversations(rows, given.out), "out": str(given.out)}
        if not given.json:
            print(f"{found['conversations']} conversations in {given.out}")
        return found
    checkpoint = opened.latest_checkpoint()
    if checkpoint is None:
        raise RunError(f"{opened.folder} has no intact checkpoint; train it further with --resume {opened.folder}")
    if given.out.exists():
        raise RunError(f"{given.out} exists; choose another --out")
    storage.refuse_unwritable(given.out)
    card = export.model_card(opened, checkpoint.iteration, given.dtype)
    export.export_model(training.load_trained(opened, say=_say), given.out, card, given.dtype)
    if not given.json:
        print(f"{given.out}: merged weights in {given.dtype}, tokenizer, README.md")
    return {"out": str(given.out), "iteration": checkpoint.iteration, "dtype": given.dtype}
