"""Text around boards, XML, and characters that no board has: each dialect of docs/levels.md with its file."""

from __future__ import annotations

import re
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from himac_lite.errors import LevelError
from himac_lite.tasks.sokoban.levels import format_levels, iter_levels, load_levels, parse_levels, save_levels
from himac_lite.types import Level

FOLDER = Path(__file__).parent / "dialects"
ALLOWED = "is not one of # . $ * @ + and spaces"
RIGHT, LEFT = "#@$.#", "#.$@#"

# File → (title, author, comments, second row) of each level.
READ = {
    "comments_above.xsb": [("First steps", "Ada", (), RIGHT), ("Second", "", ("a hint: go left",), LEFT)],
    "boxoban.txt": [("0", "", (), "#@$. #"), ("1", "", (), "# .$@#")],
    "between_blank_lines.txt": [("1", "", (), RIGHT), ("2", "", (), LEFT)],
    "title_below.txt": [("#1", "", (), RIGHT), ("#2", "", (), LEFT), ("#3", "", (), "#@#")],
    "keys_below.sok": [
        ("Right", "Ada Example", ("one push,", "", "#####", "a board in a comment is no level"), RIGHT),
        ("Left", "Grace", (), LEFT),
    ],
    "solutions.sok": [
        (
            "First",
            "Grace",
            ("One box is enough", "to see the rules.", "The best that is possible.", "Saved on the way."),
            "#@$ .#",
        ),
        ("Second", "", ("Just as easy.",), LEFT),
        ("Third", "", (), "#@#"),
    ],
    "run_lengths.txt": [("One line", "", (), RIGHT), ("Letters", "", (), "#@ $.#"), ("Groups", "", (), "#. $@#")],
    "collection.slc": [("Right", "Adéle Example", (), RIGHT), ("Pocket & corner", "Grace", (), "###.$@#")],
    "latin_1.txt": [("", "André", (), RIGHT)],
}
# File → (level, its first line, what is said) and the titles of the other levels.
REFUSED = {
    "tab.xsb": ((2, 7, f"line 8, column 3: TAB (U+0009) {ALLOWED}"), ["ok"]),
    "no_break_space.xsb": ((1, 2, f"line 3, column 3: NO-BREAK SPACE (U+00A0) {ALLOWED}"), []),
    "letter.xsb": ((1, 2, f"line 3, column 3: 'o' {ALLOWED}"), ["ok"]),
    "letter.slc": ((1, 2, f"line 4, column 8: 'x' {ALLOWED}"), []),
}


@pytest.mark.parametrize("name", READ)
def test_text_belongs_to_its_level(name):
    found = load_levels(FOLDER / name)
    assert [(one.title, one.author, one.comments, one.rows[1]) for one in found] == READ[name]
    assert parse_levels(format_levels(found)) == found


@pytest.mark.parametrize("name", REFUSED)
def test_an_unknown_character_is_named_with_its_place(name):
    (number, line, said), others = REFUSED[name]
    with pytest.raises(LevelError) as caught:
        load_levels(FOLDER / name)
    assert str(caught.value) == f"{FOLDER / name}, level {number} (line {line}): {said}"
    assert (caught.value.level, caught.value.line) == (number, line)
    assert [one.title for one in load_levels(FOLDER / name, errors="skip")] == others


def test_every_dialect_is_in_the_docs():
    docs = (Path(__file__).parents[3] / "docs" / "levels.md").read_text("utf-8")
    assert {file.name for file in FOLDER.iterdir()} == {*READ, *REFUSED}
    assert set(re.findall(r"`(\w+\.(?:xsb|txt|sok|slc))` \|$", docs, re.MULTILINE)) == {*READ}
    for name, ((number, line, said), _) in REFUSED.items():
        assert f"| `{name}` | `level {number} (line {line}): {said.partition(ALLOWED)[0]}" in docs


# Where text stands between boards

BOARD = "#####\n#@$.#\n#####\n"


@pytest.mark.parametrize(
    ("text", "titles"),
    [
        (f"{BOARD}; a\n\n{BOARD}; b\n", ["a", "b"]),  # below, the last one at the end of the file
        (f"; file\n\n{BOARD}; a\n\n{BOARD}; b\n", ["a", "b"]),  # a header of one line is no title
        (f"; a\n{BOARD}; b\n{BOARD}", ["a", "b"]),  # directly above the next board
        (f"; a\n{BOARD}; b\n\n{BOARD}", ["a", "b"]),  # level 1 has a title directly above it
        (f"; a\n{BOARD}; a remark\n\n; b\n{BOARD}", ["a", "b"]),
        (f"; file\n; by me\n\n{BOARD}\n{BOARD}", ["", ""]),  # several lines describe the file
        (f"a\n\n{BOARD}\nnote, that has\ntwo lines\n\n{BOARD}", ["a", ""]),
        (f"{BOARD}\nSolution/Moves\nR\n\n{BOARD}", ["", ""]),
        (f"{BOARD}# 1st try #\n{BOARD}", ["", "# 1st try #"]),  # words between walls are no row
    ],
)
def test_a_title_goes_to_its_board(text, titles):
    assert [one.title for one in parse_levels(text)] == titles


