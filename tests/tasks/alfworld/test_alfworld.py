"""ALFWorld: our houses and their twin without the engine; then the engine itself, where it is installed."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

from himac_lite import cli
from himac_lite.config import Pretrain
from himac_lite.errors import TaskError
from himac_lite.pretraining import alfworld as players
from himac_lite.pretraining import driver
from himac_lite.pretraining.scripted import play_scripted
from himac_lite.rollout.evaluate import play_random
from himac_lite.rollout.play import Arena
from himac_lite.storage import data_dir
from himac_lite.tasks.alfworld import generator
from himac_lite.tasks.alfworld import task as alfworld
from himac_lite.tasks.alfworld.house import (
    LIGHT,
    TASKS,
    TOOL,
    TWO,
    House,
    can_contain,
    from_text,
    identifiers,
    kind,
    solution,
    subgoals_of,
)
from himac_lite.tasks.alfworld.task import AlfworldTask, GameFile, HouseGame, our_games
from himac_lite.tasks.alfworld.twin import NOTHING, Twin, listed
from himac_lite.types import End, Role

FOLDER = data_dir() / "household"
TASK = AlfworldTask(max_action_tokens=200)  # the tokenizer of these tests knows few words
MUG = House(
    "pick_clean_then_place_in_recep", "mug", "countertop", ("fridge 1", "sinkbasin 1", "countertop 1", "cabinet 1"),
    (("mug 1", "cabinet 1"), ("apple 1", "countertop 1"), ("egg 1", "fridge 1")),
)  # fmt: skip
WINS = [
    "go to cabinet 1", "open cabinet 1", "take mug 1 from cabinet 1", "go to sinkbasin 1",
    "clean mug 1 with sinkbasin 1", "go to countertop 1", "move mug 1 to countertop 1",
]  # fmt: skip
engine = pytest.mark.skipif(
    find_spec("alfworld") is None, reason="ALFWorld is not installed: pip install 'himac-lite[alfworld]'"
)


# ---- houses ------------------------------------------------------------------------------------------------------


def test_a_solution_by_hand():
    assert solution(MUG) == WINS
    assert [g.text for g in subgoals_of(WINS)] == [
        "find and take a mug", "clean the mug with the sinkbasin", "put the mug on the countertop"
    ]  # fmt: skip
    assert MUG.title == "put a clean mug on the countertop"
    assert HouseGame(MUG).commands == tuple(WINS)
    assert TASK.difficulty(HouseGame(MUG)) == 7


def test_two_things_are_fetched_one_after_the_other_and_a_door_is_opened_once():
    pens = (("pen 1", "drawer 1"), ("pen 2", "drawer 1"))
    house = House(TWO, "pen", "desk", ("desk 1", "drawer 1"), pens)
    assert solution(house) == [
        "go to drawer 1", "open drawer 1", "take pen 1 from drawer 1", "go to desk 1", "move pen 1 to desk 1",
        "go to drawer 1", "take pen 2 from drawer 1", "go to desk 1", "move pen 2 to desk 1",
    ]  # fmt: skip
    assert [g.text for g in subgoals_of(solution(house))][2] == "find and take another pen"


def test_identifiers_are_numbered_from_the_last():
    assert identifiers(["cabinet 1", "cabinet 2", "sinkbasin 1"]) == {
        "cabinet 1": "cabinet_bar_02", "cabinet 2": "cabinet_bar_01", "sinkbasin 1": "sink_bar_01_bar_sinkbasin",
    }  # fmt: skip


def test_a_house_is_text_and_back():
    assert from_text(MUG.text) == MUG
    broken = MUG.text.replace("fridge", "freezer")
    for text in ("", "[]", "{}", '{"task": 3}', MUG.text.replace("pick_clean", "pick_dirty"), broken):
        with pytest.raises(TaskError, match="not a household game"):
            from_text(text)


def test_the_shipped_games_are_those_of_the_manifest_and_of_the_seed(tmp_path):
    manifest = json.loads((FOLDER / "manifest.json").read_text())
    assert {n: hashlib.sha256((FOLDER / n).read_bytes()).hexdigest() for n in manifest["sha256"]} == manifest["sha256"]
    generator.write(tmp_path, manifest["seed"])
    for file in sorted(FOLDER.iterdir()):
        assert (tmp_path / file.name).read_bytes() == file.read_bytes(), file.name


def test_every_part_has_all_task_types_and_no_game_twice():
    games = {part: our_games(part) for part in ("train", "validation", "test")}
    assert {part: len(g) for part, g in games.items()} == {"train": 240, "validation": 48, "test": 96}
    for items in games.values():
        assert {g.house.task for g in items} == set(TASKS)
    texts = [g.text for items in games.values() for g in items]
    assert len(texts) == len(set(texts))


def test_every_shipped_game_is_won_by_its_solution_and_not_before():
    for part in ("train", "validation", "test"):
        for game in our_games(part):
            twin = Twin(game.house)
            answers = [(twin.won, twin.act(command)) for command in game.commands]
            assert not any(won for won, _ in answers), game.text
            assert NOTHING not in {said for _, said in answers}, game.text
            assert twin.won, game.text
            assert len(game.commands) <= 14


def test_demonstrated_houses_are_new_and_none_of_those_held_out(monkeypatch):
    first = list(itertools.islice(generator.stream(np.random.default_rng(0), set()), 40))
    assert len({house.text for house in first}) == 40
    assert {house.task for house in first} == set(TASKS)
    assert max(len(house.things) for house in first) > 10  # fuller than the games that are played
    held_out = {house.text for house in first[::2]}
    rest = list(itertools.islice(generator.stream(np.random.default_rng(0), held_out), 20))
    assert rest == first[1::2]

    def intros() -> set[str]:
        lessons = players._housekeeping(np.random.default_rng(0), players.Players())
        return {
            lesson.text.split("Plan:")[0] for lesson in itertools.islice(lessons, 60) if lesson.role is Role.PLANNER
        }

    before = intros()
    house = next(generator.stream(np.random.default_rng(0), set()))
    assert any(Twin(house).intro in intro for intro in before)
    monkeypatch.setattr(alfworld, "our_games", lambda part: [HouseGame(house)] if part == "test" else [])
    assert not any(Twin(house).intro in intro for intro in intros())


def test_things_may_be_where_they_are():
    for game in our_games("train"):
        for name, place in game.house.things:
            assert can_contain(kind(place), kind(name)), (name, place)


# ---- the twin ----------------------------------------------------------------------------------------------------


def test_the_twin_by_hand():
    twin = Twin(MUG)
    assert twin.intro.endswith("\nYour task is to: put a clean mug on the countertop.")
    assert twin.act("go to cabinet 1") == "You arrive at cabinet 1. The cabinet 1 is closed."
    assert twin.act("take mug 1 from cabinet 1") == NOTHING
    assert twin.act("open cabinet 1") == "You open the cabinet 1. The cabinet 1 is open. In it, you see a mug 1."
    assert twin.act("take mug 1 from cabinet 1") == "You pick up the mug 1 from the cabinet 1."
    assert twin.act("inventory") == "You are carrying: a mug 1."
    assert twin.act("move mug 1 to countertop 1") == NOTHING  # it is elsewhere
    assert twin.act("go to countertop 1") == "You arrive at countertop 1. On the countertop 1, you see a apple 1."
    assert twin.act("move mug 1 to countertop 1") == "You move the mug 1 to the countertop 1."
    assert not twin.won  # it is not clean
    assert listed(["a", "b", "c"]) == "a a, a b, and a c"


@pytest.mark.parametrize(
    "command", ["", "fly", "go to moon 1", "take", "move  to ", "use mug 1", "clean with", "look x", "treat x y"]
)
def test_the_twin_never_raises(command):
    twin = Twin(MUG)
    assert twin.act(command) == NOTHING or command == "look x"


def test_an_expert_wins_and_a_forgetful_player_often_does_not():
    rng = np.random.default_rng(0)
    won = {"expert": 0, "forgetful": 0, "confused": 0}
    for game in our_games("validation"):
        for who in won:
            twin = Twin(game.house)
            steps = players.play(twin, players.plan_by(who, game.house, rng), rng)
            assert len(steps) <= 50
            won[who] += twin.won
    assert won["expert"] == 48
    assert won["forgetful"] < 24
    assert won["confused"] == 0
    for _ in range(8):  # it is the treatment that is forgotten, whatever is drawn
        assert players.plan_by("forgetful", MUG, rng) == ["find and take a mug", "put the mug on the countertop"]


def test_lessons_show_all_roles():
    stream = players.lessons((g.house for g in our_games("train")), np.random.default_rng(0), 0.5)
    seen = [next(stream) for _ in range(60)]
    assert {lesson.role for lesson in seen} == {Role.PLANNER, Role.EXECUTOR, Role.FLAT}
    for lesson in seen:
        assert any(counts for _, counts in lesson.pieces)
        assert lesson.pieces[0][0].startswith(("<plan>", "<act>", "<play>"))
        for text, counts in lesson.pieces[1:]:
            assert counts is (text.startswith((" ", "<sub_done>")) or lesson.role is Role.PLANNER)


def test_an_errand_begins_where_something_lies_as_often_as_not_what_is_wanted():
    rng, at_once = np.random.default_rng(0), []
    for game in our_games("train")[:200]:
        lesson = players.errand(game.house, rng)
        if lesson is None:  # it lies only where it is to be put in the end: the player does not look there
            continue
        (first, _), *rest = lesson.pieces
        seen, wanted = re.search(r"you see (.+)\.\nSub-goal: find and take a (\S+)\n>", first).groups()
        actions = [text.strip() for text, counts in rest if counts]
        place = re.search(r"(?:at|the) (\S+ \d+)\. (?:On|The)", first)[1]
        assert actions[-1 if lesson.pieces[-1][0] != "<sub_done>" else -2].startswith(f"take {wanted} ")
        lies_here = f" {wanted} " in seen
        assert actions[0].startswith("take ") is lies_here
        assert not lies_here or actions[0].endswith(f" from {place}")
        at_once.append(lies_here)
    assert len(at_once) > 190
    assert 0.4 < np.mean(at_once) < 0.6


def test_a_glance_is_the_first_word_of_an_errand_without_the_room():
    roles = []
    for number, game in enumerate(our_games("train")[:60]):
        whole, glance = (players.errand(game.house, np.random.default_rng(number), short) for short in (False, True))
        if whole is None:
            assert glance is None
            continue
        assert glance.pieces[1:] == ((" " + whole.pieces[1][0].split()[0], True),)
        assert "Looking quickly" not in glance.text
        wanted = re.search(r"find and take a (\S+)", whole.text)[1]
        asked = "Your task is to: " if glance.role is Role.FLAT else "Sub-goal: "
        assert re.search(f"{asked}.*\\b{wanted}\\b", glance.text)
        roles.append(glance.role)
    assert 18 < roles.count(Role.FLAT) < 42
    (stage,) = (stage for stage in players.RECIPE.stages if stage.steps == "drill_steps")
    drill = players._housekeeping(np.random.default_rng(0), stage.players)
    assert {lesson.pieces[1] for lesson in itertools.islice(drill, 60)} == {(" take", True), (" go", True)}


# ---- the engine --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def by_type() -> dict[str, HouseGame]:
    return {game.house.task: game for game in our_games("validation")}


@engine
@pytest.mark.parametrize("task", TASKS)
def test_the_solution_wins_in_the_engine_and_the_reward_stays(by_type, task):
    game = by_type[task]
    episode = TASK.start(game)
    assert episode.aim == f"Your task is to: {game.title}."
    assert episode.room.startswith("You are in the middle of a room. Looking quickly around you, you see a ")
    for command in game.commands:
        assert not episode.success
        assert command in episode.legal()
        assert not episode.act(command).startswith(NOTHING)
    assert (episode.success, episode.over, episode.progress, episode.lost) == (True, True, 1.0, "")
    assert episode.steps == len(game.commands)
    other = (
        "look" if task == LIGHT else f"take {game.commands[-1].split()[1]} 1 from {game.commands[-1].split(' to ')[1]}"
    )
    episode.act(other)
    assert episode.success  # latched


@engine
def test_the_quickened_engine_says_the_same(tmp_path):
    """In a process of its own: all answers and admissible commands of a win and 30 random steps of each task type."""
    run = subprocess.run(
        [sys.executable, "-c", BOTH_WAYS], capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "PYTHONHASHSEED": "0", "ALFWORLD_DATA": str(tmp_path)},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    counts = json.loads(run.stdout.splitlines()[-1])
    assert counts["plain"] == counts["quick"]
    assert counts["answers"] > 6 * 30
    assert set(counts["verbs"]) >= {"clean", "close", "cool", "examine", "go", "heat", "move", "open", "take", "use"}
    assert counts["parsed"][0] > 20 * counts["parsed"][1]  # it was quickened indeed


BOTH_WAYS = """
import hashlib, itertools, json, random
from textworld.envs.pddl import textgen
from himac_lite.tasks.alfworld.quick import quicken
from himac_lite.tasks.alfworld.server import Game
from himac_lite.tasks.alfworld.task import our_games

