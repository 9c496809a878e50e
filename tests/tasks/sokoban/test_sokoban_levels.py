"""Level files, symmetry, generation, the frozen splits, and the commands over them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sokoban_boards import puzzles

from himac_lite import cli
from himac_lite.errors import LevelError
from himac_lite.storage import data_dir
from himac_lite.tasks.registry import load_items
from himac_lite.tasks.sokoban import generator, levels
from himac_lite.tasks.sokoban.generator import RESERVE, generate, holdout, level_key, reserve
from himac_lite.tasks.sokoban.levels import (
    PARTS,
    SPLITS,
    canonical_hash,
    format_levels,
    held_out_hashes,
    load_levels,
    parse_levels,
    save_levels,
    symmetries,
)
from himac_lite.tasks.sokoban.rules import Board, board_from_level, rows_of
from himac_lite.tasks.sokoban.solver import distances, solve
from himac_lite.types import Level

TINY = "#####\n#@$.#\n#####\n"


# Reading


def test_reads_every_character():
    (one,) = parse_levels("#######\n#+ $  #\n# * $.#\n#######\n")
    assert board_from_level(one) == Board(
        height=4,
        width=7,
        walls=frozenset((r, c) for r in range(4) for c in range(7) if r in (0, 3) or c in (0, 6)),
        targets=frozenset({(1, 1), (2, 2), (2, 5)}),
        boxes=frozenset({(1, 3), (2, 2), (2, 4)}),
        player=(1, 1),
    )


def test_ragged_lines_are_filled_and_what_the_player_cannot_reach_is_wall():
    text = "  ####\n###  ####\n#     $ #\n# #  #$ #\n# . .#@ #\n#########"
    (one,) = parse_levels(text)
    assert one.rows == (
        "#########",
        "###  ####",
        "#     $ #",
        "# #  #$ #",
        "# . .#@ #",
        "#########",
    )


def test_dashes_and_underscores_are_floor():
    assert parse_levels("######\n#@-$.#\n#_--_#\n######")[0].rows == ("######", "#@ $.#", "#    #", "######")


@pytest.mark.parametrize("end", ["", "\n", "\n\n", "\r\n", "\n; the end", "\nAuthor: nobody\n"])
def test_the_last_level_is_not_dropped(end):
    text = "; 0\n#####\n#@$.#\n#####\n\n; 1\n#####\n#+ *#\n#$  #\n#####\n\n; 2\n#####\n#.$@#\n#####" + end
    found = parse_levels(text.replace("\n", "\r\n") if end == "\r\n" else text)
    assert [one.rows[1] for one in found] == ["#@$.#", "#+ *#", "#.$@#"]
    assert [one.title for one in found] == ["0", "1", "2"]


def test_levels_need_no_blank_line_between_them_where_a_comment_is():
    found = parse_levels(f"; first\n{TINY}; second\n; moves 1, pushes 1\n{TINY}")
    assert [(one.title, one.optimal_moves, one.optimal_pushes) for one in found] == [
        ("first", None, None),
        ("second", 1, 1),
    ]


def test_a_sok_title_after_the_board_is_its_own():
    text = f"My collection\n\n{TINY}Title: First\nAuthor: A\n\n{TINY}Author: B\n\nTitle: Third\n\n{TINY}"
    assert [one.title for one in parse_levels(text)] == ["First", "", "Third"]


def test_a_byte_order_mark_is_not_part_of_the_first_row(tmp_path):
    file = tmp_path / "bom.xsb"
    file.write_bytes(b"\xef\xbb\xbf" + TINY.encode())
    assert load_levels(file)[0].rows == ("#####", "#@$.#", "#####")


@given(st.lists(st.tuples(puzzles(), st.sampled_from(["", "7", "a b"]), st.booleans()), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read(described):
    made = []
    for i, (board, title, known) in enumerate(described):
        level = parse_levels("\n".join(rows_of(board)))[0]  # as the reader has it: unreachable floor is wall
        made.append(Level(level.rows, title, 5 + i if known else None, 2 if known else None))
    assert parse_levels(format_levels(made)) == made


def test_save_and_load(tmp_path):
    made = [Level(("#####", "#@$.#", "#####"), "one", 1, 1), Level(("#####", "#+ *#", "#$  #", "#####"))]
    file = tmp_path / "mine.xsb"
    file.write_text("old")
    save_levels(made, file)
    assert load_levels(file) == made
    assert [f.name for f in tmp_path.iterdir()] == ["mine.xsb"], "nothing is left beside it"


# What cannot be read. Each error names the file, the level, its line, and what is allowed.

BAD = {
    "no player": (f"{TINY}\n#####\n# $.#\n#####\n", r", level 2 \(line 5\): 0 players .* exactly one"),
    "two players": (f"{TINY}\n; x\n#####\n#@@$.#\n#####\n", r", level 2 \(line 6\): 2 players .* exactly one"),
    "two kinds of player": ("\n#####\n#@+$#\n#####\n", r", level 1 \(line 2\): 2 players"),
    "more boxes": ("######\n#@$$.#\n######\n", r", level 1 \(line 1\): 2 boxes but 1 targets; .* as many of each"),
    "more targets": ("######\n#+$ .#\n######\n", r", level 1 \(line 1\): 1 boxes but 2 targets"),
    "no box": ("#####\n#@  #\n#####\n", r", level 1 \(line 1\): 0 boxes but 0 targets; .* at least one"),
    "open": (
        "#####\n#@$.\n#####\n",
        r", level 1 \(line 1\): open to the outside at row 1, column 4; walls must enclose",
    ),
    "open above": ("## ##\n#@$.#\n#####\n", r", level 1 \(line 1\): open to the outside at row 0, column 2"),
    "a hole behind a box": ("#####\n#@.$\n#####\n", r", level 1 \(line 1\): open to the outside at row 1, column 4"),
    "a box outside": ("#####\n#@.##$\n#####\n", r", level 1 \(line 1\): a box or target lies outside the walls"),
    "empty": ("", r": no level found\. A level is lines of # \. \$ \* @ \+ and spaces"),
    "only words": ("hello\n\nworld\n", r": no level found"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_named_with_level_and_line(case, tmp_path):
    text, message = BAD[case]
    file = tmp_path / "levels.xsb"
    file.write_text(text)
    with pytest.raises(LevelError, match=f"levels.xsb{message}") as caught:
        load_levels(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_binary_file(tmp_path):
    file = tmp_path / "picture.png"
    file.write_bytes(b"\x89PNG\r\n\x1a\n\x00\xff")
    with pytest.raises(LevelError, match=r"picture\.png: not a text file; levels are XSB text in UTF-8"):
        load_levels(file)


def test_a_missing_file_and_a_folder(tmp_path):
    allowed = r"give a level file \(XSB, SOK or SLC\) or a split: warmup, core, hard"
    with pytest.raises(
        LevelError, match=rf"cannot read levels from '.*gone\.xsb' \(No such file or directory\); {allowed}"
    ):
        load_levels(tmp_path / "gone.xsb")
    with pytest.raises(LevelError, match=f"cannot read levels from .* {allowed}"):
        load_levels(tmp_path)


@pytest.mark.parametrize(("name", "part"), [("core/tset", None), ("core", None), ("core", "dev"), ("core/", None)])
def test_an_unknown_part_of_a_split(name, part):
    with pytest.raises(LevelError, match=f"unknown split '{name}'; say core/train, core/validation"):
        load_levels(name, part)


def test_an_oversized_file_is_refused_before_it_is_read(tmp_path, monkeypatch):
    file = tmp_path / "big.xsb"
    file.write_text(TINY)
    monkeypatch.setattr(levels, "MAX_BYTES", len(TINY) - 1)
    monkeypatch.setattr(Path, "open", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(LevelError, match=r"big\.xsb: larger than .* MB; split the collection .* iter_levels") as caught:
        load_levels(file)
    assert caught.value.source == str(file)


def test_an_endless_file_is_read_in_bounded_memory(tmp_path):
    """40 MB: one line of 20 MB, a level, 20 MB of rows that are no level, and a level. A tenth of it is never held."""
    file = tmp_path / "long.xsb"
    with file.open("w") as out:
        for _ in range(200):
            out.write("#" * 100_000)
        out.write("\n\n; one\n" + TINY + "\n")
        for _ in range(200):
            out.write(("#" * 99 + "\n") * 1_000)
        out.write("\n; two\n" + TINY)
    tracemalloc.start()
    found = list(levels.iter_levels(file))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000
    assert [one.title if isinstance(one, Level) else (one.level, one.line) for one in found] == [
        (1, 1), "one", (3, 8), "two",
    ]  # fmt: skip


def test_the_other_levels_of_a_bad_file_on_request(tmp_path):
    bad = "#####\n#@@.#\n#####\n"
    file = tmp_path / "mixed.xsb"
    file.write_bytes(f"; a\n{TINY}\n; b\n{bad}\n; c\n{TINY}\n".encode() + b"\x00\xff\x01\n\n; d\n" + TINY.encode())
    with pytest.raises(LevelError, match="2 players") as caught:
        load_levels(file)
    assert (caught.value.source, caught.value.level, caught.value.line) == (str(file), 2, 7)
    assert [one.title for one in load_levels(file, errors="skip")] == ["a", "c", "d"]
    errors = [one for one in levels.iter_levels(file) if isinstance(one, LevelError)]
    assert [(error.level, error.line) for error in errors] == [(2, 7), (None, 16)]
    assert "not a text file" in str(errors[1])
    with pytest.raises(ValueError, match="'raise' or 'skip', not 'warn'"):
        load_levels(file, errors="warn")


# SOK collections, run lengths, Boxoban


def test_a_sok_collection():
    text = f"""\
