"""WebShop as a text task: rollouts of written actions, a running shop over HTTP, and what goes wrong there."""

from __future__ import annotations

import time
from http.server import BaseHTTPRequestHandler

import numpy as np
import pytest
from webshop_server import application, running

from himac_lite.config import Train
from himac_lite.errors import TaskError
from himac_lite.rollout.evaluate import play_random, score
from himac_lite.rollout.play import Arena
from himac_lite.rollout.rules import ReturnRule
from himac_lite.runs.records import level_record
from himac_lite.tasks import Describes
from himac_lite.tasks.registry import for_task, load_items, task_of
from himac_lite.tasks.text import MAX_OBSERVATION, parse_blueprint, prompt, written_plan
from himac_lite.tasks.webshop import task as webshop
from himac_lite.tasks.webshop.live import LiveSession, read_page
from himac_lite.tasks.webshop.task import LiveGoal, WebShopTask, open_shop
from himac_lite.types import End, Group, Invalid, Role, SubGoal

TASK = WebShopTask(max_action_tokens=400)  # the tokenizer of these tests knows few words
SCORE = ReturnRule(progress_share=1.0)


@pytest.fixture(scope="module")
def goals():
    return webshop.load("webshop/validation")


def script(item, *changes: tuple[str, str]) -> list[str]:
    """What a buyer writes in each segment of the oracle's blueprint; (text, other text) to be put in its place."""
    bought = item.goal
    out = [f" search[{item.noun} {' '.join(bought.attributes)}]\n<sub_done>"]
    out.append(f" click[{bought.asin}]\n<sub_done>")
    out += [f" click[{value}]\n<sub_done>" for _, value in bought.options]
    out.append(" click[buy now]\n")
    for old, new in changes:
        out = [text.replace(old, new) for text in out]
    return out


# ---- rollouts ----------------------------------------------------------------------------------------------------


def found_on_the_first_page(goals):
    """A goal whose product the oracle's search shows on its first page."""
    for item in goals:
        engine = open_shop(item.shop)[1]
        if item.goal.asin in {p.asin for p in engine(f"{item.noun} {' '.join(item.goal.attributes)}")[:10]}:
            return item
    raise AssertionError("no such goal")


def test_the_oracles_blueprint_is_executed(goals, scripted):
    item = found_on_the_first_page(goals)
    policy = scripted(*script(item))
    (episode,) = Arena(policy, TASK, returns=SCORE).execute([(item, TASK.oracle(item))])
    assert [s.end for s in episode.segments] == [*[End.SUB_DONE] * (len(episode.segments) - 1), End.SUCCESS]
    assert (episode.success, episode.ret, episode.progress, episode.steps) == (True, 1.0, 1.0, TASK.difficulty(item))
    assert [action for action, _ in episode.transcript] == episode.moves.split("\n")
    assert episode.transcript[0][1].startswith("Back to Search [SEP] Page 1")
    opening = policy.prompts[1]
    assert opening.startswith(f"<act>\nInstruction: [SEP] {item.title} [SEP] Back to Search [SEP] Page 1")
    assert opening.endswith(f"\nSub-goal: {TASK.oracle(item).subgoals[1].text}\n>")


def test_a_purchase_that_is_not_quite_right_ends_the_episode_with_its_score(goals, scripted):
    item = found_on_the_first_page([g for g in goals if len(g.goal.options) == 2])
    value = item.goal.options[0][1]
    policy = scripted(*script(item, (f"click[{value}]\n", "")))
    (episode,) = Arena(policy, TASK, returns=SCORE).execute([(item, TASK.oracle(item))])
    parts = len(item.goal.attributes) + 2 + 1
    assert episode.segments[-1].end is End.OVER
    assert (episode.success, episode.ret) == (False, pytest.approx((parts - 1) / parts))
    wrong = scripted(*script(item, (f"click[{value}]\n", "")))
    assert Arena(wrong, TASK).execute([(item, TASK.oracle(item))])[0].ret == 0.0


