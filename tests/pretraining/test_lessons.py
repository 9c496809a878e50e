"""Lessons as tokens, the tokenizer, and a base model of a few steps that is trained on: the whole path, small."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from himac_lite import cli, storage
from himac_lite.config import TRAIN_PRESETS, Pretrain, Train, as_dict, from_dict
from himac_lite.errors import ConfigError, ModelError
from himac_lite.pretraining import driver
from himac_lite.pretraining import lessons as making
from himac_lite.pretraining import webshop as players
from himac_lite.pretraining.lessons import Lesson, Players, Step, lesson_batches, plan_lesson, play_lesson, tokens
from himac_lite.pretraining.scripted import play_scripted
from himac_lite.pretraining.tokenizers import build_text_tokenizer
from himac_lite.rollout.evaluate import score
from himac_lite.runs.training import resolve_model
from himac_lite.tasks.registry import for_task
from himac_lite.tasks.sokoban.solver import solve
from himac_lite.tasks.webshop import task as webshop
from himac_lite.tasks.webshop.catalogue import Product
from himac_lite.types import Role

TINY = Pretrain(width=64, layers=1, heads=1, batch_tokens=4096, expert_steps=2, mixed_steps=1, habit_steps=1)


# ---- lessons -----------------------------------------------------------------------------------------------------


def test_a_plan_is_learnt_with_its_end():
    assert plan_lesson("a room", ["take", "put"]).pieces == (
        ("<plan>\na room\nPlan:", False), ("\ntake\nput<end>", True),
    )  # fmt: skip


def test_a_segment_is_learnt_but_for_what_the_environment_says():
    steps = [Step("go", "you go"), Step("slip", "oh", learn=False), Step("take", "taken")]
    assert play_lesson(Role.EXECUTOR, "a room", steps, "take it", sub_done=True).pieces == (
        ("<act>\na room\nSub-goal: take it\n>", False), (" go\n", True), ("you go\n>", False), (" slip\n", False),
        ("oh\n>", False), (" take\n", True), ("taken\n>", False), ("<sub_done>", True),
    )  # fmt: skip
    flat = play_lesson(Role.FLAT, "a room", steps)
    assert flat.text == "<play>\na room\n> go\nyou go\n> slip\noh\n> take\n"  # nothing is read after the end


def test_lessons_are_tokens_as_rollouts_make_them(text_tokenizer):
    def encode(text: str) -> list[int]:
        return list(text_tokenizer(text, add_special_tokens=False).input_ids)

    lesson = play_lesson(Role.FLAT, "x", [Step("go to desk 12", "you é"), Step("take", "")])
    ids, learn = tokens(lesson, encode)
    assert text_tokenizer.decode(ids) == lesson.text
    chosen = [i for i, mine in zip(ids, learn, strict=True) if mine]
    assert text_tokenizer.decode(chosen) == " go to desk 12\n take\n"
    assert text_tokenizer.decode([chosen[-1]]) == "\n"
    assert len(encode("\n\n12<sub_done>")) == 5  # line breaks and marks stand alone; 12 was not read before


def test_what_a_page_offers_is_spelled_as_a_click_spells_it():
    text = "Instruction: [SEP] with color: navy [SEP] HL0294 [SEP] navy [SEP] $20.99\n> click[HL0294]\n> click[navy]\n"
    tokenizer = build_text_tokenizer([text] * 2, 500)
    pieces = [tokenizer.decode([i]) for i in tokenizer(text, add_special_tokens=False).input_ids]
    assert pieces == [
        "Instruction", ": [SEP] ", "with", " color", ": ", "navy", " [SEP] ", "HL", "02", "94", " [SEP] ", "navy",
        " [SEP] ", "$", "20", ".", "99", "\n", ">", " click", "[", "HL", "02", "94", "]", "\n", ">", " click", "[",
        "navy", "]", "\n",
    ]  # fmt: skip


def test_batches_are_full_and_right_padded(monkeypatch):
    monkeypatch.setattr(making, "LONGEST", 80)
    monkeypatch.setattr(making, "BUCKET", 32)
    lessons = (Lesson(Role.FLAT, ((f"{'p' * (k % 90)}", False), ("aa", True))) for k in itertools.count())
    stream = lesson_batches(lessons, lambda text: [1 + ord(c) % 7 for c in text], 256, np.random.default_rng(0))
    for ids, learn in itertools.islice(stream, 30):
        assert ids.shape == learn.shape
        assert ids.shape[1] in (32, 64, 96)
        assert ids.size <= 256
        assert (learn.sum(1) == 2).all()
        assert all(row[~(row != 0).cumprod().astype(bool)].sum() == 0 for row in ids)  # nothing after the first 0


def test_in_a_reading_batch_all_is_learnt_but_the_padding():
    lessons = (Lesson(Role.FLAT, (("p" * (20 + k % 9), False), ("aa", True))) for k in itertools.count())
    made = lesson_batches(lessons, lambda text: [1] * len(text), 64, np.random.default_rng(0), reading=0.5)
    kinds = [
        (learn.sum() == (ids != 0).sum(), learn.sum() == 2 * len(ids)) for ids, learn in itertools.islice(made, 40)
    ]
    assert set(kinds) == {(True, False), (False, True)}


# ---- scripted buyers ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def goals():
    return [item for item in webshop.load("webshop/train") if isinstance(item, webshop.ShopGoal)]


def test_an_expert_scores_high_and_beginners_do_not(goals):
    rng, scores = np.random.default_rng(0), {"expert": [], "hasty": [], "forgetful": [], "vague": []}
    for item in goals[:60]:
        for who, out in scores.items():
            episode = webshop.WebShopTask().start(item)
            for goal in players.plan_by(who, item, item.noun, rng):
                players.play(episode, goal, rng)
            assert episode.over
            assert episode.steps <= webshop.MAX_STEPS
            out.append(episode.progress)
    mean = {who: float(np.mean(out)) for who, out in scores.items()}
    assert mean["expert"] > 0.95
    assert mean["hasty"] < 0.6
    assert mean["hasty"] < mean["forgetful"] < mean["expert"]
    assert np.mean([s == 1 for s in scores["expert"]]) > 0.85
    assert np.mean([s == 1 for s in scores["forgetful"]]) < 0.2


def test_scripted_buyers_are_a_baseline(goals):
    expert, hasty = (score("scripted", webshop.WebShopTask(), goals[:40], play_scripted("webshop", goals[:40], who))
                     for who in ("expert", "hasty"))  # fmt: skip
    assert expert.mean_progress > 0.95 > 0.6 > hasty.mean_progress
    assert expert.n == sum(int(b["n"]) for b in expert.by_length.values())
    with pytest.raises(ConfigError, match="no scripted player 'hasty'; choose one of expert"):
        play_scripted("sokoban", goals, "hasty")
    with pytest.raises(ConfigError, match="hides its goals"):
        play_scripted("webshop", [webshop.LiveGoal("http://x", 1, "a mug")])


def test_the_solver_is_a_baseline_of_sokoban(toy_levels):
    played = play_scripted("sokoban", toy_levels)
    assert [(t.success, t.steps) for t in played] == [(True, solve(level).moves) for level in toy_levels]


def test_shopping_lessons_are_in_all_three_formats(goals):
    stream = players.lessons(goals, np.random.default_rng(0), Players(0.5))
    seen = [next(stream) for _ in range(30)]
    assert {lesson.role for lesson in seen} == {Role.PLANNER, Role.EXECUTOR, Role.FLAT}
    again = players.lessons(goals, np.random.default_rng(0), Players(0.5))
    assert [next(again) for _ in range(30)] == seen
    for lesson in seen:
        if lesson.role is Role.EXECUTOR:
            assert "\nSub-goal: " in lesson.pieces[0][0]


@pytest.mark.parametrize("unknown", [0.0, 1.0])
def test_all_that_a_buyer_does_can_be_copied(goals, unknown):
    """What is clicked, and every word that is searched for, stands in what the lesson showed before."""
    stream = players.lessons(goals, np.random.default_rng(1), Players(0.5, unknown))
    for lesson in itertools.islice(stream, 60):
        read = ""
        for text, learnt in lesson.pieces:
            if learnt and text.startswith(" click["):
                assert text.strip()[6:-1] in read, lesson.text
            elif learnt and text.startswith(" search["):
                assert set(text.strip()[7:-1].split()) <= set(re.findall(r"[a-z0-9-]+", read)), lesson.text
            read += text


def test_numbers_are_drawn_anew_one_for_each():
    page = "[SEP] HL0001 [SEP] mug [SEP] HL0002 [SEP] cup"
    lesson = plan_lesson(f"{page} [SEP] HL0001", ["open HL0002"])
    first, second = (players.renumbered(lesson, np.random.default_rng(seed)).text for seed in (0, 1))
    assert first != second
    for text in (first, second):
        one, two, again, opened = players.NUMBER.findall(text)
        assert (one, two) == (again, opened)
        assert one != two
        assert players.NUMBER.sub("HL", text) == players.NUMBER.sub("HL", lesson.text)


def test_a_thorough_buyer_searches_for_the_options_too(goals):
    item = next(item for item in goals if len(item.goal.options) == 2)
    (_, first), (_, second) = item.goal.options
    rng = np.random.default_rng(0)
    plan, usual = (players.plan_by(who, item, item.noun, rng) for who in ("thorough", "expert"))
    assert plan[0] == f"{usual[0]} {first} {second}"
    assert plan[1:] == usual[1:]


def test_without_insight_a_buyer_goes_by_titles_and_prices():
    def product(asin: str, title: str, price: float, *attributes: str) -> Product:
        return Product(asin, title, "", "mug", "", "", (), (price,), {"color": ("teal",)}, attributes, "", ())

    results = [
        product("A", "mug, light", 30.0, "leak proof"),  # leak proof, but only its own page says so
        product("B", "mug, leak proof", 30.0),  # too dear
        product("C", "mug, leak proof", 10.0),
    ]
    told = "open a mug that is leak proof under 20.00 dollars"
    assert players._best(results, told, None) == 2
    assert players._best(results[:2], told, None) == 1
    assert players._best(results[:2], "open a mug that is leak proof", ["teal"]) == 0


# ---- the whole path ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A base model of four batches: it can play nothing."""
    out = tmp_path_factory.mktemp("base") / "webshop-base"
    said: list[str] = []
    found = driver.pretrain(replace(players.RECIPE, validation=0), TINY, out, said.append)
    return out, found, said