::::::::::::::: SOK :::::::::::::::
A collection of mine
Author: The Collector

First
{TINY}Author: A. Nother
Comment: short
Comment:
long

#####
not a level, but a picture of one
Comment-End:
Solution: R

{TINY}Title: Second
"""
    first, second = parse_levels(text)
    assert (first.title, first.author) == ("First", "A. Nother")
    assert first.comments == ("short", "long", "", "#####", "not a level, but a picture of one")
    assert (second.title, second.author, second.comments) == ("Second", "The Collector", ())


def test_old_collections_are_latin_1(tmp_path):
    file = tmp_path / "old.sok"
    file.write_bytes(TINY.encode() + "Author: André\n".encode("latin-1"))
    assert load_levels(file)[0].author == "André"


@pytest.mark.parametrize(
    "text",
    [
        "5#|#@$.#|5#",
        "5#|#@$.#|5#|",
        "5#\n#p b.#\n5#",
        "7#\n#@-$-.#\n7#",
        "4(2#)#|#3(-)@-$.#|9#",
        "----3#\n#####-#\n#@-b-.#\n7#",
    ],
)
def test_run_lengths_and_letters(text):
    (one,) = parse_levels(text)
    assert solve(one).lurd.lstrip("r") in ("R", "RR")


def test_levels_on_one_line_each():
    found = parse_levels("; one\n5#|#@$.#|5#\n; two\n6#|#@-$.#|6#\n5#|#.$@#|5#\n")
    assert [(one.title, one.rows[1]) for one in found] == [("one", "#@$.#"), ("two", "#@ $.#"), ("", "#.$@#")]


@pytest.mark.parametrize("words", ["#1", "# 2 (b)", "12", "3#4", "99999999999#|#@$.#|5#", "9(9(9(9(9(9(9(#)))))))"])
def test_words_and_bombs_are_no_board(words):
    found = parse_levels(f"{words}\n\n{TINY}", errors="skip")
    assert [one.rows for one in found] == [("#####", "#@$.#", "#####")]


def test_a_boxoban_file(tmp_path):
    """Levels under ``; 0`` headings, the last one without a newline at its end, as DeepMind's files have it."""
    board = "##########\n" * 4 + "#@$. #####\n" + "##########\n" * 4 + "##########"
    file = tmp_path / "000.txt"
    file.write_text("\n\n".join(f"; {i}\n{board}" for i in range(1000)))
    found = load_levels(file)
    assert [one.title for one in found] == [str(i) for i in range(1000)]