def test_nonsense_costs_a_step_and_changes_nothing(goals, scripted):
    written = " think about it\n\n click[" + "x" * 300 + "]\n search[]\n Click[search]\n click[buy now]\n"
    task = WebShopTask(max_steps=7, max_action_tokens=400)
    (episode,) = Arena(scripted(written + " a\n" * 20), task, returns=SCORE).play_flat([goals[0]])
    assert (episode.steps, episode.ret, episode.segments[0].end) == (7, 0.0, End.TRUNCATED)
    assert episode.transcript[0] == (
        "think about it",
        f"WebShop [SEP] Instruction: [SEP] {goals[0].title} [SEP] Search",
    )
    assert episode.transcript[1][0] == ""  # an empty line is an action, too
    assert episode.transcript[2][0].startswith("click[xx")
    assert len({seen for _, seen in episode.transcript}) == 1


def test_only_what_the_model_wrote_is_learnt_from(goals, scripted):
    (episode,) = Arena(scripted(" a\n b\n"), WebShopTask(max_steps=2), returns=SCORE).play_flat([goals[0]])
    (segment,) = episode.segments
    own = scripted()
    chosen = [i for i, mine in zip(segment.ids, segment.action_mask, strict=True) if mine]
    assert own.text(chosen) == " a\n b\n"
    assert segment.text == f" a\n{episode.transcript[0][1]}\n> b\n"
    assert TASK.actions == ()
    assert segment.allowed is None


def test_blueprints_are_lines(goals, scripted):
    plans = Arena(scripted("\nsearch for a mug\nbuy it<end>", "<end>"), TASK).blueprints(goals[:2], 1)
    assert [z.invalid for _, z in (plans[0][0], plans[1][0])] == [None, Invalid.EMPTY]
    assert plans[0][0][1].subgoals == (SubGoal("search for a mug"), SubGoal("buy it"))


def test_a_chat_reads_the_rules_and_the_page(goals):
    """What an instruct model is told: the rules of the shop, and for each role what it should answer."""
    episode = TASK.start(goals[0])
    assert isinstance(episode, Describes)
    planner, executor = episode.describe(Role.PLANNER), episode.describe(Role.EXECUTOR, SubGoal("buy it"))
    assert "one sub-goal a line, at most 12 lines" in planner.rules
    assert planner.rules.endswith("choose color: navy\nbuy it")
    assert planner.situation == f"WebShop [SEP] Instruction: [SEP] {goals[0].title} [SEP] Search"
    assert "or with <sub_done> when the sub-goal is reached" in executor.rules
    assert executor.situation == f"{planner.situation}\nSub-goal: buy it"
    assert "sub_done" not in episode.describe(Role.FLAT).rules


@pytest.mark.parametrize(
    ("text", "finished", "reason"),
    [
        ("a\nb", False, Invalid.UNFINISHED), (" \n\n", True, Invalid.EMPTY), ("a\n" * 13, True, Invalid.TOO_LONG),
        ("a\n" * 12, True, None), ("x" * 240, True, None), ("x" * 241, True, Invalid.LONG_LINE),
        ("a\n" * 50_000, True, Invalid.TOO_LONG), ("x" * 100_000, True, Invalid.LONG_LINE),
    ],
)  # fmt: skip
def test_a_blueprint_is_read_without_an_exception(text, finished, reason):
    z = parse_blueprint(text, finished)
    assert z.invalid is reason
    assert bool(z.subgoals) is (reason is None)
    assert parse_blueprint(written_plan(["a", "b"]).text).subgoals == (SubGoal("a"), SubGoal("b"))


def test_a_long_observation_is_cut():
    assert prompt(Role.FLAT, "x" * (MAX_OBSERVATION + 1)).endswith("xx [...]\n>")


def test_random_play_and_scores(goals):
    same = [[t.moves for t in play_random(TASK, goals[:4], 0)] for _ in range(2)]
    assert same[0] == same[1]
    scored = score("random", TASK, goals[:6], play_random(TASK, goals[:6], 0, SCORE))
    assert scored.n == 6
    assert set(scored.by_length) <= {"0-3", "4-4", "5-5", "6+"}
    assert 0 <= scored.mean_progress <= 1
    assert scored.mean_return == pytest.approx(scored.mean_progress)


def test_records_keep_the_pages(goals, scripted):
    (episode,) = Arena(scripted(" search[mug]\n"), WebShopTask(max_steps=1), returns=SCORE).play_flat(goals[:1])
    record = level_record(Group(goals[0], (episode,)), [0.0], lambda ids: "")
    assert record["title"] == goals[0].title
    assert record["micro"]["members"][0]["transcript"] == [["search[mug]", episode.transcript[0][1]]]


