"""Notebook 02: a straight push, the active sub-goal, and what a failed episode should cost."""

from __future__ import annotations

from collections.abc import Sequence

from himac_lite.exercises.checking import Answer, Exercise, Mistake, check

Cell = tuple[int, int]
_TURNED = {"up": "down", "down": "up", "left": "left", "right": "right"}
_STEP = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}

# Straight push: straight_push(box, direction, target) → bool


def _along(box: Cell, direction: str, target: Cell) -> tuple[int, int]:
    """Steps along the direction, and steps aside."""
    (dr, dc), r, c = _STEP[direction], target[0] - box[0], target[1] - box[1]
    return r * dr + c * dc, r * dc + c * dr


def _straight(box: Cell, direction: str, target: Cell) -> bool:
    ahead, aside = _along(box, direction, target)
    return ahead >= 1 and aside == 0


STRAIGHT_PUSH = Exercise(
    "straight push",
    _straight,
    (
        ((2, 3), "right", (2, 5)), ((2, 3), "left", (2, 5)), ((2, 3), "right", (3, 5)), ((4, 1), "up", (1, 1)),
        ((1, 1), "down", (4, 1)), ((1, 1), "up", (4, 1)), ((2, 2), "left", (2, 2)), ((2, 3), "down", (2, 5)),
        ((3, 4), "left", (3, 3)), ((3, 4), "down", (5, 5)),
    ),
    (
        Mistake(
            "you see that the cells lie on one line, but not on which side the target lies: left is not right",
            lambda b, d, t: b != t and (b[0] == t[0] if d in ("left", "right") else b[1] == t[1]),
        ),
        Mistake(
            "a push of no step is no push: the target has to be another cell",
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
)  # fmt: skip

# Active sub-goal: active_subgoals(tokens, budget) → the number of the sub-goal of each token
# tokens: what the executor chose, actions and <sub_done>


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


_TOKENS = (
    "up",
    "left",
    "<sub_done>",
    "left",
    "<sub_done>",
    "down",
    "right",
    "right",
    "right",
    "up",
    "<sub_done>",
    "up",
)

ACTIVE_SUBGOAL = Exercise(
    "active sub-goal",
    _active,
    ((_TOKENS, 10), (_TOKENS, 4), (_TOKENS, 3), (("<sub_done>", "<sub_done>", "up"), 2), (("up",) * 5, 2)),
    (
        Mistake(
            "the budget does nothing: after `budget` actions the next sub-goal is active, even without <sub_done>",
            lambda tokens, budget: _active(tokens, 10**9),
        ),
        Mistake(
            "<sub_done> belongs to the sub-goal that it ends, not to the next one",
            lambda tokens, budget: _active(tokens, budget, early=True),
        ),
        Mistake(
            "every sub-goal has a budget of its own: start counting anew after <sub_done> too",
            lambda tokens, budget: _active(tokens, budget, keep=True),
        ),
        Mistake(
            "the first sub-goal is number 0, as Python counts", lambda tokens, budget: _active(tokens, budget, first=1)
        ),
        Mistake(
            "the budget ends sub-goals, but <sub_done> does not",
            lambda tokens, budget: [sum(t != "<sub_done>" for t in tokens[:i]) // budget for i, _ in enumerate(tokens)],
        ),
    ),
    "the executor says when it is done, and the budget says when it is enough.",
)

# Honest return: honest_return(success, steps, max_steps, penalty) → float


def _honest(success: bool, steps: int, max_steps: int, penalty: float) -> float:
    return 1 - penalty * steps if success else -penalty * max_steps


HONEST_RETURN = Exercise(
    "honest return",
    _honest,
    ((True, 12, 50, 0.01), (False, 3, 50, 0.01), (False, 50, 50, 0.01), (True, 50, 50, 0.02), (False, 0, 20, 0.0)),
    (
        Mistake(
            "a failure pays for the steps that it took, so failing early is cheap. Let it pay for all `max_steps`",
            lambda success, steps, limit, penalty: float(success) - penalty * steps,
        ),
        Mistake(
            "a failure costs nothing: then giving up beats trying long, and the penalty only hurts those who win",
            lambda success, steps, limit, penalty: 1 - penalty * steps if success else 0.0,
        ),
        Mistake(
            "a success pays for all `max_steps` too; it should pay for its own",
            lambda success, steps, limit, penalty: float(success) - penalty * limit,
        ),
        Mistake("nobody pays for anything", lambda success, steps, limit, penalty: float(success)),
        Mistake(
            "the penalty has the wrong sign: steps cost, they do not earn",
            lambda success, steps, limit, penalty: _honest(success, steps, limit, -penalty),
        ),
    ),
    "however early an episode fails, it costs the same.",
)


def check_straight_push(answer: Answer) -> bool:
    """``answer(box, direction, target)``: (row, column), a word, (row, column) → whether that is one straight push."""
    return check(STRAIGHT_PUSH, answer)


def check_active_subgoals(answer: Answer) -> bool:
    """``answer(tokens, budget)``: T chosen tokens and the actions a sub-goal may take → T numbers of sub-goals."""
    return check(ACTIVE_SUBGOAL, answer)


def check_honest_return(answer: Answer) -> bool:
    """``answer(success, steps, max_steps, penalty)`` → the return with a cost a step that does not reward giving up."""
    return check(HONEST_RETURN, answer)