WORDS = st.text("abc #$@.:;-_'é", max_size=12).map(lambda t: " ".join(t.split()))


@given(st.lists(st.tuples(puzzles(), WORDS, WORDS, st.lists(WORDS, max_size=3)), min_size=1, max_size=4))
@settings(max_examples=150, deadline=None)
def test_titles_authors_and_comments_are_read_as_they_were_written(described):
    made = [
        Level(parse_levels("\n".join(rows_of(board)))[0].rows, title, None, None, author, tuple(comments))
        for board, title, author, comments in described
    ]
    assert parse_levels(format_levels(made)) == made


def test_writing_where_no_file_can_be(tmp_path):
    with pytest.raises(LevelError, match=r"cannot write to .*mine\.xsb: .*no is not a folder"):
        save_levels([Level(("#####", "#@$.#", "#####"))], tmp_path / "no" / "mine.xsb")


@given(st.text(max_size=300) | st.text("# @$.*+-_;\n0", max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_text_is_levels_or_a_level_error(text):
    try:
        found = parse_levels(text)
    except LevelError:
        return
    assert parse_levels("\n\n".join(one.text for one in found)) == [Level(one.rows) for one in found]


@pytest.mark.parametrize("text", ["#" * 1_000_000 + "x", "#" * 1_000_000, "#\n" * 100_000, " " * 1_000_000 + "x"])
def test_a_long_text_is_read_in_linear_time(text):
    """A quadratic reader would need hours for the first."""
    with pytest.raises(LevelError, match=r"no level found|0 players|over 1,000 rows"):
        parse_levels(text)


def test_a_number_longer_than_int_takes_is_a_title():
    (one,) = parse_levels("; moves " + "9" * 5000 + ", pushes 1\n" + TINY)
    assert one.optimal_moves is None


# Symmetry


def test_the_eight_symmetries():
    one = Level(("####", "#@ #", "#$.#", "####"))
    inner = {tuple(row[1:-1] for row in s.rows[1:-1]) for s in symmetries(one)}
    # The square  @ .   read in 4 rotations, each as it is and mirrored.
    assert inner == {
        ("@ ", "$."),
        ("$@", ". "),
        (".$", " @"),
        (" .", "@$"),
        (" @", ".$"),
        ("@$", " ."),
        ("$.", "@ "),
        (". ", "$@"),
    }


def test_symmetries_turn_rectangles():
    sizes = [(len(s.rows), len(s.rows[0])) for s in symmetries(Level(("#####", "#@$.#", "#####"), "t", 1, 1))]
    assert sorted(sizes) == [(3, 5)] * 4 + [(5, 3)] * 4


@given(puzzles())
@settings(max_examples=50, deadline=None)
def test_symmetric_levels_have_one_hash_and_others_another(board):
    level = Level(rows_of(board))
    assert {canonical_hash(s) for s in symmetries(level)} == {canonical_hash(level)}
    free = {(r, c) for r in range(board.height) for c in range(board.width)} - board.walls
    more = Board(board.height, board.width, board.walls, free, board.boxes, board.player)
    if more.targets != board.targets:
        assert canonical_hash(Level(rows_of(more))) != canonical_hash(level)


def test_unreachable_floor_does_not_make_another_level():
    """A generated level and the same one read from its file must be one level to the held-out check."""
    pocket = Level(("######", "#@$.##", "### ##", "###### "[:6], "#  ###", "######"))
    filled = Level(("######", "#@$.##", "### ##", "######", "######", "######"))
    assert canonical_hash(pocket) == canonical_hash(filled)


# Generation


def test_generated_levels_are_what_was_asked_for():
    made = generate(np.random.default_rng(3), 25, size=6, boxes=2, lengths=(5, 12), max_density=0.3)
    assert len(made) == 25
    assert len({canonical_hash(one) for one in made}) == 25
    assert parse_levels(format_levels(made)) == made
    for one in made:
        assert (len(one.rows), len(one.rows[0]), one.n_boxes) == (6, 6, 2)
        assert 5 <= one.optimal_moves <= 12
        assert one.optimal_moves == solve(one).moves
        assert one.optimal_pushes == solve(one, "pushes").pushes


def test_generated_levels_have_no_floor_that_the_player_cannot_reach():
    made = generate(np.random.default_rng(3), 40, size=6, boxes=1, lengths=(2, 20), max_density=0.6)
    assert parse_levels(format_levels(made)) == made


def test_excluded_levels_do_not_come_back_in_any_orientation():
    first = generate(np.random.default_rng(4), 10, size=5, boxes=1, lengths=(3, 6))
    excluded = {canonical_hash(one) for one in first}
    again = generate(np.random.default_rng(4), 10, size=5, boxes=1, lengths=(3, 6), exclude=excluded)
    assert not excluded & {canonical_hash(one) for one in again}


def test_another_process_generates_the_same_levels():
    """With another hash seed: nothing may depend on the order of a set."""
    code = (
        "import numpy as np; from himac_lite.tasks.sokoban.generator import *;"
        "from himac_lite.tasks.sokoban.levels import *;"
        "print(format_levels(generate(np.random.default_rng(9), 12, 7, 2, (6, 25))), end='')"
    )
    root = Path(__file__).resolve().parents[3]
    for hash_seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(root)}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
        assert done.stdout == format_levels(generate(np.random.default_rng(9), 12, 7, 2, (6, 25)))
    assert format_levels(generate(np.random.default_rng(10), 12, 7, 2, (6, 25))) != done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 3, "boxes": 1}, "no room for 1 boxes"),
        ({"size": 2, "boxes": 1}, "no room for 1 boxes"),
        ({"size": 4, "boxes": 2}, "no room for 2 boxes"),  # 4 cells for 2 boxes, 2 targets and a player
        ({"size": 6, "boxes": 0}, "no room for 0 boxes"),
        ({"size": 20, "boxes": 6}, "over 20,000,000 positions"),
    ],
)
def test_impossible_requests_are_refused_at_once(arguments, message):
    with pytest.raises(LevelError, match=message):
        generate(np.random.default_rng(0), 1, lengths=(1, 99), **arguments)


