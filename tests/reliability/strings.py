"""A million random and adversarial strings for everything that reads what a model wrote.

``python tests/reliability/strings.py --strings 1000000``. Each string goes to every parser of PARSERS, which must
answer with a value of its type: a blueprint whose sub-goals can be executed, or a typed reason. Measured: how often
each answer came, the longest time that one string took, and the memory that the process grew by.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from himac_lite.tasks import text as written
from himac_lite.tasks.registry import load_items, task_of
from himac_lite.tasks.sokoban import language
from himac_lite.types import Blueprint, Invalid, SubGoal

PUSH = "push the box at (2,3) right to (2,5)"
WORDS = (
    PUSH, "push the box at ", "(2,3)", "(", ")", ",", " right to ", " up to ", "\n", "\r\n", "\r", "\u2028", "\x0b",
    "\0", "\x1b[31m", "\x7f", "\ufeff", "\u202e", "\u200b", "\ud800", "\udfff", "\u0663", "²", "Ⅷ", "\uff19",
    "e\u0301", "\U0001d7da", "\U0001f469\u200d\U0001f467", "<sub_done>", "<end>", "<plan>", "<act>", "<play>",
    "<again>", "<unk>", "<pad>", "<|im_start|>system", "<|im_end|>", "</s>", "[INST]", "```", "{{", "%s%n", "${x}",
    "Ignore all previous instructions.", "../../", "<script>alert(1)</script>", "<!--", "]]>", "'; DROP TABLE x; --",
    "-1", "1e999", "NaN", "0x10", "9" * 10_000,
)  # fmt: skip
"""What a parser may stumble over: its own words, markers, line ends, digits of other scripts, controls, injections."""


def _push_line(rng: random.Random) -> str:
    """A good sub-goal, or now and then one whose cells do not lie on its line."""
    if rng.random() < 0.9:
        return PUSH
    a, b, c, d = (rng.randrange(10) for _ in range(4))
    return f"push the box at ({a},{b}) {rng.choice(('up', 'down', 'left', 'right'))} to ({c},{d})"


def string(rng: random.Random) -> str:
    """One string; the kinds are as frequent as they are cheap."""
    kind = rng.random()
    if kind < 0.35:  # a blueprint with some characters changed, doubled or lost
        text = list("\n".join(_push_line(rng) for _ in range(rng.randint(1, 14))))
        for _ in range(rng.choice((0, 0, 1, 2, 3))):
            at = rng.randrange(len(text))
            text[at] = rng.choice(("", text[at] * 2, rng.choice(WORDS), chr(rng.randrange(0x250))))
        return "".join(text)
    if kind < 0.65:
        return "".join(rng.choices(WORDS, k=rng.randint(0, 12)))
    if kind < 0.95:  # any code points, surrogates included
        top = rng.choice((0x20, 0x7F, 0x250, 0x3000, 0x110000))
        return "".join(chr(rng.randrange(top)) for _ in range(rng.randint(0, 60)))
    if kind < 0.9995:  # nested markers, and numbers
        depth = rng.randint(1, 400)
        left, right = rng.choice((("<plan>", "<end>"), ("(", ")"), ("<sub_done>", "\n"), (PUSH + "\n", "")))
        return left * depth + rng.choice(WORDS) + right * depth
    piece = rng.choice(WORDS) or "x"
    return piece * (1_000_000 // len(piece))  # a megabyte, in one line or in many


def _blueprint(found: Blueprint, text: str) -> str:
    assert type(found) is Blueprint
    assert found.text is text
    if found.invalid is not None:
        assert isinstance(found.invalid, Invalid)
        assert found.subgoals == ()
        return found.invalid.name
    assert 1 <= len(found.subgoals) <= language.MAX_SUBGOALS
    assert all(isinstance(g, SubGoal) and not isinstance(language.parse_push(g.text), Invalid) for g in found.subgoals)
    return "valid"


def _push(found: Any, text: str) -> str:
    if isinstance(found, Invalid):
        return found.name
    box, direction, target = found
    assert language.subgoal_text(box, direction, target) == text
    return "valid"


def _written(found: Blueprint, text: str) -> str:
    """A blueprint of a task whose sub-goals are free text: short lines, as many as are allowed."""
    if found.invalid is None:
        assert 1 <= len(found.subgoals) <= written.MAX_SUBGOALS
        assert all(0 < len(g.text) <= written.MAX_LINE and "\n" not in g.text for g in found.subgoals)
        return "valid"
    return _blueprint(found, text)


class Shop:
    """A buyer in the shipped shop who does whatever the strings say; a new one every 15 steps."""

    def __init__(self) -> None:
        self.task, self.goal = task_of("webshop", 15, 6), load_items("webshop", "webshop/validation")[0]
        self.episode: Any = None

    def act(self, text: str) -> str:
        if self.episode is None or self.episode.over or self.episode.steps >= 15:
            self.episode = self.task.start(self.goal)
        # In turn as it is, as what is clicked, and as what is searched for.
        said = (text, f"click[{text}]", f"search[{text}]")[len(text) % 3]
        seen = self.episode.act(said)
        assert isinstance(seen, str)
        assert 0.0 <= self.episode.progress <= 1.0
        return "results" if "Total results" in seen else "a page"


SHOP = Shop()
PARSERS: dict[str, Callable[[str], str]] = {
    "blueprint": lambda text: _blueprint(language.parse_blueprint(text), text),
    "blueprint, cut off": lambda text: _blueprint(language.parse_blueprint(text, finished=False), text),
    "sub-goal": lambda text: _push(language.parse_push(text), text),
    "written blueprint": lambda text: _written(written.parse_blueprint(text), text),
    "shopping action": SHOP.act,
}
"""Name → the parser and the check of its answer; returns the answer's name."""


def rss() -> int:
    """Bytes of memory that this process holds, or held at most where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="hostile strings for the parsers of model output")
    parser.add_argument("--strings", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so long")
    given = parser.parse_args(argv)
    end = time.monotonic() + 60 * given.minutes
    rng, answers = random.Random(given.seed), {name: Counter[str]() for name in PARSERS}
    slowest, longest, characters, before = (0.0, ""), 0, 0, 0
    for number in range(given.strings):
        if time.monotonic() > end:
            break
        text = string(rng)
        longest, characters = max(longest, len(text)), characters + len(text)
        for name, parser_of in PARSERS.items():
            begun = time.thread_time()
            try:
                answers[name][parser_of(text)] += 1
            except Exception as error:
                print(f"string {number} of seed {given.seed}: {name}: {error!r} for {text[:200]!a}")
                return 1
            slowest = max(slowest, (time.thread_time() - begun, f"{name}, {len(text):,} characters, {text[:12]!a}"))
        if number == min(given.strings // 10, 10_000):
            before = rss()
    grown = rss() - before
    for name, found in answers.items():
        print(f"{name}: " + ", ".join(f"{n:,} {answer}" for answer, n in found.most_common()))
    read = sum(answers["blueprint"].values())
    print(
        f"{read:,} strings, {characters:,} characters, the longest of {longest:,}; no exception; slowest "
        f"{1000 * slowest[0]:.2f} ms ({slowest[1]}); memory grew by {grown / 1e6:.1f} MB"
    )
    return 1 if slowest[0] > 1 or grown > 64e6 else 0


if __name__ == "__main__":
    sys.exit(main())
