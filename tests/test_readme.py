"""README.md opens with one sentence, one picture and the two commands that a newcomer pastes; its links lead somewhere;
no file names a machine or a registry of ours; figures are those of the records; one version everywhere."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import himac_lite
from himac_lite.evaluation import reproduce

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = [block.strip("\n") for block in re.findall(r"^```[^\n]*\n(.*?)^```", README, re.M | re.S)]

HOST = re.compile(
    r"pypi[.]org|pythonhosted[.]org|npmjs[.]|debian[.]org|(?:index-url|find-links)[ =]+(?!https://download)"
)
"""Package indexes are the reader's choice; PyTorch's CPU index is the one exception."""
MACHINE = re.compile(r"(?<![\w.:/-])/(?:work|root|opt|home/\w+|Users/\w+)/\w")


PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/teaching.md")
REPOSITORY = "himac-lite/himac-lite/blob/main"


def links(text: str) -> list[str]:
    """What a page links to or shows, in its own repository, without the part behind #."""
    found = re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"", text)
    return [link.partition("#")[0] for pair in found for link in pair if link and not re.match(r"https?:|#", link)]


def test_it_opens_with_a_sentence_and_a_picture():
    head = README.split("```")[0].strip()
    paragraphs = [part for part in head.split("\n\n") if not part.startswith(("#", "[!["))]
    sentence, picture, introduction = paragraphs
    assert re.fullmatch(r"[^.\n]+\.", sentence)
    assert len(re.findall(r"<img src=\"docs/img/[\w-]+\.png\" alt=\"[^\"]{40,}\"", picture)) == 1
    assert re.fullmatch(r"[^.\n]+:", introduction)


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    found = links((ROOT / page).read_text("utf-8"))
    gone = [link for link in found if not (ROOT / page).parent.joinpath(link).exists()]
    assert not gone, f"{page} links to {gone}"


def test_every_notebook_has_its_badges():
    for book in sorted((ROOT / "notebooks").glob("*.ipynb")):
        assert README.count(f"](notebooks/{book.name})") >= 1
        assert f"](https://colab.research.google.com/github/{REPOSITORY}/notebooks/{book.name})" in README
        binder = f"](https://mybinder.org/v2/gh/himac-lite/himac-lite/main?labpath=notebooks/{book.name})"
        assert binder in README


def test_one_version_everywhere():
    version = himac_lite.__version__
    for name, pattern in (
        ("pyproject.toml", r"^version = \"(.+)\"$"),
        ("CITATION.cff", r"^version: (.+)$"),
        ("CHANGELOG.md", r"^## \[(.+)\] – \d{4}-\d\d-\d\d$"),
    ):
        found = re.search(pattern, (ROOT / name).read_text("utf-8"), re.M)
        assert found
        assert found[1] == version, f"{name} says {found[1]}, himac_lite.__version__ is {version}"


def test_every_test_that_a_page_names_exists():
    sources = "".join(file.read_text("utf-8") for file in (ROOT / "tests").rglob("test_*.py"))
    for page in (ROOT / "docs").glob("*.md"):
        named = set(re.findall(r"`(test_\w+)`", page.read_text("utf-8")))
        assert not {name for name in named if f"def {name}(" not in sources}, page.name
        assert named or page.name != "cases.md"


def test_the_changelog_knows_where_every_module_went():
    """A row's left side is a module that is gone, its right side one that is there."""
    table = (ROOT / "CHANGELOG.md").read_text("utf-8").partition("| old module | new module |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `([\w.]+)` \| `([\w.]+)` \|$", table, re.M)
    assert len(rows) > 70
    for old, new in rows:
        path = ROOT / "himac_lite" / new.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file(), f"{old} went to no {new}"
        assert not (ROOT / "himac_lite" / old.replace(".", "/")).with_suffix(".py").is_file(), f"{old} is still there"


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
        line = f"| `{s.variant}` | {s.seeds} | {100 * s.trained.success:.1f} | {low:.1f}–{high:.1f} | "
        line += f"{100 * s.base.success:.1f} | "
        if s.variant != "himac":
            found = reproduce.compare(rows, "himac", s.variant)
            assert found.interval is not None
            low, high = (f"{100 * end:.1f}".replace("-", "−") for end in found.interval)
            line += f"{100 * found.difference:.1f} | {low} to {high} | "
        assert line.rstrip() in README, line


@pytest.mark.parametrize(("world", "name"), [("webshop", "WebShop"), ("alfworld", "ALFWorld's engine")])
def test_the_tables_of_text_action_tasks_are_what_the_records_say(world, name):
    rows = reproduce.read_rows(ROOT / "data" / "runs" / world)
    scored = world == "webshop"  # a household's score is its success
    lines = []
    for variant, mode in (("himac", "with blueprints"), ("flat_grpo", "flat")):
        own = [row for row in rows if row.variant == variant]
        assert [row.seed for row in own] == [0, 1, 2]
        for row in own:
            score = f"{100 * row.trained.mean_progress:.1f} | " if scored else ""
            line = f"| `{variant}` | {row.seed} | {100 * row.trained.success:.1f} | {score}"
            lines.append(f"{line}{row.spent.env_steps:,} | {row.spent.minutes:.0f} |\n")
        score = f"{100 * own[0].base.mean_progress:.1f} | " if scored else ""
        lines.append(f"| base model, {mode} | – | {100 * own[0].base.success:.1f} | {score}– | – |\n")
    found = reproduce.compare(rows, "himac", "flat_grpo")
    assert found.interval is not None
    low, high = (f"{100 * end:.1f}".replace("-", "−") for end in found.interval)
    lines.append(f"| {name} | {100 * found.difference:+.1f} | {low} to {high} |\n")
    assert [line for line in lines if line not in README] == []