games = our_games("validation")[:6]
assert len({game.house.task for game in games}) == 6
parsed = [0, 0]

class Counting(textgen.CSGParser):
    def parse(self, *args, **options):
        parsed[now] += 1
        return super().parse(*args, **options)

textgen._PARSER = Counting(semantics=textgen.CSGModelBuilderSemantics(), parseinfo=True)

def answers():
    out, rng = [], random.Random(0)
    for asked in games:
        game = Game(asked.told())
        for command in [*asked.commands, *[None] * 30]:
            command = command or rng.choice(game.state["admissible_commands"] + ["fly"])
            answer = game.answer({"act": command})
            out.append([command, answer["seen"], answer["commands"], answer["won"]])
    return out

now = 0
plain = answers()
quicken()
now = 1
quick = answers()
digest = [hashlib.sha256(json.dumps(found).encode()).hexdigest() for found in (plain, quick)]
verbs = sorted({command.split()[0] for command, *_ in plain})
print(json.dumps({"plain": digest[0], "quick": digest[1], "answers": len(plain), "verbs": verbs, "parsed": parsed}))
"""


@engine
def test_the_engines_planner_wins_every_type(by_type):
    for game in by_type.values():
        episode = TASK.start(game)
        plan = episode._connection.plan()
        assert plan, game.title
        for command in plan:
            episode.act(command)
        assert episode.success, (game.title, plan)


@engine
@pytest.mark.slow
@pytest.mark.parametrize("part", ["validation", "test", "train"])
def test_every_shipped_game_is_won_in_the_engine(part):
    """By the engine's own planner, and by the solution that comes with it. With `-s` it tells how far it is."""
    games = our_games(part)
    for number, game in enumerate(games, 1):
        planned, written = TASK.start(game), TASK.start(game)
        assert [planned.lost, written.lost] == ["", ""], game.text
        for episode, commands in ((planned, planned._connection.plan()), (written, game.commands)):
            for command in commands:
                episode.act(command)
            assert episode.success, game.text
        if number % 8 == 0:
            print(f"{part}: {number} of {len(games)} games won", flush=True)


