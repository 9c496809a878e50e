"""ALFWorld: scripted players of households, of mixed quality, and the recipe.

- expert: looks where things usually are, treats what is to be treated, puts it where it belongs
- forgetful: leaves out the treatment, or else any step of the plan
- confused: takes something else, or puts it elsewhere
- aimless: looks for things in any order
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from himac_lite.errors import ConfigError
from himac_lite.pretraining import Solution, Stage
from himac_lite.pretraining.lessons import Lesson, Players, Step, plan_lesson, play_lesson, text_recipe
from himac_lite.settings import Pretrain
from himac_lite.tasks.alfworld import generator
from himac_lite.tasks.alfworld import task as games
from himac_lite.tasks.alfworld.house import LAMP, LAMP_THING, OPENABLE, THINGS, House, kind, subgoals_of
from himac_lite.tasks.alfworld.house import solution as commands_of
from himac_lite.tasks.alfworld.task import MAX_STEPS, at_hand
from himac_lite.tasks.alfworld.twin import Twin
from himac_lite.tasks.text import prompt
from himac_lite.types import Role, SubGoal

BEGINNERS = ("forgetful", "forgetful", "confused", "aimless")
"""Forgetting is the habit to be unlearnt, so it is the most frequent."""
MAX_SEARCH = 20
"""Steps of a search, the sub-goal's budget; a longer one is no demonstration."""


def plan_by(writer: str, house: House, rng: np.random.Generator) -> list[str]:
    """The sub-goals that a player writes."""
    plan = [goal.text for goal in subgoals_of(commands_of(house))]
    if writer == "forgetful" and len(plan) > 1:
        treated = [i for i, goal in enumerate(plan) if goal.startswith(("clean ", "heat ", "cool "))]
        del plan[treated[0] if treated else int(rng.integers(len(plan)))]
    elif writer == "confused":
        others = sorted({kind(name) for name, _ in house.things} - {house.thing})
        wrong = others[int(rng.integers(len(others)))]
        plan = [goal.replace(house.thing, wrong) for goal in plan]
    return plan


def carry_out(twin: Twin, subgoal: str, rng: np.random.Generator, aimless: bool = False) -> list[Step] | None:
    """The steps that do what a sub-goal says; None where it cannot be done (or not in time)."""
    steps: list[Step] = []

    def act(command: str) -> None:
        steps.append(Step(command, twin.act(command)))

    def enter(place: str) -> None:
        if twin.at != place:
            act(f"go to {place}")
        if kind(place) in OPENABLE and place not in twin.opened:
            act(f"open {place}")

    if found := re.fullmatch(r"find and take (?:a|another) (\S+)", subgoal):
        if twin.holding or not _search(twin, found[1], enter, steps, rng, aimless):
            return None
        name = next(n for n, place in sorted(twin.places.items()) if place == twin.at and kind(n) == found[1])
        act(f"take {name} from {twin.at}")
    elif found := re.fullmatch(r"(clean|heat|cool) the (\S+) with the (\S+)", subgoal):
        tools = [r for r in twin.house.receptacles if kind(r) == found[3]]
        if not tools or kind(twin.holding) != found[2]:
            return None
        if twin.at != tools[0]:
            act(f"go to {tools[0]}")
        act(f"{found[1]} {twin.holding} with {tools[0]}")
    elif found := re.fullmatch(r"put the (\S+) (?:in|on) the (\S+)", subgoal):
        places = [r for r in twin.house.receptacles if kind(r) == found[2]]
        if not places or kind(twin.holding) != found[1]:
            return None
        enter(places[0])
        act(f"move {twin.holding} to {places[0]}")
    elif found := re.fullmatch(r"turn on the (\S+)", subgoal):
        if not _search(twin, found[1], enter, steps, rng, aimless):
            return None
        act(f"use {next(n for n, place in twin.places.items() if place == twin.at and kind(n) == found[1])}")
    failed = not steps or any(step.seen.startswith("Nothing") for step in steps)
    return None if failed or len(steps) > MAX_SEARCH else steps


def _search(
    twin: Twin, what: str, enter: Callable[[str], None], steps: list[Step], rng: np.random.Generator, aimless: bool
) -> bool:
    """Look into one receptacle after another until the thing is at hand. False: it is nowhere that can be reached."""
    usual = (LAMP_THING if what == "desklamp" else THINGS[what]).usual if what in THINGS else ()
    order = [twin.house.receptacles[i] for i in rng.permutation(len(twin.house.receptacles))]
    if not aimless:  # usual places first; of one kind in any order
        order.sort(key=lambda r: usual.index(kind(r)) if kind(r) in usual else len(usual))
    if twin.at:
        order = [twin.at, *(r for r in order if r != twin.at)]
    wanted = twin.house.receptacle if what == twin.house.thing else ""
    for place in order:
        if kind(place) == wanted and any(kind(n) == what and p != place for n, p in twin.places.items()):
            continue  # where it is to be put is not where it is to be found
        enter(place)
        if any(kind(n) == what and p == place for n, p in twin.places.items()):
            return True
        if len(steps) > MAX_SEARCH:
            return False
    return False


