"""Our small household games for ALFWorld's engine: the PDDL problem and a solution of each.

They use the domain of the `alfworld` package and all six of its task types. They are not the ALFWorld benchmark: a game
is one room of 8–12 receptacles, while the benchmark has whole floor plans.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from himac_lite.errors import TaskError
from himac_lite.types import SubGoal

PLACE, LIGHT = "pick_and_place_simple", "look_at_obj_in_light"
CLEAN, HEAT, COOL = (f"pick_{how}_then_place_in_recep" for how in ("clean", "heat", "cool"))
TWO = "pick_two_obj_and_place"
TASKS = (PLACE, LIGHT, CLEAN, HEAT, COOL, TWO)
LAMP = "desklamp"

OPENABLE = frozenset(("fridge", "microwave", "cabinet", "drawer"))
WASH, WARM, CHILL = "cleanable", "heatable", "coolable"
TOOL = {CLEAN: ("clean", "sinkbasin"), HEAT: ("heat", "microwave"), COOL: ("cool", "fridge")}
"""Task type → its command and the receptacle that does it."""
ABLE = {"clean": WASH, "heat": WARM, "cool": CHILL}
"""Command → the property that an object needs."""

_IN = frozenset(("fridge", "microwave", "cabinet", "drawer", "sinkbasin", "garbagecan"))
"""Receptacles that hold objects in them, not on them."""


@dataclass(frozen=True)
class Thing:
    """A kind of object: its PDDL type, its properties, and its usual places, most likely first."""

    type: str
    properties: tuple[str, ...]
    usual: tuple[str, ...]


KITCHEN: dict[str, Thing] = {
    "mug": Thing("Mug", (WASH, WARM, CHILL), ("cabinet", "countertop", "diningtable")),
    "plate": Thing("Plate", (WASH, WARM, CHILL), ("cabinet", "diningtable", "countertop")),
    "cup": Thing("Cup", (WASH, WARM, CHILL), ("cabinet", "countertop", "fridge")),
    "bowl": Thing("Bowl", (WASH, CHILL), ("cabinet", "diningtable", "fridge")),
    "apple": Thing("Apple", (WASH, WARM, CHILL), ("fridge", "countertop", "diningtable")),
    "tomato": Thing("Tomato", (WASH, WARM, CHILL), ("fridge", "countertop", "sinkbasin")),
    "potato": Thing("Potato", (WASH, WARM, CHILL), ("countertop", "garbagecan", "fridge")),
    "egg": Thing("Egg", (WASH, WARM, CHILL), ("fridge", "countertop", "microwave")),
    "lettuce": Thing("Lettuce", (WASH, CHILL), ("fridge", "diningtable", "countertop")),
    "bread": Thing("Bread", (WARM, CHILL), ("countertop", "diningtable", "cabinet")),
    "spoon": Thing("Spoon", (WASH,), ("drawer", "diningtable", "sinkbasin")),
    "fork": Thing("Fork", (WASH,), ("drawer", "diningtable", "countertop")),
    "knife": Thing("Knife", (WASH,), ("drawer", "countertop", "diningtable")),
    "pan": Thing("Pan", (WASH, CHILL), ("countertop", "cabinet", "sinkbasin")),
    "saltshaker": Thing("SaltShaker", (), ("drawer", "cabinet", "countertop")),
}
BEDROOM: dict[str, Thing] = {
    "book": Thing("Book", (), ("shelf", "bed", "desk")),
    "pen": Thing("Pen", (), ("drawer", "desk", "shelf")),
    "pencil": Thing("Pencil", (), ("desk", "drawer", "sidetable")),
    "cellphone": Thing("CellPhone", (), ("bed", "sidetable", "dresser")),
    "laptop": Thing("Laptop", (), ("desk", "bed", "dresser")),
    "keychain": Thing("KeyChain", (), ("dresser", "drawer", "sidetable")),
    "creditcard": Thing("CreditCard", (), ("dresser", "desk", "shelf")),
    "pillow": Thing("Pillow", (), ("bed", "armchair", "bed")),
    "alarmclock": Thing("AlarmClock", (), ("sidetable", "desk", "shelf")),
    "cd": Thing("CD", (), ("drawer", "shelf", "garbagecan")),
    "watch": Thing("Watch", (), ("dresser", "drawer", "sidetable")),
}
LAMP_THING = Thing("DeskLamp", (), ("desk", "sidetable", "dresser"))
THINGS = {**KITCHEN, **BEDROOM, LAMP: LAMP_THING}
RECEPTACLES = {
    "fridge": "Fridge", "microwave": "Microwave", "sinkbasin": "SinkBasin", "countertop": "CounterTop",
    "cabinet": "Cabinet", "drawer": "Drawer", "diningtable": "DiningTable", "garbagecan": "GarbageCan", "desk": "Desk",
    "bed": "Bed", "dresser": "Dresser", "shelf": "Shelf", "sidetable": "SideTable", "armchair": "ArmChair",
}  # fmt: skip
"""Kind of receptacle → its name in PDDL."""


def can_contain(receptacle: str, thing: str) -> bool:
    """Whether an object may be put there: at its usual places, on any surface, or in an appliance that treats it."""
    if receptacle == "microwave":
        return WARM in THINGS[thing].properties
    if receptacle in ("fridge", "sinkbasin"):
        return thing in KITCHEN and (CHILL if receptacle == "fridge" else WASH) in THINGS[thing].properties
    return receptacle in THINGS[thing].usual or receptacle not in OPENABLE


@dataclass(frozen=True)
class House:
    """One game with the engine's names. As a task item, `text` identifies it and `title` is the instruction."""

    task: str
    thing: str
    """The requested kind of object."""
    receptacle: str
    """The requested kind of receptacle; empty for `LIGHT`."""
    receptacles: tuple[str, ...]
    """All receptacles of the room, such as ``cabinet 2``."""
    things: tuple[tuple[str, str], ...]
    """(object, receptacle) pairs at the start, such as (``mug 1``, ``cabinet 2``)."""

    @property
    def text(self) -> str:
        return json.dumps(asdict(self))

    @property
    def title(self) -> str:
        if self.task == LIGHT:
            return f"look at the {self.thing} under the {LAMP}"
        what = {CLEAN: "a clean", HEAT: "a hot", COOL: "a cool", TWO: "two"}.get(self.task, "a")
        return f"put {what} {self.thing} {where(self.receptacle)}"