# The frozen splits

FILES = [f"{split}-{part}.xsb" for split, spec in SPLITS.items() for part in spec.parts]
MANIFEST = json.loads((data_dir() / "levels" / "manifest.json").read_text("utf-8"))


def test_the_manifest_names_every_file():
    assert sorted(MANIFEST) == sorted(FILES)
    assert sorted(f.name for f in (data_dir() / "levels").glob("*.xsb")) == sorted(FILES)


@pytest.mark.parametrize("file", FILES)
def test_a_split_is_the_frozen_one(file):
    split, part = file.removesuffix(".xsb").split("-")
    spec, entry = SPLITS[split], MANIFEST[file]
    found = load_levels(split, part)
    assert hashlib.sha256((data_dir() / "levels" / file).read_bytes()).hexdigest() == entry["sha256"]
    assert len(found) == entry["levels"] == spec.parts[part]
    assert [one.optimal_moves for one in found] == entry["optimal_moves"]
    assert [one.optimal_pushes for one in found] == entry["optimal_pushes"]
    assert {(len(one.rows), len(one.rows[0]), one.n_boxes) for one in found} == {(spec.size, spec.size, spec.boxes)}
    assert all(spec.lengths[0] <= one.optimal_moves <= spec.lengths[1] for one in found)
    assert load_levels(f"{split}/{part}") == found