@engine
def test_the_twin_says_what_the_engine_says(by_type):
    rng = np.random.default_rng(0)
    for game in by_type.values():
        episode, twin = TASK.start(game), Twin(game.house)
        assert f"{episode.room}\n{episode.aim}" == twin.intro
        for _ in range(40):
            known = [c for c in episode.legal() if not re.match("help|examine|slice", c)]
            legal = known if rng.random() < 0.9 else ["go to moon 1", "", "open bed 1", "take mug 9 from bed 1"]
            command = legal[int(rng.integers(len(legal)))]
            if command.startswith("use") and "use" in twin.done.get(command[4:], ()):
                continue  # the twin's lamps are never put out
            said, told = episode.act(command).removesuffix("\n>"), twin.act(command)
            assert said == told, command
            assert episode.success == twin.won, command


@engine
@pytest.mark.parametrize(
    "action",
    [
        "", "  ", "fly to the moon", "go to", "x" * 100_000, "go to desk 1 " * 8_000, "a" + " " * 100_000 + "b",
        "look\nlook", "\x00", "\x1b[2J\r\x07\x7f", "look\x00", "\ud800", "é ☃", "\u202e\u2028\ufeff", "(" * 5_000,
        "{}%s\\", '"}\n{"plan": true}', "None",
    ],
    ids=lambda action: repr(action)[:24],
)  # fmt: skip
def test_what_the_engine_does_not_know(by_type, action):
    """Nothing happens, it costs a step, and the game goes on: it is won by the next commands."""
    game = by_type[TASKS[0]]
    episode = TASK.start(game)
    assert episode.act(action) == f"{NOTHING}\n>"
    assert (episode.steps, episode.over, episode.lost) == (1, False, "")
    assert len(episode.moves) < 7_000
    for command in game.commands:
        episode.act(command)
    assert episode.success