def test_settings_of_the_task():
    config = for_task(Train(), "webshop")
    assert (config.rollout.max_steps, config.train_levels, config.rollout.progress_share) == (15, "webshop/train", 1.0)
    assert isinstance(task_of("webshop", 15, 6), WebShopTask)
    assert len(load_items("webshop", "webshop/test")) == 210


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("webshop/tests", "webshop/train"), ("no/such.json", "a catalogue file or an address"),
        ("http://127.0.0.1:9", "name goals"),
        ("http://127.0.0.1:9#5-2", "name goals"), ("http://127.0.0.1:9#0-1", "did not answer"),
    ],
)  # fmt: skip
def test_sources_that_there_are_not(source, said):
    with pytest.raises(TaskError, match=said):
        webshop.load(source)


# ---- a running shop ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(goals):
    catalogue, _ = open_shop(goals[0].shop)
    with running(application(catalogue, [g.goal for g in goals[:8]])) as address:
        yield address


def test_the_live_pages_are_those_of_our_shop(goals, server):
    """Random clicks in both: the same texts, the same things to click, the same score."""
    rng = np.random.default_rng(0)
    for number in range(4):
        ours, live = goals[number].enter(), LiveSession(server, number)
        assert live.instruction == goals[number].title
        for _ in range(25):
            assert live.page.texts == ours.page.texts or ours.score is not None
            assert set(live.page.clickables) == set(ours.page.clickables)
            assert live.score == ours.score
            if ours.score is not None:
                assert goals[number].goal.asin not in live.page.text  # the page with the hidden goal is not shown
                break
            clicks = [f"click[{c}]" for c in ours.page.clickables] + [f"search[{goals[number].noun}]", "click[x]", "y"]
            action = clicks[int(rng.integers(len(clicks)))]
            assert live.act(action) == ours.act(action), action


def test_goals_of_a_running_shop_are_items(server, goals, scripted):
    items = webshop.load(f"{server}#2-4")
    assert [i.title for i in items] == [g.title for g in goals[2:5]]
    assert TASK.difficulty(items[0]) == 0
    with pytest.raises(TaskError, match="hides its goals"):
        TASK.oracle(items[0])
    played = scripted("".join(script(goals[2])).replace("<sub_done>", ""))
    (episode,) = Arena(played, TASK, returns=SCORE).play_flat(items[:1])
    assert episode.steps <= 15


def test_words_of_a_query_do_not_leave_the_shop(server):
    it = LiveSession(server, 0)
    assert it.act("search[../../mug/<r> x]")
    assert it.page.texts[3].startswith("Page 1 (Total results: ")
    assert not it.act("search[///]")
    assert not it.act("click[" + "x" * 100_000 + "]")
    assert it.score is None


def test_a_server_that_is_gone_ends_the_episode_and_not_the_run(goals, scripted):
    catalogue, _ = open_shop(goals[0].shop)
    with running(application(catalogue, [goals[0].goal])) as address:
        it = LiveSession(address, 0, timeout=1)
        assert LiveSession(address, 7).lost == "the shop has no such goal"
    assert not it.act("search[mug]")
    assert (it.score, it.page.text) == (0.0, "The shop does not answer.")
    assert it.lost
    dead = LiveGoal(address, 0, "anything")
    for episode in Arena(scripted(), TASK, returns=SCORE).play_flat([dead]):
        assert (episode.ret, episode.steps, episode.success) == (0.0, 0, False)


def test_a_server_that_hangs_or_talks_nonsense():
    class Odd(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if "slow" in self.path:
                time.sleep(0.5)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(
                b"\xff\xfe<form><a class=product-link href='http://example.invalid/'>away</a><h4 id=reward>no number"
            )

        def log_message(self, *args: object) -> None:
            pass

    with running(Odd) as address:
        assert LiveSession(f"{address}/slow", 0, timeout=0.1).score == 0.0
        it = LiveSession(address, 0)
        assert (it.score, it.instruction) == (None, "")
        assert not any(it.act(f"click[{label}]") for label in it.page.clickables)  # nothing leads out of the shop


def test_reading_a_page():
    page = read_page('<h4>a</h5><p>b<script>c</script></p><div id="reward"><pre>1.5</pre></div>')
    assert (page.texts, page.reward) == (["a", "b", "1.5"], 1.0)
