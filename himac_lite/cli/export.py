"""`himac-lite export`: a run's merged weights with a model card, or its rollouts as conversations."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from himac_lite import storage
from himac_lite.cli.console import note, say
from himac_lite.cli.options import refuse
from himac_lite.errors import RunError

HELP = "write a run's merged weights and model card, or its rollouts as conversations"


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("what", metavar="RUN", help="run folder")
    p.add_argument("--out", type=Path, required=True, help="new folder for the model, or a .jsonl file with --rollouts")
    p.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), help="of the weights (default: bfloat16)")
    p.add_argument("--rollouts", action="store_true", help="write the recorded rollouts instead, for TRL and others")
    p.add_argument("--format", choices=("messages", "prompt-completion"), help="of the rollouts (default: messages)")
    p.add_argument("--solved", action="store_true", help="only rollouts that solved their level")
    p.add_argument("--json", action="store_true", help="print one JSON object")
    p.set_defaults(run=run)


def run(given: argparse.Namespace) -> dict[str, Any]:
    if given.rollouts:
        refuse(given, "--rollouts", "it goes with the export of weights", "dtype")
    else:
        refuse(given, "the export of weights", "add --rollouts, or leave it out", "format", "solved")
    from himac_lite.runs import export, training
    from himac_lite.runs import folder as runs

    dtype, opened = given.dtype or "bfloat16", runs.load_run(given.what)
    if given.rollouts:
        task = training.make_task(replace(opened.config, task="sokoban"))  # `conversations` refuses other runs
        rows = export.conversations(opened, task, given.format or "messages", given.solved)
        found = {"conversations": export.write_conversations(rows, given.out), "out": str(given.out)}
        if not given.json:
            say(f"{found['conversations']} conversations in {given.out}")
        return found
    checkpoint = opened.latest_checkpoint()
    if checkpoint is None:
        raise RunError(f"{opened.folder} has no intact checkpoint; train it further with --resume {opened.folder}")
    if given.out.exists():
        raise RunError(f"{given.out} exists; choose another --out")
    storage.refuse_unwritable(given.out)
    card = export.model_card(opened, checkpoint.iteration, dtype)
    export.export_model(training.load_trained(opened, say=note), given.out, card, dtype)
    if not given.json:
        say(f"{given.out}: merged weights in {dtype}, tokenizer, README.md")
    return {"out": str(given.out), "iteration": checkpoint.iteration, "dtype": dtype}