def from_text(text: str) -> House:
    """The house with this `House.text`. Raises `TaskError` for another text."""
    try:
        raw = json.loads(text)
        house = House(
            raw["task"], raw["thing"], raw["receptacle"], tuple(raw["receptacles"]),
            tuple((name, place) for name, place in raw["things"]),
        )  # fmt: skip
        known = {house.thing, *(kind(name) for name, _ in house.things)} <= set(THINGS)
        if house.task not in TASKS or not known or not set(map(kind, house.receptacles)) <= set(RECEPTACLES):
            raise ValueError("it has an unknown task, object or receptacle")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TaskError(f"not a household game: {error}") from None
    return house


def kind(name: str) -> str:
    """``cabinet 2`` → ``cabinet``."""
    return name.rpartition(" ")[0]


def where(receptacle: str) -> str:
    return f"{'in' if receptacle in _IN else 'on'} the {receptacle}"


# The PDDL problem


def identifiers(names: Sequence[str]) -> dict[str, str]:
    """The engine's name → identifier. The engine numbers the identifiers of a kind in reverse order."""
    count = Counter(map(kind, names))
    out = {}
    for name in names:
        what, _, number = name.rpartition(" ")
        place = f"{count[what] + 1 - int(number):02d}"
        # The engine recognises a sink basin by its identifier.
        out[name] = f"sink_bar_{place}_bar_sinkbasin" if what == "sinkbasin" else f"{what}_bar_{place}"
    return out