@engine
def test_a_crash_ends_one_episode_alone(by_type):
    game = by_type[TASKS[0]]
    one, other = TASK.start(game), TASK.start(game)
    assert one._connection.state.pid != other._connection.state.pid
    os.kill(one._connection.state.pid, signal.SIGKILL)
    assert one.act("look") == "The game has ended.\n>"
    assert (one.over, one.success) == (True, False)
    assert "the game's process" in one.lost  # … has ended, or does not answer: what the system says first
    assert other.act(game.commands[0]).startswith("You arrive")


@engine
def test_a_dead_server_is_replaced(by_type):
    from himac_lite.tasks.alfworld.client import engine as running

    episode = TASK.start(by_type[TASKS[0]])
    dead = running()
    os.kill(dead.process.pid, signal.SIGKILL)
    dead.process.wait()
    again = TASK.start(by_type[TASKS[1]])
    assert not again.lost
    assert running() is not dead
    assert not episode.success


@engine
@pytest.mark.parametrize("content", ["", "[]", "{}", '{"pddl_domain": "x", "pddl_problem": "y", "grammar": "z"}'])
def test_a_broken_game_file_is_an_episode_that_is_over(tmp_path, scripted, content):
    file = tmp_path / "game.tw-pddl"
    file.write_text(content)
    (item,) = alfworld.load(str(tmp_path))
    assert TASK.difficulty(item) == 0
    episode = TASK.start(item)
    assert episode.over
    assert "cannot load the game" in episode.lost
    (played,) = Arena(scripted(), TASK).play_flat([item])
    assert (played.ret, played.steps) == (0.0, 0)
    with pytest.raises(TaskError, match="no walkthrough"):
        TASK.oracle(item)