def test_no_level_is_in_two_places():
    """Up to symmetry and unreachable floor, over all splits and parts, and within each."""
    seen: dict[str, str] = {}
    for split, spec in SPLITS.items():
        for part in spec.parts:
            for number, one in enumerate(load_levels(split, part), 1):
                key, here = canonical_hash(one), f"{split}/{part} {number}"
                assert key not in seen, f"{here} is {seen[key]}"
                seen[key] = here
    assert len(seen) == sum(sum(spec.parts.values()) for spec in SPLITS.values())


def test_held_out_is_everything_but_train():
    held = held_out_hashes()
    assert len(held) == sum(sum(spec.parts.values()) - spec.parts["train"] for spec in SPLITS.values())
    assert canonical_hash(load_levels("hard/validation")[7]) in held
    assert canonical_hash(load_levels("core/train")[7]) not in held


def test_the_reserve_never_changes():
    """Pretraining avoids it: with other levels a base model could not be made again."""
    chosen = reserve()
    assert hashlib.sha256(format_levels(chosen).encode()).hexdigest()[:16] == "600d11a73d7fff90"
    assert len({level_key(one) for one in chosen}) == len(chosen) == RESERVE
    assert not {level_key(one) for one in chosen} & {level_key(one) for p in PARTS for one in load_levels("core", p)}
    # As many of each number of walls and length as in the draws of `core`: close to core/train, of 4,096 draws.
    for kind in (lambda one: one.text.count("#"), lambda one: one.optimal_moves):
        own, drawn = (np.mean([kind(one) for one in some]) for some in (chosen, load_levels("core/train")))
        spread = np.std([kind(one) for one in load_levels("core/train")])
        assert abs(own - drawn) < 4 * spread * np.sqrt(1 / RESERVE + 1 / 4096)


