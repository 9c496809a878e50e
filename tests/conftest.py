"""Shared fixtures: a real small checkpoint made on the spot, levels it can play, and a scripted policy."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from himac_lite.errors import HimacError
from himac_lite.tasks.sokoban.levels import parse_levels
from himac_lite.types import Group, Level, Role, SubGoal, TokenSequence, Trajectory

# Sums over several threads are split as the load of the machine allows, so their last bits differ from call to call.
# Torch's libraries read this when they are first imported; processes that tests start inherit it.
os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

TRAINING = ("torch", "transformers", "tokenizers", "peft", "bitsandbytes", "safetensors")
ABSENT = [name for name in (*TRAINING, "numba", "bm25s", "rapidfuzz", "nbformat") if find_spec(name) is None]
"""Packages of the extras that are not installed: a test that needs one is skipped, wherever the import fails."""

needs_training = pytest.mark.skipif("torch" in ABSENT, reason="needs torch")
"""For a command that turns the failed import into one line."""


def missing(error: BaseException | None) -> str | None:
    """The absent package that caused an error; None for any other cause."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in ABSENT:
            return error.name
        error = error.__cause__ or error.__context__
    return None


def skip_if_missing(report: Any, error: BaseException | None, path: Path) -> None:
    if report.failed and (name := missing(error)):
        report.outcome, report.longrepr = "skipped", (str(path), 0, f"Skipped: needs {name}")


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    report = yield
    call = getattr(report, "call", None)
    skip_if_missing(report, call and call.excinfo and call.excinfo.value, collector.path)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    report = yield
    skip_if_missing(report, call.excinfo and call.excinfo.value, item.path)
    return report


TOY_TEXT = """
; right
; moves 1, pushes 1
#####
#@$.#
#####

; down
; moves 1, pushes 1
###
#@#
#$#
#.#
###

; left and right
; moves 3, pushes 2
#######
#.$@$.#
#######

; up and down
; moves 3, pushes 2
###
#.#
#$#
#@#
#$#
#.#
###
"""
TOY_STEPS = 3
"""The step limit that the toy levels are played with: the two long ones forgive no slip."""

# Good plans of the toy levels: (sub-goal, the moves that do it) in order.
_PLANS = (
    (("push the box at (1,2) right to (1,3)", "r"),),
    (("push the box at (2,1) down to (3,1)", "d"),),
    (("push the box at (1,2) left to (1,1)", "l"), ("push the box at (1,4) right to (1,5)", "rr")),
    (("push the box at (2,1) up to (1,1)", "u"), ("push the box at (4,1) down to (5,1)", "dd")),
)
# Valid, useless, and answered with <sub_done> at once.
_USELESS = (
    "push the box at (1,2) up to (0,2)",
    "push the box at (2,1) left to (2,0)",
    "push the box at (1,4) up to (0,4)",
    "push the box at (4,1) left to (4,0)",
)


@pytest.fixture(scope="session")
def toy_levels() -> list[Level]:
    """Two levels of one push and two of two, optimal lengths 1, 1, 3, 3."""
    return parse_levels(TOY_TEXT)


@pytest.fixture(scope="session")
def toy_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("levels") / "toy.xsb"
    file.write_text(TOY_TEXT, "utf-8")
    return str(file)


def _lesson(
    tokenizer: Any, level: Level, role: Role, moves: str, goal: str = "", before: str = "", end: str = ""
) -> Any:
    """(ids, learn) of one demonstration: `moves` after `before`, and then the tokens of `end`."""
    from himac_lite.tasks.sokoban.rules import MOVES
    from himac_lite.tasks.sokoban.task import SokobanTask

    task = SokobanTask()
    episode = task.start(level)
    for move in before:
        episode.act(MOVES.index(move))
    ids = list(tokenizer(episode.prompt(role, SubGoal(goal) if goal else None)).input_ids)
    learn = [False] * len(ids)
    for move in moves:
        action = tokenizer(task.actions[MOVES.index(move)]).input_ids
        seen = tokenizer(episode.act(MOVES.index(move))).input_ids
        ids += [*action, *seen]
        learn += [True] * len(action) + [False] * len(seen)
    last = tokenizer(end).input_ids if end else []
    return ids + last, learn + [True] * len(last)


