"""The proof reads batches by its own code, agrees with the rejection, and fails without it."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from himac_lite import cli
from himac_lite.pretraining import proof, sokoban
from himac_lite.pretraining.driver import batches_of, recipe_of
from himac_lite.pretraining.sokoban import STAGES, plan_demonstration, stream
from himac_lite.settings import Pretrain
from himac_lite.tasks.sokoban import language
from himac_lite.tasks.sokoban.generator import held_out_keys
from himac_lite.tasks.sokoban.keys import position_key
from himac_lite.tasks.sokoban.rules import board_from_level
from himac_lite.types import Level

PIECES = language.vocabulary()
SHORT = {"expert_steps": 7, "settle_steps": 1, "habit_steps": 1, "batch_tokens": 8192}


def text_of(ids: tuple[int, ...]) -> str:
    return "".join(PIECES[i] for i in ids)


def test_positions_of_a_plan_by_hand():
    # One box, pushed right twice; then "up", which the wall forbids. The least text of each position is that of an
    # upright image (a newline comes before #), and of the two upright ones that with the smaller second row.
    board = board_from_level(Level(("######", "#@$ .#", "######")))
    plan = [((1, 2), "right", (1, 4)), ((1, 4), "up", (0, 4))]
    assert proof.positions(text_of(plan_demonstration(board, plan).ids)) == (
        "planner",
        [
            "###\n#.#\n# #\n#$#\n#@#\n###",
            "###\n#.#\n#$#\n#@#\n#@#\n###",
            "###\n#*#\n#@#\n#@#\n#@#\n###",
        ],
    )


def test_the_proof_and_the_rejection_agree_on_every_position():
    forbidden, keys, hits = proof.held_out(), held_out_keys(), 0
    assert len(forbidden) == len(keys)
    made = stream(np.random.default_rng(0), STAGES[1].players, 0.05, frozenset())
    for one in itertools.islice(made, 600):
        role, found = proof.positions(text_of(one.ids))
        assert role == one.role.value
        assert [text in forbidden for text in found] == [position_key(board) in keys for board in one.boards]
        hits += any(text in forbidden for text in found)
    assert hits > 20


def test_what_is_not_a_demonstration_is_no_proof():
    with pytest.raises(ValueError, match="not a demonstration"):
        proof.positions("<plan>\n###\n")


def prove(capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(["pretrain", "--prove", *(a for n, v in SHORT.items() for a in ("--set", f"{n}={v}"))]) == 0
    return capsys.readouterr().out


def test_no_held_out_position_is_in_the_batches(capsys, monkeypatch):
    monkeypatch.setattr(proof, "cores", lambda: 1)
    out = prove(capsys).splitlines()
    assert out[-1].startswith("9 batches, ")
    assert out[-1].endswith(" held-out ones: 0 hits")
    assert out[-2].startswith("beginners 1/1: ")


def test_without_the_rejection_it_lists_the_levels_and_exits_with_1(capsys, monkeypatch):
    monkeypatch.setattr(proof, "cores", lambda: 1)
    monkeypatch.setattr(sokoban, "held_out_keys", frozenset)
    with pytest.raises(SystemExit) as ended:
        prove(capsys)
    assert ended.value.code == 1
    out = capsys.readouterr().out
    assert "core/test " in out
    assert "core/validation " in out
    assert "reserve " in out
    for role in ("planner", "executor", "flat"):
        assert f"the {role} demonstration in expert demonstrations, batch " in out
    assert "first in the prompt of the" in out
    assert re.search(r"first after push [1-9] of the", out)


def test_processes_find_the_same(monkeypatch):
    monkeypatch.setattr(sokoban, "held_out_keys", frozenset)
    settings, found = Pretrain(**SHORT), []
    for cores in (1, 3):
        monkeypatch.setattr(proof, "cores", lambda cores=cores: cores)
        stages = [("expert", 4, batches_of(recipe_of("sokoban"), settings, 0))]
        found.append(proof.prove(stages, lambda _: None))
    assert found[0] == found[1]
    assert found[0].batches == 4
    assert found[0].hits


def test_only_boards_are_compared(capsys):
    assert cli.main(["pretrain", "--prove", "--task", "webshop"]) == 2
    assert "--prove compares boards" in capsys.readouterr().err
