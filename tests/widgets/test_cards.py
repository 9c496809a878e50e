"""The player's text cards: what is sent to the browser, and what a saved notebook shows."""

from __future__ import annotations

import json

import pytest
from recorded_runs import records

from himac_lite.errors import RunError
from himac_lite.widgets import AdvantageExplorer, RolloutPlayer, playback
from himac_lite.widgets.cards import CardPlayer, cards, is_text
from himac_lite.widgets.credit import level_data


def member(ret: float, *steps: tuple[str, str], goals: tuple[str, ...] = ("buy it",), **more) -> dict:
    segments = [{"end": "sub_done", "steps": 1, "subgoal": g} for g in goals[:-1]]
    segments.append({"end": "over", "steps": len(steps) - len(segments), "subgoal": goals[-1]})
    return {
        "return": ret, "success": ret == 1, "steps": len(steps), "moves": "\n".join(a for a, _ in steps),
        "transcript": [list(s) for s in steps], "advantage": ret - 0.5, "segments": segments, **more,
    }  # fmt: skip


BAD = ("click[<script>x</script>]", "Back [SEP] <b>mug</b>")
RECORD = {
    "level": "{}", "title": "i need a mug", "optimal_moves": None,
    "macro": {"best": 0, "members": [
        {"blueprint": "\nsearch for mug\nbuy it\nrest", "invalid": None, "tokens": [], "sampled": [], "logp": [],
         **member(1.0, ("search[mug]", "a [SEP] b"), BAD, goals=("search for mug", "buy it"))},
        {"blueprint": "", "invalid": "EMPTY", "tokens": [], "sampled": [], "logp": [], **member(0.0)},
    ]},
    "micro": {"blueprint": "\nsearch for mug\nbuy it", "members": [
        member(0.25, ("a", "b")), member(0.75, ("search[mug]", "page"), ("click[buy now]", "done"))]},
}  # fmt: skip


def test_cards_by_hand():
    assert is_text(RECORD)
    made = cards(RECORD)
    assert [c["name"] for c in made] == ["z1", "z2", "τ1", "τ2"]
    assert made[0]["title"] == "z1, solved, return 1.00, advantage +0.50"
    assert made[0]["steps"] == [
        {"goal": 0, "action": "search[mug]", "seen": ["a", "b"]},
        {"goal": 1, "action": BAD[0], "seen": ["Back", "<b>mug</b>"]},
    ]
    assert [g["text"] for g in made[0]["goals"]] == ["search for mug", "buy it", "rest"]
    assert made[0]["goals"][2]["end"] == ""  # not reached
    assert made[1]["note"] == "the blueprint has no sub-goal"


def test_the_player_makes_cards_of_a_record_in_words():
    player = RolloutPlayer(RECORD)
    assert isinstance(player, CardPlayer)
    assert player.shown == [3]  # the highest return of the micro group
    player.show(RECORD, "macro", 0, beside=("micro", 0))
    assert player.shown == [0, 2]
    assert "  > search[mug]" in player.words()
    assert player.picture().startswith(b"\x89PNG")
    json.dumps(player.data)


def test_the_explorer_reads_pages_as_states():
    data = level_data(RECORD)
    bought, other = data["micros"]["0"]
    assert [m["steps"] for m in (bought, other)] == [1, 2]
    assert bought["states"][0] == other["states"][0]  # both begin at the same page
    assert other["states"][1] not in bought["states"]
    assert other["chips"] == [["search[mug] ", 0], ["click[buy now] ", 1], ["■ ", None]]
    assert data["macro"][0]["rets"] == {"recorded": 1.0, "success": 1.0, "shaped": 1.0}
    assert data["macro"][1]["rets"]["shaped"] == 0.0
    assert AdvantageExplorer(RECORD).advantages["micro"] == pytest.approx([-1, 1], abs=1e-4)


def test_an_explorer_of_a_text_task_has_a_picture_without_a_board():
    explorer = AdvantageExplorer(RECORD)
    assert explorer.picture().startswith(b"\x89PNG")
    assert "z1 (z*): return 1.00" in explorer.words()


def test_a_player_refuses_what_it_cannot_show():
    with pytest.raises(RunError, match="there is no member 9: this macro group has 2 members"):
        RolloutPlayer(RECORD, "macro", 9)
    with pytest.raises(RunError, match="there is no member 9"):
        RolloutPlayer(RECORD, beside=("micro", 9))
    with pytest.raises(RunError, match="which has no board"):
        playback(RECORD)
    for player, other in ((RolloutPlayer(RECORD), records()[0]), (RolloutPlayer(records()[0]), RECORD)):
        with pytest.raises(RunError, match="another kind of task"):
            player.show(other)


def test_flat_play_has_no_blueprint():
    played = member(0.0, ("look", "x"), goals=("",))
    (card,) = cards({"level": "", "title": "", "micro": {"blueprint": None, "members": [played]}})
    assert card["goals"] == [{"text": "(flat play)", "end": "over"}]


@pytest.mark.parametrize("name", ["cards.js"])
def test_nothing_from_a_model_becomes_markup(name):
    from himac_lite.widgets.base import STATIC

    assert "innerHTML" not in (STATIC / name).read_text("utf-8")
