"""Notebook 02: a straight push, the active sub-goal, and the return of a failed episode."""

from __future__ import annotations

from collections.abc import Sequence

from himac_lite.exercises.checking import Exercise, Mistake

Cell = tuple[int, int]
_TURNED = {"up": "down", "down": "up", "left": "left", "right": "right"}
_STEP = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}


def _along(box: Cell, direction: str, target: Cell) -> tuple[int, int]:
    """Steps along the direction, and steps aside."""
    (dr, dc), r, c = _STEP[direction], target[0] - box[0], target[1] - box[1]
    return r * dr + c * dc, r * dc + c * dr


def _straight(box: Cell, direction: str, target: Cell) -> bool:
    ahead, aside = _along(box, direction, target)
    return ahead >= 1 and aside == 0


check_straight_push = Exercise(
    "straight push",
    "``answer(box, direction, target)``: cell (row, column), direction, cell → whether it is one straight push.",
    _straight,
    (
        *(((2, 3), direction, (2, 5)) for direction in ("right", "left", "down")),
        *(((1, 1), direction, (4, 1)) for direction in ("down", "up")),
        *(((3, 4), direction, target) for direction, target in (("left", (3, 3)), ("down", (5, 5)))),
        ((2, 3), "right", (3, 5)),
        ((4, 1), "up", (1, 1)),
        ((2, 2), "left", (2, 2)),
    ),
    (
        Mistake(
            "you check that the cells lie on one line, but not on which side the target lies",
            lambda b, d, t: b != t and (b[0] == t[0] if d in ("left", "right") else b[1] == t[1]),
        ),
        Mistake(
            "a push of zero steps is not a push: the target must be another cell",
            lambda b, d, t: _along(b, d, t)[0] >= 0 and _along(b, d, t)[1] == 0,
        ),
        Mistake(
            "the target lies in the right direction, but not on the same line",
            lambda b, d, t: _along(b, d, t)[0] >= 1,
        ),
        Mistake(
            "rows and columns are swapped: a cell is (row, column), and `right` adds to the column",
            lambda b, d, t: _straight(b[::-1], d, t[::-1]),
        ),
        Mistake(
            "up and down are swapped: rows are counted from the top, so `down` adds to the row",
            lambda b, d, t: _straight(b, _TURNED[d], t),
        ),
    ),
    "in the right direction, on one line, at least one step.",
)


def _active(
    tokens: Sequence[str], budget: int, *, keep: bool = False, early: bool = False, first: int = 0
) -> list[int]:
    out, k, used = [], first, 0
    for token in tokens:
        done = token == "<sub_done>"
        out.append(k + (done and early))
        used += not done
        if done or (used == budget):
            k, used = k + 1, used if keep and done else 0
    return out


_DONE = "<sub_done>"
_TOKENS = ("up", "left", _DONE, "left", _DONE, "down", "right", "right", "right", "up", _DONE, "up")

check_active_subgoals = Exercise(
    "active sub-goal",
    "``answer(tokens, budget)``: T chosen tokens, actions per sub-goal → the active sub-goal's number for each token.",
    _active,
    ((_TOKENS, 10), (_TOKENS, 4), (_TOKENS, 3), ((_DONE, _DONE, "up"), 2), (("up",) * 5, 2)),
    (
        Mistake(
            "the budget has no effect: after `budget` actions the next sub-goal is active, even without <sub_done>",
            lambda tokens, budget: _active(tokens, 10**9),
        ),
        Mistake(
            "<sub_done> belongs to the sub-goal that it ends, not to the next one",
            lambda tokens, budget: _active(tokens, budget, early=True),
        ),
        Mistake(
            "every sub-goal has its own budget: reset the counter after <sub_done> too",
            lambda tokens, budget: _active(tokens, budget, keep=True),
        ),
        Mistake("the first sub-goal has number 0", lambda tokens, budget: _active(tokens, budget, first=1)),
        Mistake(
            "the budget ends sub-goals, but <sub_done> does not",
            lambda tokens, budget: [sum(t != "<sub_done>" for t in tokens[:i]) // budget for i, _ in enumerate(tokens)],
        ),
    ),
    "<sub_done> ends a sub-goal, and so does the budget.",
)


def _honest(success: bool, steps: int, max_steps: int, penalty: float) -> float:
    return 1 - penalty * steps if success else -penalty * max_steps


check_honest_return = Exercise(
    "honest return",
    "``answer(success, steps, max_steps, penalty)`` → a return with a cost per step and no reward for giving up early.",
    _honest,
    ((True, 12, 50, 0.01), (False, 3, 50, 0.01), (False, 50, 50, 0.01), (True, 50, 50, 0.02), (False, 0, 20, 0.0)),
    (
        Mistake(
            "a failure pays only for its own steps, so failing early is cheap: it should pay for all `max_steps`",
            lambda success, steps, limit, penalty: float(success) - penalty * steps,
        ),
        Mistake(
            "a failure costs nothing: giving up then beats a long attempt, and only successes pay the penalty",
            lambda success, steps, limit, penalty: 1 - penalty * steps if success else 0.0,
        ),
        Mistake(
            "a success pays for all `max_steps` too; it should pay for its own steps",
            lambda success, steps, limit, penalty: float(success) - penalty * limit,
        ),
        Mistake("the penalty has no effect", lambda success, steps, limit, penalty: float(success)),
        Mistake(
            "the penalty has the wrong sign: each step must lower the return",
            lambda success, steps, limit, penalty: _honest(success, steps, limit, -penalty),
        ),
    ),
    "a failed episode costs the same, however early it ends.",
)
