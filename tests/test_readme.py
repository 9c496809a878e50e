"""README.md opens with the two commands that a newcomer pastes; no file names a machine or a registry of ours; figures
are those of the records."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from himac_lite.evaluation import reproduce

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = [block.strip("\n") for block in re.findall(r"^```[^\n]*\n(.*?)^```", README, re.M | re.S)]

HOST = re.compile(
    r"pypi[.]org|pythonhosted[.]org|npmjs[.]|debian[.]org|(?:index-url|find-links)[ =]+(?!https://download)"
)
"""Package indexes are the reader's choice; PyTorch's CPU index is the one exception."""
MACHINE = re.compile(r"(?<![\w.:/-])/(?:work|root|opt|home/\w+|Users/\w+)/\w")


def test_the_first_two_blocks_are_the_two_commands():
    assert len(BLOCKS) >= 2, "README.md needs two fenced blocks: the training and the test command"
    assert "himac-lite train" in BLOCKS[0]
    assert "pytest" not in BLOCKS[0]
    assert re.search(r"python -m pytest\b", BLOCKS[1])


@pytest.mark.parametrize("number", [0, 1])
def test_a_block_is_one_paste_that_stands_alone(number):
    block = BLOCKS[number]
    lines = block.split("\n")
    assert all(line.endswith("\\") for line in lines[:-1]), "one command: join the lines with '&& \\'"
    assert not lines[-1].endswith("\\")
    steps = [step.strip() for step in block.replace("\\\n", " ").split("&&")]
    assert steps[0] == "python3 -m venv .venv"
    assert steps[1] == ". .venv/bin/activate"
    installs = [step for step in steps if step.startswith("pip install")]
    assert len(installs) == 2
    assert "-r requirements.txt" in installs[0]
    assert "--no-deps -e ." in installs[1]
    assert not re.search(r"[$#>]\s", block), "no prompt signs and no comments: it is pasted as it stands"


def test_requirements_are_pinned():
    lines = [line.partition("#")[0].strip() for line in (ROOT / "requirements.txt").read_text("utf-8").splitlines()]
    loose = [
        line for line in lines if line and not re.fullmatch(r"[\w.-]+==[\w.]+(; python_version \S+ \"[\d.]+\")?", line)
    ]
    assert not loose, f"not pinned with ==: {loose}"


def tracked_texts() -> list[tuple[str, str]]:
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    texts = []
    for name in filter(None, done.stdout.split("\0")):
        file = ROOT / name
        if file.is_file() and b"\0" not in (data := file.read_bytes()):
            texts.append((name, data.decode("utf-8", "replace")))
    return texts


@pytest.mark.parametrize(("pattern", "what"), [(HOST, "a package index"), (MACHINE, "a path of one machine")])
def test_no_tracked_file_names(pattern, what):
    found = [
        f"{name}:{text.count(chr(10), 0, hit.start()) + 1}: {hit[0]}"
        for name, text in tracked_texts()
        for hit in pattern.finditer(text)
    ]
    assert not found, f"{what} is named in " + ", ".join(found[:10])


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (HOST, "pip install --extra-index-" + "url=http://10.0.0.1/simple x"),
        (HOST, "see https://pypi" + ".org/project/x"),
        (MACHINE, "run " + "/work" + "/venv/bin/python"),
        (MACHINE, "saved to '/home/" + "ann/runs'"),
    ],
)
def test_the_patterns_find_what_they_are_for(pattern, text):
    assert pattern.search(text)


@pytest.mark.parametrize(
    "text",
    ["--extra-index-url https://download.pytorch.org/whl/cpu", "data/root/x", "https://example.com/work/x", "./home"],
)
def test_the_patterns_leave_the_rest_alone(text):
    assert not HOST.search(text)
    assert not MACHINE.search(text)


def test_the_table_of_the_ablations_is_what_the_records_say():
    """The records: data/runs/reproduce. Each line is made again and looked for, with a minus sign for a hyphen."""
    rows = reproduce.read_rows(ROOT / "data" / "runs" / "reproduce")
    for s in reproduce.summary(rows):
        if s.variant.startswith("prompt_"):
            continue
        low, high = (100 * end for end in s.over_seeds)
        line = f"| `{s.variant}` | {s.seeds} | {100 * s.trained.success:.1f} ({low:.1f}–{high:.1f}) | "
        line += f"{100 * s.base.success:.1f} | "
        if s.variant != "himac":
            found = reproduce.compare(rows, "himac", s.variant)
            assert found.interval is not None
            low, high = (f"{100 * end:.1f}".replace("-", "−") for end in found.interval)
            line += f"{100 * found.difference:.1f} ({low} to {high}) | "
        assert line in README, line


@pytest.mark.parametrize("world", ["webshop", "alfworld"])
def test_the_tables_in_words_are_what_the_records_say(world):
    rows = reproduce.read_rows(ROOT / "data" / "runs" / world)
    for variant in ("himac", "flat_grpo"):
        own = [row for row in rows if row.variant == variant]
        assert [row.seed for row in own] == [0, 1, 2]
        line = f"| `{variant}` | {' / '.join(f'{100 * row.trained.success:.1f}' for row in own)} | "
        line += f"{100 * own[0].base.success:.1f} | "
        if world == "webshop":  # a household's score is its success
            line += f"{' / '.join(f'{100 * row.trained.mean_progress:.1f}' for row in own)} | "
        assert line in README, line
    found = reproduce.compare(rows, "himac", "flat_grpo")
    assert found.interval is not None
    low, high = (f"{100 * end:.1f}".replace("-", "−") for end in found.interval)
    assert f"{100 * found.difference:+.1f} points, {low} to {high} in the " in README