@engine
@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"[" * 100_000, b"#####\n#@$.#\n#####\n"])
def test_a_file_that_is_no_game_is_refused_when_it_is_named(tmp_path, content):
    file = tmp_path / "game.tw-pddl"
    file.write_bytes(content)
    with pytest.raises(TaskError, match=r"game\.tw-pddl is not a game"):
        alfworld.load(str(file))
    assert [(game.commands, game.title) for game in alfworld.load(str(tmp_path))] == [((), ".")]


@engine
def test_a_blueprint_is_executed(by_type, scripted):
    game = by_type[next(iter(TOOL))]
    goals, parts, part = TASK.oracle(game).subgoals, [], ""
    for command in game.commands:
        part += f" {command}\n"
        if re.match("take|clean|heat|cool|move|use", command):
            parts.append(part + "<sub_done>")
            part = ""
    policy = scripted(*parts)
    (episode,) = Arena(policy, TASK).execute([(game, TASK.oracle(game))])
    assert [s.end for s in episode.segments] == [*[End.SUB_DONE] * (len(goals) - 1), End.SUCCESS]
    assert episode.moves.split("\n") == list(game.commands)
    first, second, *_ = policy.prompts
    assert "Your task is to" not in first  # the executor knows its sub-goal alone
    assert f"\nYou carry: {game.house.thing} 1.\nYou pick up the {game.house.thing} 1 from the " in second
    assert second.endswith(f"\nSub-goal: {goals[1].text}\n>")


@engine
def test_scripted_players_in_the_engine():
    games = our_games("validation")[:6]
    assert all(t.success for t in play_scripted("alfworld", games))
    assert not any(t.success for t in play_scripted("alfworld", games, "confused"))