def test_solutions_are_not_comments_and_an_author_in_a_note_stays():
    text = f"A\n\n{BOARD}\nReverse Mode Snapshot 1\n[r]Ud\nAuthor: B\n\nC\n\n{BOARD}"
    first, second = parse_levels(text)
    assert (first.author, first.comments, second.title, second.author) == ("B", (), "C", "")


def test_a_comment_without_its_end_is_an_error_and_not_the_end_of_the_file():
    text = f"{BOARD}Comment:\n\n{BOARD}"
    with pytest.raises(LevelError, match=r"text: the Comment: of line 4 has no Comment-End:"):
        parse_levels(text)
    assert len(parse_levels(text, errors="skip")) == 1


def test_endless_notes_are_read_in_bounded_memory(tmp_path):
    file = tmp_path / "notes.sok"
    with file.open("w") as out:
        out.write(BOARD)
        for _ in range(8_000):
            out.write("a note of a hundred characters" + "." * 70 + "\n" * 2)
        out.write("last\n\n" + BOARD)
    tracemalloc.start()
    first, second = iter_levels(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 600_000
    assert (len(first.comments), second.title) == (1_000, "last")


# XML


def slc(body: str, before: str = "") -> str:
    return f'<?xml version="1.0"?>{before}<SokobanLevels><LevelCollection>{body}</LevelCollection></SokobanLevels>'


ROWS = "".join(f"<L>{row}</L>" for row in BOARD.split())
GOOD = f'<Level Id="good">{ROWS}</Level>'
HOSTILE = {
    "bomb": (slc(GOOD, '<!DOCTYPE x [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]>'), r"an entity is declared \(line 1\)", 0),
    "file": (slc(GOOD, '<!DOCTYPE x [<!ENTITY % e SYSTEM "file:///etc/passwd"> %e;]>'), "an entity is declared", 0),
    "depth": (slc(GOOD + "<a>" * 30), "tags nested more than 20 deep", 1),
    "long tag": (slc(GOOD + "<!-- " + "x" * 2_000_000), r"a tag of more than 1,000,000 bytes", 1),
    "cut": (slc(GOOD)[:-30], "damaged XML: unclosed token at line 1, column 115", 1),
    "encoding": ('<?xml version="1.0" encoding="shift_jis"?><SokobanLevels/>', "save it in UTF-8", 0),
    "no encoding": ('<?xml version="1.0" encoding="none"?><SokobanLevels/>', "save it in UTF-8", 0),
    "other XML": ("<?xml version='1.0'?><html/>", "no level found: this XML has no <Level>", 0),
    "no rows": (slc('<Level Id="a"/>'), r"level 1 \(line 1\): 0 players", 0),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_xml_is_one_line_and_what_came_before_is_read(name, tmp_path):
    text, message, good = HOSTILE[name]
    file = tmp_path / "a.slc"
    file.write_text(text)
    found = list(iter_levels(file))
    assert [one.title for one in found if isinstance(one, Level)] == ["good"] * good
    (error,) = (one for one in found if isinstance(one, LevelError))
    assert re.search(message, str(error))
    assert str(error).startswith(str(file))
    assert "\n" not in str(error)


def test_a_dtd_that_is_named_is_not_loaded_and_its_entities_are_empty():
    text = slc(f'<Level Id="caf&eacute;s">{ROWS}</Level>', '<!DOCTYPE SokobanLevels SYSTEM "http://127.0.0.1:9/x.dtd">')
    assert [one.title for one in parse_levels(text)] == ["cafs"]


def test_a_collection_on_one_long_line_is_read(tmp_path):
    file = tmp_path / "long.slc"
    file.write_text(slc(GOOD * 5_000))
    assert len(load_levels(file)) == 5_000


@given(st.text(max_size=80) | st.text('<>/LevlSokban "=&;#@$.!-[]', max_size=80), st.booleans())
@settings(max_examples=200, deadline=None)
def test_any_xml_is_levels_or_a_level_error(text, declared):
    try:
        found = parse_levels(('<?xml version="1.0"?>' if declared else "") + slc(GOOD).replace("</L><L>", text, 1))
    except LevelError as error:
        found, said = [], str(error)
    else:
        said = ""
    assert "\n" not in said
    assert said or parse_levels(format_levels(found)) == found


def test_slc_is_not_written(tmp_path):
    with pytest.raises(LevelError, match=r"cannot write to .*a\.slc: SLC is only read; name the file \.xsb"):
        save_levels(load_levels(FOLDER / "collection.slc"), tmp_path / "a.slc")
    assert list(tmp_path.iterdir()) == []