def test_a_base_model_is_made_from_scripts(base):
    out, found, said = base
    assert found == {}  # not measured: that is the slow test below
    assert json.loads((out / "pretrain.json").read_text())["task"] == "webshop"
    assert "webshop-base: half-competent" in (out / "README.md").read_text()
    assert any(line.startswith("bad habits 1/1: loss") for line in said)
    assert not (out / "unfinished").exists()


@pytest.mark.slow
def test_a_base_model_is_measured(base):
    found = driver.measured(replace(players.RECIPE, validation=2), base[0])
    assert {"greedy_himac", "greedy_flat", "executor_on_oracle", "pass4_flat"} <= set(found)
    assert all(0 <= share <= 1 for share in found.values())


def test_it_is_trained_and_evaluated_by_the_command_line(base, tmp_path, capsys):
    out, _, _ = base
    small = ["rollout.levels=2", "rollout.group=2", "rollout.max_steps=2", "test_limit=2", "validate_on=2"]
    for variant in ("himac", "flat_grpo"):
        run = tmp_path / variant
        argv = ["train", "--task", "webshop", "--model", str(out), "--variant", variant, "--iterations", "1"]
        sets = [a for s in (*small, "probe_levels=1", "model.rank=4") for a in ("--set", s)]
        assert cli.main([*argv, *sets, "--out", str(run), "--json"]) == 0
        results = json.loads(capsys.readouterr().out)
        assert results["levels"] == "webshop/test"
        assert results["trained"]["n"] == 2
        assert 0 <= results["trained"]["mean_progress"] <= 1
        assert cli.main(["evaluate", str(run), "--limit", "2", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["levels"] == "webshop/test"
        members = [m for line in (run / "rollouts" / "000001.jsonl").read_text().splitlines()
                   for m in json.loads(line)["micro"]["members"]]  # fmt: skip
        assert all(len(m["transcript"]) == m["steps"] for m in members if m["steps"])


def test_what_is_not_there_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "webshop").symlink_to(storage.data_dir() / "webshop")
    monkeypatch.setattr("himac_lite.storage.data_dir", lambda: tmp_path)  # where no base is shipped
    assert cli.main(["train", "--task", "alfworld", "--levels", "no/such", "--out", "x"]) == 2
    assert cli.main(["evaluate", "webshop-base", "--task", "webshop"]) == 2
    first, second = [line for line in capsys.readouterr().err.splitlines() if line.startswith("himac-lite: ")]
    assert "ALFWorld is not installed" in first or "holds no game" in first
    assert "himac-lite pretrain --task webshop" in second
    with pytest.raises(ModelError, match="himac-lite pretrain --task webshop"):
        resolve_model("webshop-base")
    assert resolve_model("some/hub-base") == "some/hub-base"


def test_a_tasks_settings_leave_what_a_preset_chose():
    assert for_task(Train(), "sokoban") == Train()
    shop = for_task(Train(), "webshop")
    assert (shop.model.path, shop.rollout.max_steps, shop.rollout.subgoal_budget) == ("webshop-base", 15, 6)
    house = for_task(TRAIN_PRESETS["colab"], "alfworld")
    assert house.model.path == TRAIN_PRESETS["colab"].model.path
    assert (house.rollout.max_steps, house.train_levels, house.rollout.progress_share) == (50, "household/train", 0.0)
    with pytest.raises(ConfigError, match="unknown task 'chess'"):
        for_task(Train(), "chess")
    old = {name: value for name, value in as_dict(Train()).items() if name != "task"}
    assert from_dict(old) == Train()  # a run from before there were tasks