def lessons(
    houses: Iterator[House], rng: np.random.Generator, sloppiness: float, drill: float = 0.0
) -> Iterator[Lesson]:
    """A blueprint, a flat episode, a segment and an errand for one house after another.

    drill: share of houses that are for a glance only.
    """

    def writer() -> str:
        return BEGINNERS[int(rng.integers(len(BEGINNERS)))] if rng.random() < sloppiness else "expert"

    for house in houses:
        if drill and rng.random() < drill:
            if lesson := errand(house, rng, glance=True):
                yield lesson
            continue
        twin = Twin(house)
        yield plan_lesson(twin.intro, plan_by(writer(), house, rng))

        who, intro = writer(), twin.intro
        steps = play(twin, plan_by(who, house, rng), rng, who == "aimless")
        if steps:
            yield play_lesson(Role.FLAT, intro, steps[:MAX_STEPS])

        twin, who = Twin(house), writer()
        told = plan_by(who, house, rng)
        room, before = twin.intro.split("\n")[0], int(rng.integers(len(told)))
        last = [step for goal in told[:before] for step in carry_out(twin, goal, rng) or ()]
        seen = "\n".join([room, *at_hand(twin.holding, last[-1].seen)]) if last else room
        if done := carry_out(twin, told[before], rng, who == "aimless"):
            yield play_lesson(Role.EXECUTOR, seen, done, told[before], sub_done=not twin.won)

        if lesson := errand(house, rng):
            yield lesson


def errand(house: House, rng: np.random.Generator, glance: bool = False) -> Lesson | None:
    """A segment that begins where something lies: as often as not it is what is to be found. None: it cannot be done.

    In play what was asked for is mostly found where it usually is, so that telling it from what else lies there is
    worth little and learnt late; here nothing but the names tells.
    glance: no room and the first word alone, take or go, and half of them with a task instead of a sub-goal. The fewer
    words, the sooner it is learnt to compare them (docs/experiments.md).
    """
    twin = Twin(house)
    things = [(name, place) for name, place in house.things if kind(name) != LAMP]
    here = things[int(rng.integers(len(things)))][1]
    lying = {kind(name) for name, place in things if place == here}
    away = {kind(name) for name, _ in things} - lying
    choice = sorted(lying if rng.random() < 0.5 or not away else away)
    wanted = choice[int(rng.integers(len(choice)))]
    seen = twin.act(f"go to {here}")
    if kind(here) in OPENABLE:
        seen = twin.act(f"open {here}")
    subgoal, now = f"find and take a {wanted}", at_hand("", seen)
    steps = carry_out(twin, subgoal, rng)
    if not steps:
        return None
    if not glance:
        observation = "\n".join([twin.intro.split("\n")[0], *now])
        return play_lesson(Role.EXECUTOR, observation, steps, subgoal, sub_done=not twin.won)
    verb = steps[0].action.split()[0]
    if rng.random() < 0.5:
        asked = prompt(Role.EXECUTOR, "\n".join(now), SubGoal(subgoal))
        return Lesson(Role.EXECUTOR, ((asked, False), (f" {verb}", True)))
    task = f"Your task is to: {replace(house, thing=wanted).title}."
    return Lesson(Role.FLAT, ((prompt(Role.FLAT, "\n".join([task, *now])), False), (f" {verb}", True)))


def play(twin: Twin, plan: Sequence[str], rng: np.random.Generator, aimless: bool = False) -> list[Step]:
    """A whole plan, as far as it can be done."""
    return [step for steps in _segments(twin, plan, rng, aimless) for step in steps]


def _segments(twin: Twin, plan: Sequence[str], rng: np.random.Generator, aimless: bool) -> Iterator[list[Step]]:
    for goal in plan:
        steps = carry_out(twin, goal, rng, aimless)
        if steps is None:
            return
        yield steps


# The recipe


def solution(item: Any, rng: np.random.Generator, who: str = "expert") -> Solution:
    """How a scripted player keeps one of our houses; for the user's game, what its walkthrough does.

    Raises `ConfigError` for a game without a walkthrough, and for a beginner in the user's game.
    """
    if isinstance(item, games.HouseGame):
        plan = plan_by(who, item.house, rng)
        return Solution.of(plan, list(_segments(Twin(item.house), plan, rng, who == "aimless")))
    if not item.commands or who != "expert":
        raise ConfigError(f"no script can play {item.title!r}: scripts know our own houses, and walkthroughs of games")
    plan, done = list[str](), [list[Step]()]
    for number, command in enumerate(item.commands, 1):
        done[-1].append(Step(command, ""))
        plan = [goal.text for goal in subgoals_of(item.commands[:number])]
        if len(plan) == len(done):  # this command is what the sub-goal says
            done.append([])
    return Solution.of(plan, done[: len(plan)])


def _housekeeping(rng: np.random.Generator, players: Players) -> Iterator[Lesson]:
    held_out = {game.text for part in ("validation", "test") for game in games.our_games(part)}
    return lessons(generator.stream(rng, held_out), rng, players.sloppiness, players.drill)


# Without the drill the model does not tell names apart, and before the first stage it forgets the drill again.
RECIPE = text_recipe(
    _housekeeping,
    (
        Stage("expert demonstrations", "expert_steps", Players(), reading=0.5, settled=False),
        Stage("names", "drill_steps", Players(drill=1.0), settled=False),
        Stage("mixed demonstrations", "mixed_steps", Players(0.6, drill=0.3), rate=1 / 2),
        Stage("settling", "settle_steps", Players(0.35, drill=0.3), rate=1 / 2),
        Stage("bad habits", "habit_steps", Players(0.95, drill=0.3), rate=0.6),
    ),
    readers=Players(0.6),
    vocabulary=640,
    task="alfworld",
    about="They play small household games of this package's generator, none of validation or test.\n"
    "These games are not the ALFWorld benchmark.",
    settings=Pretrain(
        width=192, layers=4, heads=6, batch_tokens=8192, expert_steps=1200, drill_steps=300, mixed_steps=450,
        settle_steps=350, habit_steps=150,
    ),
    solution=solution,
    players=("expert", *sorted(set(BEGINNERS))),
    validation=48,
)  # fmt: skip