@engine
def test_random_play_in_the_engine(by_type):
    items = list(by_type.values())[:2]
    task = AlfworldTask(max_steps=8)
    first, second = (play_random(task, items, 1) for _ in range(2))
    assert [t.transcript for t in first] == [t.transcript for t in second]
    assert all(t.steps == 8 or t.success for t in first)


@engine
def test_a_users_games_are_found_by_split(tmp_path, monkeypatch, by_type):
    game = by_type[TASKS[0]]
    from himac_lite.tasks.alfworld.server import game_of

    data = {**game_of(game.told()), "solvable": True, "walkthrough": list(game.commands)}
    root = tmp_path / "json_2.1.1" / "valid_seen"
    for name in ("pick_and_place_simple-Book-None-Desk-1/trial_1", "movable-x/trial_1", "pick-AppleSliced/trial_1"):
        (root / name).mkdir(parents=True)
        (root / name / "game.tw-pddl").write_text(json.dumps(data))
    (root / "unsolvable").mkdir()
    (root / "unsolvable" / "game.tw-pddl").write_text(json.dumps({**data, "solvable": False}))
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    (item,) = alfworld.load("alfworld/valid_seen")
    assert isinstance(item, GameFile)
    assert item.title == "pick_and_place_simple-Book-None-Desk-1/trial_1"
    assert TASK.difficulty(item) == len(game.commands)
    assert TASK.oracle(item).subgoals == TASK.oracle(game).subgoals
    episode = TASK.start(item)
    for command in item.commands:
        episode.act(command)
    assert episode.success
    with pytest.raises(TaskError, match="holds no game"):
        alfworld.load("alfworld/valid_unseen")
    monkeypatch.delenv("ALFWORLD_DATA")
    for source, said in (("alfworld/valid_seen", "ALFWORLD_DATA is not set"), ("household/dev", "unknown split")):
        with pytest.raises(TaskError, match=said):
            alfworld.load(source)


def test_a_base_model_is_made_in_five_stages(tmp_path):
    tiny = Pretrain(
        width=64, layers=1, heads=1, batch_tokens=2048, expert_steps=1, drill_steps=2, mixed_steps=3, settle_steps=4,
        habit_steps=5,
    )  # fmt: skip
    said: list[str] = []
    assert driver.pretrain(replace(players.RECIPE, validation=0), tiny, tmp_path / "base", said.append) == {}
    assert [line.split(":")[0] for line in said[:-1]] == [
        "expert demonstrations 1/1", "names 2/2", "mixed demonstrations 3/3", "settling 4/4", "bad habits 5/5"
    ]  # fmt: skip
    assert "the last 3 seen through NF4" in (tmp_path / "base" / "README.md").read_text("utf-8")
    record = json.loads((tmp_path / "base" / "pretrain.json").read_text("utf-8"))
    assert [(s["rate"], s["reading"], s["settled"]) for s in record["stages"]] == [
        (1, 0.5, False), (1, 0, False), (0.5, 0, True), (0.5, 0, True), (0.6, 0, True)
    ]  # fmt: skip


@engine
def test_the_whole_path_in_the_engine(tmp_path, capsys):
    """A base model of four batches, one iteration of HiMAC on our games: it plays nonsense, and the run ends well."""
    tiny = Pretrain(
        width=64, layers=1, heads=1, batch_tokens=4096, drill_steps=1, expert_steps=2, mixed_steps=1, habit_steps=1
    )
    found = driver.pretrain(replace(players.RECIPE, validation=0), tiny, tmp_path / "base", lambda _: None)
    assert found == {}
    small = ["rollout.levels=2", "rollout.group=2", "rollout.max_steps=3", "test_limit=2", "validate_on=2"]
    sets = [a for s in (*small, "probe_levels=0", "model.rank=4") for a in ("--set", s)]
    argv = ["train", "--task", "alfworld", "--model", str(tmp_path / "base"), "--iterations", "1"]
    assert cli.main([*argv, *sets, "--out", str(tmp_path / "run"), "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert results["levels"] == "household/test"
    assert results["trained"]["n"] == 2


def test_without_the_engine_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(alfworld, "find_spec", lambda name: None)
    with pytest.raises(TaskError, match=r"pip install 'himac-lite\[alfworld\]'"):
        alfworld.load("household/test")
