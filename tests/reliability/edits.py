"""Calls that are one edit away from valid: no command and no public function answers with a traceback.

``python tests/reliability/edits.py --examples 10000``. Each example is a valid command line, Python call or file that
Hypothesis edits, mostly once. A command ends with exit code 0, 1, 2 or 130, and refuses in one line. A Python call
returns, or raises a `HimacError` of one line. Work of more than `PATIENCE` seconds is interrupted as by Ctrl-C.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import toy
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from himac_lite import cli
from himac_lite.errors import HimacError

PATIENCE = 5.0

COMMANDS = (
    "levels read toy.xsb", "levels read toy.xsb --skip-bad --json", "levels read core/validation",
    "doctor --json", "bench env --quick --runs 1 --json", "levels solve toy.xsb",
    "levels solve toy.xsb --optimal pushes --seconds 1 --json", "levels split warmup",
    "levels generate new.xsb --n 1 --seed 3 --size 6 --boxes 1 --min-length 4 --max-length 12 --max-density 0.2",
    "play toy.xsb --level 2 --json", "reproduce ablations --list", "reproduce efficiency --list --out rows --json",
    "reproduce ablations --variants himac,my.py:mine --seeds 1 --out none --list",
    "evaluate run --limit 1", "evaluate run --levels toy.xsb --checkpoint best --json",
    "evaluate tiny --levels toy.xsb",
    "evaluate tiny --levels toy.xsb --variant flat_grpo --limit 2",
    "evaluate tiny --levels toy.xsb --variant my.py:mine --limit 1",
    "export run --out new.jsonl --rollouts --format prompt-completion --solved", "export run --out new --dtype float32",
    "memory --model tiny --levels toy.xsb --json", "memory --set rollout.group=4 --iterations 3",
    "train {small} --iterations 1 --out new", "train {small} --variant my.py:mine --env-steps 5 --out new",
    "train {small} --variant flat_grpo --minutes 0.01 --seed 4 --out new --json", "train --resume run --iterations 2",
    "sft --model tiny --levels toy.xsb --steps 1 --validate 0 --out new --set batch=3 --seed 1",
    "pretrain --out new --set width=64 --set layers=1 --set heads=2 --set expert_steps=1 --seed 2",
)  # fmt: skip
SMALL = (
    "--model tiny --levels toy.xsb --set validation_levels=toy.xsb --set test_levels=toy.xsb --set rollout.levels=2 "
    "--set rollout.group=2 --set rollout.max_steps=3 --set model.rank=2 --set probe_levels=0"
)
VALUES = (
    "", " ", "-", "--", "-1", "0", "1", "2.5", "nan", "inf", "-inf", "1e400", "1_0", "٣", "10**3", "None", "null",
    "true", "[]", "{}", "toy.xsb", "empty.xsb", "utf16.xsb", "binary.xsb", "run", "tiny", "rows", "run/manifest.json",
    "new", "no/such/file.xsb", "..", "/", "/dev/null", "a" * 300, "core/test", "core", "core/", "Core/Test", "himac",
    "HiMAC", "my.py", "my.py:", ":mine", "my.py:none", "broken.py:mine", "webshop", "alfworld", "sokoban", "é☃.xsb",
    "x\ny", "a=b", "--json", "--help", "--seed", "update.lr=0", "rollout.group=1", "rollout.max_steps=0",
    "model.path=none", "seed=-1",
)  # fmt: skip
JSON_VALUES = (None, True, -1, 0, 2.5, 10**30, "", "x", "/etc", [], {}, [1], {"a": 1})


def make_workspace(folder: Path) -> None:
    """Small files of every kind that a command or a call reads."""
    from himac_lite.runs.training import train

    model, levels = toy.make(folder)
    with contextlib.chdir(folder) if sys.version_info >= (3, 11) else _chdir(folder):
        train(toy.config(Path(model.name), Path(levels.name)), "run")
    text = levels.read_text("utf-8")
    (folder / "empty.xsb").write_text("", "utf-8")
    (folder / "utf16.xsb").write_text(text, "utf-16")
    (folder / "binary.xsb").write_bytes(bytes(range(256)) * 4)
    own = "from himac_lite.hierarchy import Hierarchy, Fallback\nmine = Hierarchy(at_test=Fallback('replan'))\n"
    (folder / "my.py").write_text(own, "utf-8")
    (folder / "broken.py").write_text("import no_such_module\n", "utf-8")
    shutil.copytree(Path(cli.__file__).parents[2] / "data" / "runs" / "reproduce", folder / "rows")


@contextlib.contextmanager
def _chdir(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


# Edits


def edited_text(draw: Any, text: str) -> str:
    """One character less, more or other, or two that change places."""
    if not text:
        return draw(st.sampled_from(VALUES))
    at = draw(st.integers(0, len(text) - 1))
    new = draw(st.sampled_from("0-9.:/=,x# \té☃"))
    return draw(
        st.sampled_from(
            (text[:at] + text[at + 1 :], text[:at] + new + text[at:], text[:at] + new + text[at + 1 :], text[at:])
        )
    )


def edited_words(draw: Any, words: list[str]) -> list[str]:
    """One word is dropped, doubled, replaced, edited, moved, or a foreign one is added."""
    at = draw(st.integers(0, len(words) - 1))
    kind = draw(st.sampled_from(("value", "value", "text", "text", "drop", "double", "add", "swap")))
    value = draw(st.sampled_from(VALUES))
    if kind == "value":
        return [*words[:at], value, *words[at + 1 :]]
    if kind == "text":
        return [*words[:at], edited_text(draw, words[at]), *words[at + 1 :]]
    if kind == "drop":
        return [*words[:at], *words[at + 1 :]]
    if kind == "double":
        return [*words[: at + 1], words[at], *words[at + 1 :]]
    if kind == "add":
        return [*words[:at], value, *words[at:]]
    other = draw(st.integers(0, len(words) - 1))
    out = list(words)
    out[at], out[other] = out[other], out[at]
    return out


def edited_bytes(draw: Any, data: bytes) -> bytes:
    """A file cut off, one byte other, more or less, another encoding, or one JSON value replaced."""
    kind = draw(st.sampled_from(("json", "json", "byte", "insert", "cut", "empty", "utf-16", "latin-1", "bom", "crlf")))
    at = draw(st.integers(0, max(0, len(data) - 1)))
    byte = bytes([draw(st.integers(0, 255))])
    with contextlib.suppress(UnicodeError, ValueError, IndexError):
        text = data.decode()
        if kind == "json":
            lines = text.splitlines()
            whole = len(lines) > 1 and lines[0].strip() in "{["
            number = 0 if whole else draw(st.integers(0, len(lines) - 1))
            found = json.loads(text if whole else lines[number])
            changed = json.dumps(edited_value(draw, found))
            return (changed if whole else "\n".join([*lines[:number], changed, *lines[number + 1 :]])).encode() + b"\n"
        if kind in ("utf-16", "latin-1"):
            return text.encode(kind)
        if kind in ("bom", "crlf"):
            return text.encode("utf-8-sig") if kind == "bom" else text.replace("\n", "\r\n").encode()
    if kind == "cut":
        return data[:at]
    if kind == "empty":
        return b""
    return data[:at] + byte + data[at + (kind != "insert") :]


def edited_value(draw: Any, value: Any) -> Any:
    """A JSON value with one part replaced or missing."""
    if isinstance(value, dict) and value and draw(st.booleans()):
        key = draw(st.sampled_from(sorted(value)))
        if draw(st.integers(0, 4)) == 0:
            return {k: v for k, v in value.items() if k != key}
        return value | {key: edited_value(draw, value[key])}
    if isinstance(value, list) and value and draw(st.booleans()):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], edited_value(draw, value[at]), *value[at + 1 :]]
    return draw(st.sampled_from(JSON_VALUES))


# Examples


@dataclass
class Example:
    """What was tried, in words, and the call."""

    what: str
    call: Callable[[], object]
    command: bool


@st.composite
def examples(draw: Any) -> Example:
    """A command, a Python call, or a command after one of its files was edited; one in ten has no edit."""
    kind = draw(st.sampled_from(("command", "command", "file", "call")))
    edits = draw(st.sampled_from((0, 1, 1, 1, 1, 1, 1, 1, 2, 3)))
    if kind == "call":
        return _python_call(draw, edits)
    words = draw(st.sampled_from(COMMANDS)).format(small=SMALL).split()
    if kind == "file":
        file = draw(st.sampled_from(FILES))
        words = draw(st.sampled_from([w for w in COMMANDS if _reads(w, file)])).format(small=SMALL).split()
        data = edited_bytes(draw, Path(file).read_bytes())
        return Example(f"{words} with {file} = {data[:200]!r}", lambda: _with_file(file, data, words), True)
    for _ in range(edits):
        words = edited_words(draw, words) if words else words
    return Example(f"{words}", lambda: cli.main(words), True)


FILES = (
    "toy.xsb", "my.py", "rows/rows.jsonl", "rows/settings.json", "run/manifest.json", "run/metrics.jsonl",
    "run/results.json", "run/rollouts/000004.jsonl", "run/checkpoints/000004/state.json",
    "run/checkpoints/000004/adapter_config.json", "run/checkpoints/000004/adapter_model.safetensors",
    "run/checkpoints/000004/optimizer.safetensors", "tiny/config.json", "tiny/tokenizer.json",
    "tiny/tokenizer_config.json", "tiny/model.safetensors",
)  # fmt: skip


def _reads(command: str, file: str) -> bool:
    first = file.split("/")[0]
    return first in command.format(small=SMALL).split() or (first == "rows" and "--list" in command) or first in command


def _with_file(file: str, data: bytes, words: list[str]) -> int:
    path = Path(file)
    before = path.read_bytes()
    path.write_bytes(data)
    try:
        return cli.main(words)
    finally:
        if path.parent.exists():
            path.write_bytes(before)


def _python_calls() -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    """Public functions with valid arguments."""
    import gymnasium

    import himac_lite
    from himac_lite import advantage, widgets
    from himac_lite.config import Train, override
    from himac_lite.hierarchy import Fallback, Hierarchy, by_difference

    level = himac_lite.load_levels("toy.xsb")[0]
    small = toy.config(Path("tiny"), Path("toy.xsb"))
    returns = [[1.0, 0.0, 0.0, 1.0]]
    return {
        "load_levels": (himac_lite.load_levels, {"path": "toy.xsb"}),
        "save_levels": (himac_lite.save_levels, {"levels": [level], "path": "new.xsb"}),
        "solve": (himac_lite.solve, {"level": level}),
        "load_run": (himac_lite.load_run, {"path": "run"}),
        "train": (himac_lite.train, {"config": small, "out": "new", "hierarchy": "my.py:mine"}),
        "override": (override, {"config": Train(), "path": "update.lr", "value": "1e-3"}),
        "group_advantage": (advantage.group_advantage, {"return_pn": returns, "eps": 1e-6, "baseline": "mean"}),
        "make": (gymnasium.make, {"id": "himac_lite/Sokoban-v0", "levels": "toy.xsb", "max_steps": 10}),
        "make_vec": (
            gymnasium.make_vec,
            {"id": "himac_lite/Sokoban-v0", "num_envs": 2, "levels": "toy.xsb", "max_episode_steps": 5},
        ),
        "Hierarchy": (Hierarchy, {"used_up": "keep", "exhausted": "abort", "midway": 0.25, "optimizer": "per_phase"}),
        "Fallback": (Fallback, {"used_up": "replan", "exhausted": "abort", "reached": None}),
        "by_difference": (by_difference, {"least": 0.25}),
        "AdvantageExplorer": (widgets.AdvantageExplorer, {"source": "run"}),
        "RolloutPlayer": (widgets.RolloutPlayer, {"record": himac_lite.load_run("run").rollouts(4)[0]}),
        "TrainingDashboard": (widgets.TrainingDashboard, {"source": "run"}),
        "CoEvolutionStrip": (widgets.CoEvolutionStrip, {"run": "run"}),
    }


PYTHON_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 3, 2.5, float("nan"), float("inf"), "", "run", "tiny", "toy.xsb", "no/such", "core/test", b"run",
    Path("run"), Path("no/such"), [], {}, ["warmup/test"], [1], [[1.0]], [[float("nan"), 1.0]], [[]], object(), int,
)  # fmt: skip


def _python_call(draw: Any, edits: int) -> Example:
    name = draw(st.sampled_from(sorted(_python_calls())))
    function, keywords = _python_calls()[name]
    for _ in range(edits):
        key = draw(st.sampled_from(sorted(keywords)))
        value = keywords[key]
        if isinstance(value, str) and draw(st.booleans()):
            keywords[key] = edited_text(draw, value)
        elif not (name.startswith("make") and key == "id"):
            keywords[key] = draw(st.sampled_from(PYTHON_VALUES))
    shown = {k: repr(v)[:80] for k, v in keywords.items()}
    return Example(f"{name}(**{shown})", lambda: function(**keywords), False)


# The property


class _Interrupt:
    """Ctrl-C after `PATIENCE` seconds, once a second until the call ends."""

    def __enter__(self) -> None:
        def ring(*_: object) -> None:
            raise KeyboardInterrupt

        signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)


class Fault(Exception):
    """A call that ended in another way than the promise allows."""


def outcome(example: Example) -> str:
    """``done``, ``refused`` or ``interrupted``. Raises `Fault` with the example for anything else."""
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _Interrupt():
            found = example.call()
            code = found if example.command else 0
    except SystemExit as error:  # argparse: a bad option, or --help
        code = error.code
    except KeyboardInterrupt:
        return "interrupted"
    except HimacError as error:
        if example.command or not str(error).strip() or "\n" in str(error):
            raise Fault(f"{example.what}: {error!r}") from error
        return "refused"
    except Exception as error:
        own = type(error).__module__.startswith("gymnasium") or "Environment registration via importing" in str(error)
        if not example.command and own:
            return "refused"  # Gymnasium's answer, as for any environment
        raise Fault(f"{example.what}: {type(error).__name__}: {error}") from error
    traced = "Traceback" in err.getvalue() and "KeyboardInterrupt" not in err.getvalue()  # the alarm, in a callback
    if code not in (0, 1, 2, 130) or traced or (code == 2 and not err.getvalue().strip()):
        raise Fault(f"{example.what}: exit code {code!r}: {err.getvalue()[-300:]}")
    return {0: "done", 130: "interrupted"}.get(int(str(code)), "refused")


def unedited() -> Iterator[Example]:
    """Every command and call as it is: each is valid."""
    for command in COMMANDS:
        words = command.format(small=SMALL).split()
        yield Example(command, lambda words=words: cli.main(words), True)
    for name, (function, keywords) in _python_calls().items():
        yield Example(name, lambda f=function, k=keywords: f(**k), False)


def run(count: int, folder: Path) -> tuple[collections.Counter[str], list[Fault]]:
    """How `count` examples ended, and the faults, in a folder that `make_workspace` made. Each leaves it as it was."""
    counts: collections.Counter[str] = collections.Counter()
    faults: list[Fault] = []
    kept = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    @settings(
        max_examples=count, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(examples())
    def check(example: Example) -> None:
        try:
            counts[outcome(example)] += 1
        except Fault as fault:
            faults.append(fault)
        _restore(folder, kept)

    with _chdir(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sys.stdin = io.StringIO("")
        try:
            for example in unedited():
                if (ended := outcome(example)) == "refused":
                    faults.append(Fault(f"{example.what}, without an edit: {ended}"))
                _restore(folder, kept)
            check()
        finally:
            sys.stdin = sys.__stdin__
    return counts, faults


def _restore(folder: Path, kept: dict[Path, bytes]) -> None:
    for path in folder.iterdir():
        if path.name.startswith("new"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in [p for p in folder.rglob("*") if p.is_file() and p not in kept]:
        path.unlink()
    for path, data in kept.items():
        if not path.is_file() or path.read_bytes() != data:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def main() -> None:
    parser = argparse.ArgumentParser(description="edited commands, calls and files")
    parser.add_argument("--examples", type=int, default=200)
    wanted = parser.parse_args().examples
    with tempfile.TemporaryDirectory() as folder:
        make_workspace(Path(folder))
        counts, faults = run(wanted, Path(folder))
    print(dict(counts), f"{len(faults)} faults")
    print("\n".join(dict.fromkeys(map(str, faults))))
    raise SystemExit(bool(faults))


if __name__ == "__main__":
    main()