def test_a_holdout_is_chosen_from_the_reserve_by_its_seed():
    first, again, other = holdout(1), holdout(1), holdout(2)
    assert first == again != other
    assert len(first) == 512
    assert len({one.rows for one in first} & {one.rows for one in reserve()}) == 512
    assert all(solve(one, "pushes").pushes == one.optimal_pushes for one in first[:20])


def test_the_holdout_is_a_part_as_soon_as_it_has_a_seed(tmp_path, monkeypatch, capsys):
    """A small `core` with a seed, made by the command that makes the frozen one."""
    reserve()  # of the frozen splits
    core = replace(SPLITS["core"], counts=(4, 2, 3), holdout_seed=None)
    splits = {"core": core}
    for module in (levels, generator):
        monkeypatch.setattr(module, "SPLITS", splits)
    with pytest.raises(LevelError, match="say core/train, core/validation or core/test"):
        load_levels("core/holdout")
    assert "one part: core/train|validation|test" in refused(capsys, "split", "core/holdout")
    splits["core"] = replace(core, holdout_seed=5)
    monkeypatch.setattr("himac_lite.storage.data_dir", lambda: tmp_path)
    found = asked(capsys, "split", "core", "--write", tmp_path / "levels")
    assert {part: entry["n"] for part, entry in found["parts"].items()} == {
        "train": 4, "validation": 2, "test": 3, "holdout": 3,
    }  # fmt: skip
    chosen = load_items("sokoban", "core/holdout")
    assert [one.rows for one in chosen] == [one.rows for one in holdout(5)]
    assert chosen[2].title == "core/holdout 3"
    assert {canonical_hash(one) for one in chosen} < held_out_hashes()
    assert asked(capsys, "split", "core/holdout")["parts"]["holdout"]["n"] == 3
    assert asked(capsys, "read", "core/holdout")["n"] == 3


@pytest.mark.parametrize("split", SPLITS)
def test_frozen_lengths_are_optimal(split):
    """A sample of 50, by the forward search; the backward search, which froze them, must agree too."""
    rng = np.random.default_rng(0)
    every = [one for part in SPLITS[split].parts for one in load_levels(split, part)]
    for i in rng.choice(len(every), 50, replace=False):
        one = every[i]
        assert solve(one).moves == one.optimal_moves, one.title
        assert solve(one, "pushes").pushes == one.optimal_pushes, one.title
    assert distances(board_from_level(one)).distance(board_from_level(one)) == one.optimal_moves


# Commands


