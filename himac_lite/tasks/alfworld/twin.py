"""A plain-Python copy of the engine for our houses, used only to make thousands of demonstrations.

Episodes are played in the engine. This copy knows the commands of the scripted players; a test plays both at random and
compares every answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from himac_lite.tasks.alfworld.house import (
    ABLE,
    LAMP,
    LIGHT,
    OPENABLE,
    THINGS,
    TOOL,
    TWO,
    House,
    can_contain,
    identifiers,
    kind,
)

NOTHING = "Nothing happens."
_TOOL = dict(TOOL.values())
"""clean, heat, cool → the receptacle that does it."""
_MIDDLE = "You are in the middle of a room. Looking quickly around you, you see "
_VERBS = ("go", "open", "close", "take", "move", "use", "inventory", "look", "examine")


def listed(names: Sequence[str]) -> str:
    """``a mug 1, and a pen 2``; ``nothing``."""
    if not names:
        return "nothing"
    told = [f"a {name}" for name in names]
    return told[0] if len(told) == 1 else f"{', '.join(told[:-1])}, and {told[-1]}"


@dataclass
class Twin:
    """One game."""

    house: House
    at: str = ""
    """The player's receptacle; empty in the middle of the room."""
    holding: str = ""
    opened: set[str] = field(default_factory=set)
    done: dict[str, set[str]] = field(default_factory=dict)
    """Object → what was done to it: clean, heat, cool, use."""
    won: bool = False

    def __post_init__(self) -> None:
        self.places = dict(self.house.things)
        self._order = identifiers([*self.house.receptacles, *self.places])

    @property
    def intro(self) -> str:
        """The first text: the room and the task."""
        there = listed(sorted(self.house.receptacles, key=self._order.__getitem__))
        return f"{_MIDDLE}{there}.\nYour task is to: {self.house.title}."

    def inside(self, place: str) -> list[str]:
        """The objects in or on a receptacle, in the engine's order."""
        return sorted((name for name, where in self.places.items() if where == place), key=self._order.__getitem__)

    def reachable(self, place: str) -> bool:
        """Whether the player is there and the receptacle is open."""
        return place == self.at and (kind(place) not in OPENABLE or place in self.opened)

    def act(self, command: str) -> str:
        """The engine's answer to a command."""
        verb, _, rest = command.partition(" ")
        if verb in _TOOL:
            answer = self._treat(verb, rest)
        else:
            answer = getattr(self, f"_{verb}")(rest) if verb in _VERBS else ""
        self.won = self.won or self._wins()
        return answer or NOTHING

    # Commands; an empty answer means that nothing happens

    def _go(self, rest: str) -> str:
        place = rest.removeprefix("to ")
        if place not in self.house.receptacles or place == self.at:
            return ""
        self.at = place
        return f"You arrive at {place}. {self._examine(place)}"

    def _open(self, place: str) -> str:
        if place != self.at or kind(place) not in OPENABLE or place in self.opened:
            return ""
        self.opened.add(place)
        return f"You open the {place}. {self._examine(place)}"

    def _close(self, place: str) -> str:
        if place != self.at or place not in self.opened:
            return ""
        self.opened.remove(place)
        return f"You close the {place}."

    def _take(self, rest: str) -> str:
        name, _, place = rest.partition(" from ")
        if self.holding or kind(name) == LAMP or self.places.get(name) != place or not self.reachable(place):
            return ""
        self.holding, self.places[name] = name, ""
        return f"You pick up the {name} from the {place}."

    def _move(self, rest: str) -> str:
        name, _, place = rest.partition(" to ")
        if not name or name != self.holding or not self.reachable(place) or not can_contain(kind(place), kind(name)):
            return ""
        self.holding, self.places[name] = "", place
        return f"You move the {name} to the {place}."

    def _treat(self, verb: str, rest: str) -> str:
        name, _, tool = rest.partition(" with ")
        able = name and name == self.holding and ABLE[verb] in THINGS[kind(name)].properties
        if not able or tool != self.at or kind(tool) != _TOOL[verb]:
            return ""
        states = self.done.setdefault(name, set())
        states -= {"heat": {"cool"}, "cool": {"heat"}}.get(verb, set())
        states.add(verb)
        return f"You {verb} the {name} using the {tool}."

    def _use(self, name: str) -> str:
        if kind(name) != LAMP or not self.at or self.places.get(name) != self.at:
            return ""
        self.done.setdefault(name, set()).add("use")
        return f"You turn on the {name}."

    def _inventory(self, rest: str) -> str:
        return f"You are carrying: a {self.holding}." if self.holding else "You are not carrying anything."

    def _look(self, rest: str) -> str:
        # After the first time, the engine lists only what is in the middle of the room: nothing.
        return f"You are facing the {self.at}. Next to it, you see nothing." if self.at else f"{_MIDDLE}nothing."

    def _examine(self, place: str) -> str:
        if place != self.at:
            return ""
        if kind(place) not in OPENABLE:
            return f"On the {place}, you see {listed(self.inside(place))}."
        if place not in self.opened:
            return f"The {place} is closed."
        return f"The {place} is open. In it, you see {listed(self.inside(place))}."

    def _wins(self) -> bool:
        house = self.house
        if house.task == LIGHT:
            lit = any("use" in self.done.get(n, ()) and p == self.at for n, p in self.places.items() if kind(n) == LAMP)
            return lit and bool(self.at) and kind(self.holding) == house.thing
        needed = TOOL[house.task][0] if house.task in TOOL else None
        there: dict[str, int] = {}
        for name, place in self.places.items():
            ready = needed is None or needed in self.done.get(name, ())
            if ready and place and kind(name) == house.thing and kind(place) == house.receptacle:
                there[place] = there.get(place, 0) + 1
        return max(there.values(), default=0) >= (2 if house.task == TWO else 1)
