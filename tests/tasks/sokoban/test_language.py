"""What the policies read and write: prompts cut as the tokenizer cuts them, and blueprints parsed from any text."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sokoban_boards import boards

from himac_lite.tasks import marks
from himac_lite.tasks.sokoban import language
from himac_lite.tasks.sokoban.language import (
    MAX_SIDE,
    MAX_SUBGOALS,
    format_blueprint,
    observation_text,
    parse_blueprint,
    parse_push,
    prompt,
    prompt_pieces,
    subgoal_text,
)
from himac_lite.tasks.sokoban.rules import NAMES, Outcome, board_from_level
from himac_lite.types import Blueprint, Invalid, Level, Role, SubGoal

PUSH = "push the box at (2,3) right to (2,5)"


@pytest.fixture(scope="module")
def tokenizer():
    from himac_lite.pretraining.tokenizers import build_tokenizer

    return build_tokenizer()


@st.composite
def pushes(draw):
    """(box, direction, target): a straight push inside the largest board."""
    direction = draw(st.sampled_from(NAMES))
    across, near, far = (
        draw(st.integers(0, MAX_SIDE - 1)),
        *sorted(draw(st.sets(st.integers(0, MAX_SIDE - 1), min_size=2, max_size=2))),
    )
    start, end = (near, far) if direction in ("down", "right") else (far, near)
    if direction in ("up", "down"):
        return (start, across), direction, (end, across)
    return (across, start), direction, (across, end)


# Prompts


def test_prompts_as_a_person_reads_them():
    board = board_from_level(Level(("#####", "#@$.#", "# # #", "#####")))
    shown = "\n#####\n#@$.#\n# # #\n#####\n\n"
    assert prompt(Role.PLANNER, board) == f"<plan>{shown}<again>{shown}"
    assert prompt(Role.FLAT, board) == f"<play>{shown}<again>{shown}"
    subgoal = SubGoal("push the box at (1,2) right to (1,3)")
    assert prompt(Role.EXECUTOR, board, subgoal) == (
        f"<act>{shown}\npush the box at (1,2) right to (1,3)<again>{shown}"
    )


def test_what_happened_as_a_person_reads_it():
    assert [observation_text(o, (2, 3)) for o in Outcome] == [" moved (2,3)", " pushed (2,3)", " blocked (2,3)"]
    assert language.ACTIONS == ("\nup", "\ndown", "\nleft", "\nright")


# Vocabulary and tokenizer


def test_the_vocabulary_has_no_duplicates_and_is_the_tokenizers(tokenizer):
    words = language.vocabulary()
    assert len(set(words)) == len(words)
    assert tokenizer.convert_ids_to_tokens(list(range(len(words)))) == words
    assert len(tokenizer) == len(words)
    special = (tokenizer.pad_token, tokenizer.unk_token, tokenizer.eos_token)
    assert special == (marks.PAD, marks.UNKNOWN, marks.END)


@given(boards(5, 10), st.sampled_from(list(marks.MARK)), pushes())
@settings(max_examples=150, deadline=None)
@example(board_from_level(Level(("#" * 10, "#@" + "#" * 8, *["#" * 10] * 8))), Role.PLANNER, ((1, 1), "right", (1, 2)))
def test_a_prompt_is_cut_as_the_tokenizer_cuts_it(tokenizer, board, role, push):
    subgoal = SubGoal(subgoal_text(*push)) if role is Role.EXECUTOR else None
    pieces, text = prompt_pieces(role, board, subgoal), prompt(role, board, subgoal)
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.convert_ids_to_tokens(ids) == pieces
    assert "".join(pieces) == text == tokenizer.decode(ids)
    assert tokenizer.unk_token_id not in ids
    # Twice: a token for each inner cell, one for each row's end, one for the upper border. Then the mark and <again>.
    inside = (board.width - 2) * (board.height - 2) + (board.height - 2) + 1
    assert len(ids) == 2 + 2 * inside + (4 if role is Role.EXECUTOR else 0)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(language.ACTIONS), st.sampled_from(list(Outcome)), st.tuples(*[st.integers(0, 9)] * 2)
        )
    )
)
@settings(max_examples=60, deadline=None)
def test_an_executors_segment_is_two_tokens_a_step(tokenizer, steps):
    pieces = [piece for action, outcome, cell in steps for piece in (action, observation_text(outcome, cell))]
    pieces.append(marks.SUB_DONE)
    ids = tokenizer("".join(pieces), add_special_tokens=False).input_ids
    assert tokenizer.convert_ids_to_tokens(ids) == pieces
    assert tokenizer.decode(ids) == "".join(pieces)


@given(st.lists(pushes(), min_size=1, max_size=MAX_SUBGOALS))
@settings(max_examples=60, deadline=None)
def test_a_planners_text_is_four_tokens_a_sub_goal(tokenizer, wanted):
    text = format_blueprint(tuple(SubGoal(subgoal_text(*push)) for push in wanted))
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert len(ids) == 4 * len(wanted)
    assert tokenizer.decode(ids) == text


# Blueprints


@given(st.lists(pushes(), min_size=1, max_size=MAX_SUBGOALS))
@settings(max_examples=100, deadline=None)
def test_what_is_formatted_is_parsed(wanted):
    subgoals = tuple(SubGoal(subgoal_text(*push)) for push in wanted)
    found = parse_blueprint(format_blueprint(subgoals))
    assert found == Blueprint(format_blueprint(subgoals), subgoals, None)
    assert [parse_push(g.text) for g in found.subgoals] == wanted


def test_one_line_by_hand():
    assert subgoal_text((2, 3), "right", (2, 5)) == PUSH
    assert parse_push(PUSH) == ((2, 3), "right", (2, 5))
    assert parse_push("push the box at (9,3) up to (6,3)") == ((9, 3), "up", (6, 3))


REASONS = [
    ("", True, Invalid.EMPTY),
    ("\n \n", True, Invalid.EMPTY),
    (f"\n{PUSH}", False, Invalid.UNFINISHED),
    ("", False, Invalid.UNFINISHED),
    (f"\n{PUSH}" * (MAX_SUBGOALS + 1), True, Invalid.TOO_LONG),
    ("up", True, Invalid.SYNTAX),
    (f"\n{PUSH}\n\n{PUSH}", True, Invalid.SYNTAX),  # an empty line
    (f" {PUSH}", True, Invalid.SYNTAX),
    (f"{PUSH} ", True, Invalid.SYNTAX),
    (f"first {PUSH}", True, Invalid.SYNTAX),
    (f"{PUSH}, then up", True, Invalid.SYNTAX),
    (f"{PUSH}\r\n{PUSH}", True, Invalid.SYNTAX),
    ("push the box at (2,3) left, not right to (2,5)", True, Invalid.SYNTAX),
    ("push the box at (2,3) RIGHT to (2,5)", True, Invalid.SYNTAX),
    ("push the box at (-2,3) right to (2,5)", True, Invalid.SYNTAX),
    ("push the box at (2,3) right to (2,3)", True, Invalid.GEOMETRY),  # nowhere
    ("push the box at (2,3) left to (2,5)", True, Invalid.GEOMETRY),  # the other way
    ("push the box at (2,3) right to (3,5)", True, Invalid.GEOMETRY),  # not straight
    ("push the box at (2,3) down to (2,5)", True, Invalid.GEOMETRY),
    (f"\n{PUSH}\npush the box at (2,3) up to (2,5)", True, Invalid.GEOMETRY),  # one bad line spoils all
]


@pytest.mark.parametrize(("text", "finished", "reason"), REASONS)
def test_why_a_blueprint_is_invalid(text, finished, reason):
    assert parse_blueprint(text, finished) == Blueprint(text, (), reason)


def test_every_reason_is_reached():
    assert {reason for _, _, reason in REASONS} == set(Invalid) - {Invalid.LONG_LINE}  # that one is of other tasks


def test_as_many_sub_goals_as_allowed():
    found = parse_blueprint(f"\n{PUSH}" * MAX_SUBGOALS)
    assert found.invalid is None
    assert len(found.subgoals) == MAX_SUBGOALS


ALMOST = st.text(st.sampled_from("push the box at (0123456789,) right to up down left\n"), max_size=200)


@given(
    st.text(max_size=500)
    | ALMOST
    | st.lists(st.sampled_from([PUSH, "\n", " ", "(2,3)", "<sub_done>", "٣", "²"])).map("".join)
)
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_blueprint_or_says_why_not(text):
    for finished in (True, False):
        found = parse_blueprint(text, finished)
        assert found.text == text
        if found.invalid is None:
            assert 1 <= len(found.subgoals) <= MAX_SUBGOALS
            assert finished
            assert format_blueprint(found.subgoals).strip("\n") == text.strip("\n")
            for subgoal in found.subgoals:
                box, direction, target = parse_push(subgoal.text)
                dr, dc = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}[direction]
                moved = (target[0] - box[0], target[1] - box[1])
                assert moved[0] * dr + moved[1] * dc == abs(moved[0]) + abs(moved[1]) > 0
        else:
            assert found.subgoals == ()


@pytest.mark.parametrize(
    "text",
    [
        "p" * 1_000_000,
        PUSH * 30_000,
        f"{PUSH}\n" * 30_000,
        "\n" * 1_000_000,
        f"push the box at ({'9' * 5000},3) right to (2,5)",
        f"push the box at (2,3) right to (2,{'1' * 1_000_000})",
        "push the box at " + "(" * 1_000_000,
        "push the box at (²,³) right to (²,5)",
        "\ud800 push the box at (2,3) right to (2,5)",
        "push the box at (2,3) right to (2,5)\x00",
        "\N{RIGHT-TO-LEFT OVERRIDE}" + PUSH,
    ],
    ids=lambda text: f"{len(text)} of {text[:12]!a}",
)
def test_hostile_texts_are_invalid_and_at_once(text):
    begin = time.process_time()
    assert parse_blueprint(text).invalid in (Invalid.SYNTAX, Invalid.TOO_LONG, Invalid.EMPTY)
    assert time.process_time() - begin < 0.5