def _lessons(tokenizer: Any, levels: Sequence[Level]) -> list[Any]:
    """What a mediocre player of the toy levels does: two good plans for one useless one, and now and then a slip."""
    out = []
    for level, plan, useless in zip(levels, _PLANS, _USELESS, strict=True):
        good = "".join("\n" + goal for goal, _ in plan) + "<end>"
        out += [_lesson(tokenizer, level, Role.PLANNER, "", end=good)] * 2
        out += [_lesson(tokenizer, level, Role.PLANNER, "", end=f"\n{useless}<end>")]
        out += [_lesson(tokenizer, level, Role.EXECUTOR, "", goal=useless, end="<sub_done>")]
        whole = "".join(moves for _, moves in plan)
        slip = "u" if whole[0] in "lr" else "l"  # into a wall
        out += [_lesson(tokenizer, level, Role.FLAT, whole)] * 2 + [_lesson(tokenizer, level, Role.FLAT, slip + whole)]
        before = ""
        for k, (goal, moves) in enumerate(plan):
            end = "<sub_done>" if k < len(plan) - 1 else ""
            out += [_lesson(tokenizer, level, Role.EXECUTOR, moves, goal, before, end)] * 3
            out += [_lesson(tokenizer, level, Role.EXECUTOR, slip + moves, goal, before, end)]
            before += moves
    return out


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, toy_levels: list[Level]) -> Path:
    """A checkpoint folder: a Llama of width 64, taught on the spot to play the toy levels neither well nor badly."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    make_tiny(folder, toy_levels)
    return folder


def make_tiny(folder: Path, toy_levels: list[Level]) -> None:
    """Write `tiny_model` into a folder; also for the commands of tests/reliability."""
    import torch

    from himac_lite.config import Pretrain
    from himac_lite.pretraining.driver import make_model
    from himac_lite.pretraining.tokenizers import build_tokenizer

    model, tokenizer = make_model(Pretrain(width=64, layers=2, heads=2)), build_tokenizer()
    lessons = _lessons(tokenizer, toy_levels)
    width = max(len(ids) for ids, _ in lessons)
    ids = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in lessons])
    learn = torch.tensor([learn + [False] * (width - len(learn)) for _, learn in lessons])[:, 1:]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    steps = 90
    for k in range(steps):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - k / steps)
        logits = model(input_ids=ids).logits[:, :-1]
        torch.nn.functional.cross_entropy(logits[learn], ids[:, 1:][learn]).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture
def new_policy(tiny_model: Path) -> Callable[..., Any]:
    """A function that loads the tiny model anew: NF4, LoRA of rank 4. Keywords of `load_policy` may be given."""
    from himac_lite.policy.loading import LoraSettings, load_policy

    return lambda **keywords: load_policy(str(tiny_model), LoraSettings(4, 8), device="cpu", **keywords)


@pytest.fixture
def policy(new_policy: Callable[..., Any]) -> Any:
    return new_policy()


class ScriptedPolicy:
    """The side of a `Policy` that rollouts use, playing given texts instead of a model's.

    scripts: what to sample for each prompt, in the order in which prompts come; only the model's own tokens, not
    what the environment answers. The k-th sampled token of a row, from 0, gets log-probability −(k + 1) / 10. Every
    prompt is kept in `prompts` (text), and what each call asked for in `calls`. A script that a row does not need to
    its end is cut off; one that ends too early, or samples what is not allowed, fails the test. tokenizer: Sokoban's
    by default.
    """

    def __init__(self, *scripts: str, tokenizer: Any = None) -> None:
        from himac_lite.policy.model import Policy
        from himac_lite.pretraining.tokenizers import build_tokenizer

        self._words = Policy(None, tokenizer or build_tokenizer(), name="scripted")
        self._scripts = list(scripts)
        self.prompts: list[str] = []
        self.calls: list[dict[str, Any]] = []
        self.encode, self.text = self._words.encode, self._words.text
        self.codes = self._words.codes
        self.prompt, self.observed, self.plan_tokens = self._words.prompt, self._words.observed, self._words.plan_tokens
        self.reader = self._words.reader

    @property
    def unused(self) -> int:
        return len(self._scripts)

    def act_as(self, role: Any) -> None:
        """One adapter, if any."""

    def decode(
        self, prompts: Any, react: Any, *, allowed: Any, sampling: Any, max_sampled: int, max_rows: int = 128
    ) -> list[Any]:  # fmt: skip
        from himac_lite.policy.decoding import Stream

        assert len(prompts) <= len(self._scripts), f"no script for prompt {self.text(prompts[-1])!r}"
        self.prompts += [self.text(p) for p in prompts]
        self.calls.append({"rows": len(prompts), "temperature": sampling.temperature, "max_sampled": max_sampled})
        scripts = [self.encode(self._scripts.pop(0), prompt=False) for _ in prompts]
        streams = [Stream() for _ in prompts]
        running = set(range(len(prompts)))
        for k in range(max_sampled):
            for row in sorted(running):
                assert k < len(scripts[row]), f"script of row {row} ended: {self.text(streams[row].ids)!r}"
                token = scripts[row][k]
                assert allowed is None or token in allowed, f"{self.text([token])!r} may not be sampled"
                forced = react(row, token)
                stream = streams[row]
                stream.ids += [token, *(forced or ())]
                stream.sampled += [True, *(False for _ in forced or ())]
                stream.logp += [-(k + 1) / 10, *(0.0 for _ in forced or ())]
                if forced is None:
                    running.discard(row)
        return streams


@pytest.fixture(scope="session")
def text_tokenizer() -> Any:
    """A tokenizer for any text; it knows few words."""
    from himac_lite.pretraining.tokenizers import build_text_tokenizer

    return build_text_tokenizer(["<act> search[mug] click[buy now]\nInstruction: [SEP] go to desk 1\n> take"] * 2, 400)


@pytest.fixture(scope="session")
def scripted(text_tokenizer: Any) -> Callable[..., ScriptedPolicy]:
    """Makes a `ScriptedPolicy` that writes any text."""
    return lambda *scripts: ScriptedPolicy(*scripts, tokenizer=text_tokenizer)


def one_line(error: pytest.ExceptionInfo[Any]) -> str:
    """The message of an error that a person is to read: one line."""
    message = str(error.value)
    assert isinstance(error.value, HimacError)
    assert message
    assert "\n" not in message
    return message


def steps(names: str) -> str:
    """'r r d' → the texts of these actions; other words as they are."""
    words = {"u": "\nup", "d": "\ndown", "l": "\nleft", "r": "\nright", "done": "<sub_done>"}
    return "".join(words.get(name, name) for name in names.split())


@pytest.fixture
def file_limit() -> Callable[[int], Any]:
    """`with file_limit(n):` no file may grow beyond n bytes: the system refuses, as on a full disk."""
    resource = pytest.importorskip("resource")

    @contextlib.contextmanager
    def limited(size: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


@pytest.fixture
def learnt(monkeypatch: pytest.MonkeyPatch) -> list[list[list[Any]]]:
    """What `learn` is given (credited sequences, group by group), call by call; it really learns if the policy can."""
    from himac_lite import coevolution
    from himac_lite.policy.model import Policy

    calls: list[list[list[Any]]] = []
    real = coevolution.learn

    def watched(policy: Any, optimizer: Any, groups: Any, *rest: Any) -> dict[str, float]:
        calls.append([list(group) for group in groups])
        return real(policy, optimizer, groups, *rest) if isinstance(policy, Policy) else {}

    monkeypatch.setattr(coevolution, "learn", watched)
    return calls


def planned(level: Any, plans: Sequence[TokenSequence], trajectories: Sequence[Trajectory]) -> Group:
    """A macro group: each trajectory with the tokens of its blueprint."""
    return Group(level, tuple(replace(t, blueprint_tokens=z) for t, z in zip(trajectories, plans, strict=True)))
