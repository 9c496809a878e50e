"""Notebook 01: the outcome of a move, dead corners, and the chance of at least one success."""

from __future__ import annotations

from himac_lite.exercises.checking import Exercise, Mistake

Rows = tuple[str, ...]


def _outcome(ahead: str, beyond: str, boxes: str = "$*", stops: str = "#$*", walls: str = "#") -> str:
    if ahead in walls:
        return "blocked"
    if ahead not in boxes:
        return "moved"
    return "blocked" if beyond in stops else "pushed"


check_outcome = Exercise(
    "outcome of a move",
    "``answer(ahead, beyond)``: XSB characters of the next two cells → ``moved``, ``pushed`` or ``blocked``.",
    _outcome,
    tuple((ahead, beyond) for ahead in " .$*#" for beyond in " .$*#"),
    (
        Mistake("a box on a target (*) is a box too: it can be pushed", lambda a, b: _outcome(a, b, boxes="$")),
        Mistake(
            "two boxes in a row cannot be pushed together, whether a target lies under them or not",
            lambda a, b: _outcome(a, b, stops="#"),
        ),
        Mistake("a second box on a target (*) blocks too", lambda a, b: _outcome(a, b, stops="#$")),
        Mistake("a target is free floor: a box may be pushed onto it", lambda a, b: _outcome(a, b, stops="#$*.")),
        Mistake(
            "every box is pushed, even against a wall: check the cell beyond it",
            lambda a, b: _outcome(a, b, stops=""),
        ),
        Mistake("a target does not block: the player may stand on it", lambda a, b: _outcome(a, b, walls="#.")),
    ),
    "all 25 combinations.",
)


def _walls(rows: Rows, cell: tuple[int, int]) -> tuple[bool, bool, bool, bool]:
    r, c = cell
    return rows[r - 1][c] == "#", rows[r + 1][c] == "#", rows[r][c - 1] == "#", rows[r][c + 1] == "#"


def _dead_corner(rows: Rows, cell: tuple[int, int]) -> bool:
    up, down, left, right = _walls(rows, cell)
    return (up or down) and (left or right) and rows[cell[0]][cell[1]] not in ".*+"


_ROOM = ("########", "#.     #", "#  $   #", "#  # # #", "##    .#", "####@###", "########")
"""(1,1) and (4,6) are corners with a target, (1,6), (3,1), (4,2) and (5,4) corners without; (3,4) is a corridor."""

check_dead_corner = Exercise(
    "dead corner",
    "``answer(rows, cell)``: XSB rows and (row, column) of a floor cell → whether a box in that cell is lost for good.",
    _dead_corner,
    tuple((_ROOM, cell) for cell in ((1, 1), (1, 6), (3, 1), (1, 3), (2, 4), (3, 4), (4, 2), (4, 6), (2, 1), (5, 4))),
    (
        Mistake(
            "a corner that is a target is not dead: the box belongs there",
            lambda rows, cell: any(_walls(rows, cell)[:2]) and any(_walls(rows, cell)[2:]),
        ),
        Mistake(
            "walls on opposite sides form a corridor, in which a box still moves. "
            "A corner needs a wall above or below and a wall to the left or right",
            lambda rows, cell: sum(_walls(rows, cell)) >= 2 and rows[cell[0]][cell[1]] not in ".*+",
        ),
        Mistake(
            "one wall is not enough: along a wall a box still moves",
            lambda rows, cell: any(_walls(rows, cell)) and rows[cell[0]][cell[1]] not in ".*+",
        ),
        Mistake(
            "you check the upper left corner only; there are four kinds of corner",
            lambda rows, cell: _walls(rows, cell)[0] and _walls(rows, cell)[2] and rows[cell[0]][cell[1]] not in ".*+",
        ),
        Mistake(
            "the result is inverted: true means that the box is lost", lambda rows, cell: not _dead_corner(rows, cell)
        ),
    ),
    "a box in such a corner never moves again.",
)


check_at_least_one = Exercise(
    "at least one of n",
    "``answer(p, n)``: chance of one attempt and their number → chance that at least one of them succeeds.",
    lambda p, n: 1 - (1 - p) ** n,
    ((0.25, 8), (0.01, 8), (0.5, 1), (1.0, 4), (0.0, 8)),
    (
        Mistake("n·p counts joint successes more than once: for n = 8 and p = 0.25 it is 2", lambda p, n: n * p),
        Mistake("that is the chance that all n succeed", lambda p, n: p**n),
        Mistake("that is the chance that none succeeds; subtract it from 1", lambda p, n: (1 - p) ** n),
        Mistake("1 − pⁿ is the chance that at least one fails", lambda p, n: 1 - p**n),
        Mistake("that is the chance of exactly one success", lambda p, n: n * p * (1 - p) ** (n - 1)),
    ),
    "eight poor attempts beat one, if something tells you which of them was good.",
)
