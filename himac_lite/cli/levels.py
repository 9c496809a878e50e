"""`himac-lite levels read | generate | solve | split`: the arguments; `sokoban.commands` does the work."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "read, generate, solve and split level files"


def arguments(p: argparse.ArgumentParser) -> None:
    verbs = p.add_subparsers(required=True, metavar="verb")
    read = verbs.add_parser("read", help="check a level file and say what it holds")
    read.add_argument("path", help="level file or split")
    read.add_argument("--skip-bad", action="store_true", help="leave out levels that cannot be read, and say why")
    generate = verbs.add_parser("generate", help="write new random levels to a file")
    generate.add_argument("out", type=Path)
    for name, default in (("n", 16), ("seed", 0), ("size", 7), ("boxes", 2), ("min-length", 6), ("max-length", 25)):
        generate.add_argument(f"--{name}", type=int, default=default, help=f"default: {default}")
    generate.add_argument("--max-density", type=float, default=0.25, help="largest share of inner walls; default: 0.25")
    solve = verbs.add_parser("solve", help="solve every level of a file")
    solve.add_argument("path", help="level file or split")
    solve.add_argument("--optimal", choices=("moves", "pushes"), default="moves")
    solve.add_argument("--seconds", type=float, help="time that a level may take; default: as long as memory lasts")
    split = verbs.add_parser("split", help="counts and hashes of a frozen split")
    split.add_argument("name", help="warmup, core or hard; or a part such as core/test")
    split.add_argument("--write", type=Path, metavar="FOLDER", help="make all splits again in this folder")
    for verb, parser in (("read", read), ("generate", generate), ("solve", solve), ("split", split)):
        parser.add_argument("--json", action="store_true", help="print one JSON object")
        parser.set_defaults(run=run, verb=verb, prints=True)


def run(given: argparse.Namespace) -> None:
    from himac_lite.cli import sokoban as commands

    chosen = {k: v for k, v in vars(given).items() if k not in ("run", "verb", "prints")}
    getattr(commands, given.verb)(**chosen)