def problem(house: House, goal: str) -> str:
    """The PDDL problem of a house. goal: its last part, from the goal library of `alfworld`."""
    ids = identifiers([*house.receptacles, *(name for name, _ in house.things)])
    at = {name: f"loc_bar_{i:02d}" for i, name in enumerate(house.receptacles, 1)}
    otypes = sorted({THINGS[kind(name)].type for name, _ in house.things} | {"Knife", "ButterKnife"})
    rtypes = sorted({RECEPTACLES[kind(name)] for name in house.receptacles} | {"SinkBasin", "Microwave", "Fridge"})
    objects = ["agent1 - agent", "loc_bar_00 - location", *(f"{place} - location" for place in at.values())]
    objects += [f"{ids[name]} - receptacle" for name in house.receptacles]
    objects += [f"{ids[name]} - object" for name, _ in house.things]
    objects += [f"{t}Type - rtype" for t in rtypes] + [f"{t}Type - otype" for t in otypes]
    facts = ["(= (total-cost) 0)", "(atLocation agent1 loc_bar_00)"]
    kinds = {kind(name) for name, _ in house.things}
    for name in house.receptacles:
        facts.append(f"(receptacleType {ids[name]} {RECEPTACLES[kind(name)]}Type)")
        facts.append(f"(receptacleAtLocation {ids[name]} {at[name]})")
        if kind(name) in OPENABLE:
            facts.append(f"(openable {ids[name]})")
    for what in sorted(set(map(kind, house.receptacles))):
        held = (THINGS[t].type for t in sorted(kinds) if can_contain(what, t))
        facts += [f"(canContain {RECEPTACLES[what]}Type {held_type}Type)" for held_type in held]
    for name, place in house.things:
        thing = THINGS[kind(name)]
        facts += [f"(objectType {ids[name]} {thing.type}Type)", f"(inReceptacle {ids[name]} {ids[place]})"]
        facts.append(f"(objectAtLocation {ids[name]} {at[place]})")
        own = ("toggleable",) if kind(name) == LAMP else ("pickupable", *thing.properties)
        facts += [f"({p} {ids[name]})" for p in own]
    return "\n".join(
        ["(define (problem household)", "(:domain alfred)", "(:objects", *objects, ")", "(:init", *facts, ")", goal]
    )


# The solution


def solution(house: House) -> list[str]:
    """The shortest commands that win the game, with knowledge of all places."""
    wanted = [(name, place) for name, place in house.things if kind(name) == house.thing]
    if house.task == LIGHT:
        lamp = next((name, place) for name, place in house.things if kind(name) == LAMP)
        name, place = wanted[0]
        there = [] if lamp[1] == place else [f"go to {lamp[1]}"]
        return [*_fetch(name, place), *there, f"use {lamp[0]}"]
    target = next(name for name in house.receptacles if kind(name) == house.receptacle)
    out: list[str] = []
    opened: set[str] = set()
    for name, place in wanted[: 2 if house.task == TWO else 1]:
        out += _opening(_fetch(name, place), opened)
        if house.task in TOOL:
            verb, tool = TOOL[house.task]
            at = next(r for r in house.receptacles if kind(r) == tool)
            out += [] if at == place else [f"go to {at}"]
            out.append(f"{verb} {name} with {at}")
            place = at
        walk = [] if place == target else [f"go to {target}"]
        out += _opening([*walk, *_open(target), f"move {name} to {target}"], opened)
    return out


def _fetch(name: str, place: str) -> list[str]:
    return [f"go to {place}", *_open(place), f"take {name} from {place}"]


def _open(place: str) -> list[str]:
    return [f"open {place}"] if kind(place) in OPENABLE else []


def _opening(commands: list[str], opened: set[str]) -> list[str]:
    """The commands without those that open a receptacle again; adds the others to `opened`."""
    out = [command for command in commands if command not in opened]
    opened.update(command for command in out if command.startswith("open "))
    return out


def subgoals_of(commands: Sequence[str]) -> list[SubGoal]:
    """Commands that win a game → the sub-goals of a blueprint, without object numbers and places of objects."""
    return [SubGoal(text) for text in _subgoals(commands)]


def _subgoals(commands: Sequence[str]) -> Iterator[str]:
    taken: Counter[str] = Counter()
    for command in commands:
        verb, _, rest = command.partition(" ")
        what = kind(rest.partition(" from ")[0].partition(" to ")[0].partition(" with ")[0])
        if verb == "take":
            yield f"find and take {'another' if taken[what] else 'a'} {what}"
            taken[what] += 1
        elif verb in ("clean", "heat", "cool"):
            yield f"{verb} the {what} with the {kind(rest.partition(' with ')[2])}"
        elif verb in ("move", "put"):
            yield f"put the {what} {where(kind(rest.partition(' to ')[2]))}"
        elif verb == "use":
            yield f"turn on the {what}"