def asked(capsys, *words) -> dict:
    """What `himac-lite levels … --json` prints."""
    assert cli.main(["levels", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def printed(capsys, *words) -> str:
    assert cli.main(["levels", *map(str, words)]) == 0
    return capsys.readouterr().out


def refused(capsys, *words) -> str:
    """The one line of a command that ends with exit code 2."""
    assert cli.main(["levels", *map(str, words)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_read(tmp_path, capsys):
    file = tmp_path / "two.xsb"
    file.write_text(f"; one\n; moves 1, pushes 1\n{TINY}\n######\n#@$ .#\n# *  #\n######\n")
    assert asked(capsys, "read", file) == {
        "path": str(file),
        "n": 2,
        "sizes": {"3x5": 1, "4x6": 1},
        "boxes": {"1": 1, "2": 1},
        "optimal_moves": {"min": 1, "median": 1.0, "max": 1},
        "levels": [
            {
                "title": "one",
                "author": "",
                "comments": [],
                "rows": ["#####", "#@$.#", "#####"],
                "optimal_moves": 1,
                "optimal_pushes": 1,
            },
            {
                "title": "",
                "author": "",
                "comments": [],
                "rows": ["######", "#@$ .#", "# *  #", "######"],
                "optimal_moves": None,
                "optimal_pushes": None,
            },
        ],
    }
    text = printed(capsys, "read", file)
    assert "2 levels" in text
    assert "#@$.#" in text


def test_read_without_the_bad_ones(tmp_path, capsys):
    file = tmp_path / "some.xsb"
    file.write_text(f"{TINY}\n#####\n#@@.#\n#####\n\n{TINY}")
    found = asked(capsys, "read", file, "--skip-bad")
    assert found["n"] == 2
    assert len(found["errors"]) == 1
    assert "level 2 (line 5): 2 players" in printed(capsys, "read", file, "--skip-bad")
    file.write_text("#####\n#@@.#\n#####\n")
    assert "2 players" in refused(capsys, "read", file, "--skip-bad")


def test_solve(tmp_path, capsys):
    file = tmp_path / "two.xsb"
    file.write_text(f"; easy\n{TINY}\n#####\n#@ .#\n#$  #\n#####\n")
    found = asked(capsys, "solve", file)
    assert (found["n"], found["solved"], found["optimal"]) == (2, 1, "moves")
    assert found["levels"][0] == {
        "level": 1, "title": "easy", "solution": "R", "moves": 1, "pushes": 1,
        "blueprint": "push the box at (1,2) right to (1,3)",
    }  # fmt: skip
    assert found["levels"][1]["solution"] is None
    assert found["levels"][1]["reason"].startswith("no solution")
    assert (
        printed(capsys, "solve", file, "--optimal", "pushes").splitlines()[0] == "level 1 (easy): 1 moves, 1 pushes: R"
    )


def test_generate_writes_what_it_says(tmp_path, capsys):
    file = tmp_path / "new.xsb"
    options = ["--n", "5", "--seed", "2", "--size", "6", "--boxes", "1", "--min-length", "4", "--max-length", "9"]
    made = asked(capsys, "generate", file, *options)
    assert made["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    found = load_levels(file)
    assert len(found) == made["n"] == 5
    assert all(4 <= one.optimal_moves <= 9 for one in found)
    assert not {canonical_hash(one) for one in found} & held_out_hashes()
    assert made["sha256"] in printed(capsys, "generate", tmp_path / "again.xsb", *options)


def test_split(capsys):
    found = asked(capsys, "split", "core")
    assert {part: entry["n"] for part, entry in found["parts"].items()} == SPLITS["core"].parts
    only = asked(capsys, "split", "core/test")
    assert only["parts"] == {"test": found["parts"]["test"]}
    assert found["parts"]["test"]["sha256"] == MANIFEST["core-test.xsb"]["sha256"]
    assert "512 levels" in printed(capsys, "split", "core/test")


def test_split_notices_a_file_that_is_not_the_frozen_one(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "levels"
    folder.mkdir()
    for name in ("manifest.json", "core-test.xsb"):
        (folder / name).write_bytes((data_dir() / "levels" / name).read_bytes())
    monkeypatch.setattr("himac_lite.storage.data_dir", lambda: tmp_path)
    assert asked(capsys, "split", "core/test")["parts"]["test"]["n"] == 512
    with (folder / "core-test.xsb").open("a") as file:
        file.write("; one more\n")
    assert "not the frozen file of the manifest" in refused(capsys, "split", "core/test")
    (folder / "manifest.json").write_text("{")
    assert re.search(r"cannot read .*manifest\.json", refused(capsys, "split", "core/test"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("split cores", "unknown split 'cores'; say warmup, core, hard"),
        ("split hard/dev", "one part: hard/train|validation|test"),
        ("read {}/gone", "cannot read levels"),
        ("generate {}/x --n 0", "n must be from 1 to 100000, not 0"),
        ("generate {}/x --seed -1", "seed must be from 0"),
        ("generate {}/x --min-length 9 --max-length 8", "max_length must be from 9"),
        ("generate {}/x --max-density 2", "max_density must be from 0.0 to 0.8"),
        ("generate {}/x --size 3", "no room for 2 boxes"),
        ("generate {}/no/x --n 1", "cannot write"),
    ],
)
def test_bad_input_is_one_clear_line(words, message, tmp_path, capsys):
    assert message in refused(capsys, *words.format(tmp_path).split())
    assert list(tmp_path.iterdir()) == []
