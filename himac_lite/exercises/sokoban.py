"""Notebook 01: what a move does, when a box is lost for ever, and what eight attempts are worth."""

from __future__ import annotations

from himac_lite.exercises.checking import Answer, Exercise, Mistake, check

Rows = tuple[str, ...]

# Outcome of a move: outcome(ahead, beyond) → "moved", "pushed" or "blocked"


def _outcome(ahead: str, beyond: str, boxes: str = "$*", stops: str = "#$*", walls: str = "#") -> str:
    if ahead in walls:
        return "blocked"
    if ahead not in boxes:
        return "moved"
    return "blocked" if beyond in stops else "pushed"


OUTCOME = Exercise(
    "outcome of a move",
    _outcome,
    tuple((ahead, beyond) for ahead in " .$*#" for beyond in " .$*#"),
    (
        Mistake("a box on a target (*) is a box too: it can be pushed", lambda a, b: _outcome(a, b, boxes="$")),
        Mistake(
            "two boxes in a row cannot be pushed together, whether a target lies under them or not",
            lambda a, b: _outcome(a, b, stops="#"),
        ),
        Mistake(
            "the second box may stand on a target (*): it blocks all the same", lambda a, b: _outcome(a, b, stops="#$")
        ),
        Mistake("a target is free floor: a box may be pushed onto it", lambda a, b: _outcome(a, b, stops="#$*.")),
        Mistake(
            "every box is pushed, even against a wall: look at what lies beyond it",
            lambda a, b: _outcome(a, b, stops=""),
        ),
        Mistake("a target ahead stops nobody: the player may stand on it", lambda a, b: _outcome(a, b, walls="#.")),
    ),
    "all 25 combinations.",
)

# Dead corner: dead_corner(rows, cell) → bool


def _walls(rows: Rows, cell: tuple[int, int]) -> tuple[bool, bool, bool, bool]:
    r, c = cell
    return rows[r - 1][c] == "#", rows[r + 1][c] == "#", rows[r][c - 1] == "#", rows[r][c + 1] == "#"


def _dead_corner(rows: Rows, cell: tuple[int, int]) -> bool:
    up, down, left, right = _walls(rows, cell)
    return (up or down) and (left or right) and rows[cell[0]][cell[1]] not in ".*+"


_ROOM = ("########", "#.     #", "#  $   #", "#  # # #", "##    .#", "####@###", "########")
"""(1,1) and (4,6) are corners with a target, (1,6), (3,1), (4,2) and (5,4) corners without; (3,4) is a corridor."""

DEAD_CORNER = Exercise(
    "dead corner",
    _dead_corner,
    tuple((_ROOM, cell) for cell in ((1, 1), (1, 6), (3, 1), (1, 3), (2, 4), (3, 4), (4, 2), (4, 6), (2, 1), (5, 4))),
    (
        Mistake(
            "a corner that is a target is the best place for a box, not a dead one",
            lambda rows, cell: any(_walls(rows, cell)[:2]) and any(_walls(rows, cell)[2:]),
        ),
        Mistake(
            "two walls on opposite sides are a corridor: along it a box still moves. It takes one "
            "of up and down and one of left and right",
            lambda rows, cell: sum(_walls(rows, cell)) >= 2 and rows[cell[0]][cell[1]] not in ".*+",
        ),
        Mistake(
            "one wall is not enough: along a wall a box still moves",
            lambda rows, cell: any(_walls(rows, cell)) and rows[cell[0]][cell[1]] not in ".*+",
        ),
        Mistake(
            "you look at the upper left corner only; there are four",
            lambda rows, cell: _walls(rows, cell)[0] and _walls(rows, cell)[2] and rows[cell[0]][cell[1]] not in ".*+",
        ),
        Mistake("it is turned round: true means that the box is lost", lambda rows, cell: not _dead_corner(rows, cell)),
    ),
    "a box there never moves again, however well the rest is played.",
)

# At least one: at_least_one(p, n) → chance that at least one of n attempts succeeds

AT_LEAST_ONE = Exercise(
    "at least one of n",
    lambda p, n: 1 - (1 - p) ** n,
    ((0.25, 8), (0.01, 8), (0.5, 1), (1.0, 4), (0.0, 8)),
    (
        Mistake("n·p counts attempts that succeed together twice: for 8 times 0.25 it is 2", lambda p, n: n * p),
        Mistake("that is the chance that all n succeed", lambda p, n: p**n),
        Mistake("that is the chance that none succeeds: one step is left", lambda p, n: (1 - p) ** n),
        Mistake("1 − pⁿ is the chance that at least one fails", lambda p, n: 1 - p**n),
        Mistake("that is the chance of exactly one success", lambda p, n: n * p * (1 - p) ** (n - 1)),
    ),
    "eight poor attempts are better than one, if somebody says which of them was good.",
)


def check_outcome(answer: Answer) -> bool:
    """``answer(ahead, beyond)``: XSB characters of the next two cells → ``moved``, ``pushed`` or ``blocked``."""
    return check(OUTCOME, answer)


def check_dead_corner(answer: Answer) -> bool:
    """``answer(rows, cell)``: XSB rows and (row, column) of a floor cell → whether a box there is lost for ever."""
    return check(DEAD_CORNER, answer)


def check_at_least_one(answer: Answer) -> bool:
    """``answer(p, n)``: chance of one attempt and their number → chance that at least one of them succeeds."""
    return check(AT_LEAST_ONE, answer)
