"""State → text → tokens, and text → blueprint or action. No text of a model raises an exception.

There are three prompts, each with the board in XSB characters:

- planner:  ``<plan>`` board ``<again>`` board → ``push the box at (2,3) right to (2,5)`` lines, end token
- executor: ``<act>`` board, sub-goal, ``<again>`` board → ``up moved (2,3)`` … ``<sub_done>``
- flat:     ``<play>`` board ``<again>`` board → ``up moved (2,3)`` … until the episode ends

The board appears twice because attention is causal. In the first copy a cell's token cannot attend to later cells. In
the second copy every token can attend to the whole board, and to the sub-goal before it.
The observation after each action says what happened and names the player's new cell, so the model need not track the
position through the segment. This alone raised an early executor from 46 % to 60 %.
"""

from __future__ import annotations

import re

from himac_lite.tasks.marks import AGAIN, MARK, SPECIAL
from himac_lite.tasks.sokoban.rules import NAMES, STEP, Board, Outcome, rows_of
from himac_lite.types import Blueprint, Cell, Invalid, Role, SubGoal

MAX_SIDE = 10
"""Maximum board side, including the border: the tokenizer of the small model has coordinates 0–9."""
MAX_SUBGOALS = 12

ACTIONS = tuple(f"\n{name}" for name in NAMES)
"""Action texts in the order of `rules.MOVES`."""
_HAPPENED = {Outcome.MOVED: "moved", Outcome.PUSHED: "pushed", Outcome.BLOCKED: "blocked"}


def cell_text(cell: Cell) -> str:
    return f"({cell[0]},{cell[1]})"


def observation_text(outcome: Outcome, player: Cell) -> str:
    """The observation after an action: `` moved (2,3)``, `` pushed (2,3)`` or `` blocked (2,3)``."""
    return f" {_HAPPENED[outcome]} {cell_text(player)}"


def board_pieces(board: Board) -> list[str]:
    """The board's text, split as by the small model's tokenizer: each border and each row end is one piece."""
    border = "#" * board.width
    pieces = [f"\n{border}\n#"]
    for row in rows_of(board)[1:-1]:
        pieces += [*row[1:-1], "#\n#"]
    pieces[-1] = f"#\n{border}\n\n"
    return pieces


def subgoal_text(box: Cell, direction: str, target: Cell) -> str:
    """The sub-goal 'push the box at `box` in a straight line to `target`'; direction: up, down, left or right."""
    return f"push the box at {cell_text(box)} {direction} to {cell_text(target)}"


def prompt(role: Role, board: Board, subgoal: SubGoal | None = None) -> str:
    """The prompt of a role; the executor needs its active sub-goal."""
    return "".join(prompt_pieces(role, board, subgoal))


def prompt_pieces(role: Role, board: Board, subgoal: SubGoal | None = None) -> list[str]:
    """`prompt`, split as by the small model's tokenizer."""
    shown = board_pieces(board)
    return [MARK[role], *shown, *(subgoal_pieces(subgoal) if subgoal else ()), AGAIN, *shown]


def subgoal_pieces(subgoal: SubGoal) -> list[str]:
    """A sub-goal on its own line: four tokens for a push."""
    push = parse_push(subgoal.text)
    if isinstance(push, Invalid):
        return ["\n" + subgoal.text]
    box, direction, target = push
    return ["\npush the box at ", cell_text(box), f" {direction} to ", cell_text(target)]


_LINE = re.compile(r"push the box at \(([0-9]),([0-9])\) (up|down|left|right) to \(([0-9]),([0-9])\)")


def parse_push(text: str) -> tuple[Cell, str, Cell] | Invalid:
    """One sub-goal line → (box, direction, target), or why it is invalid."""
    found = _LINE.fullmatch(text)
    if not found:
        return Invalid.SYNTAX
    box, direction, target = (int(found[1]), int(found[2])), found[3], (int(found[4]), int(found[5]))
    dr, dc = STEP[direction[0]]
    distance = (target[0] - box[0]) * dr + (target[1] - box[1]) * dc
    if distance < 1 or target != (box[0] + distance * dr, box[1] + distance * dc):
        return Invalid.GEOMETRY
    return box, direction, target


def parse_blueprint(text: str, finished: bool = True) -> Blueprint:
    """Text → blueprint. Never raises: an invalid blueprint has a reason and no sub-goals.

    finished: whether the planner wrote the end token.
    """
    if not finished:
        return Blueprint(text, (), Invalid.UNFINISHED)
    lines = text.strip("\n").split("\n", MAX_SUBGOALS + 1) if text.strip() else []
    if not lines:
        return Blueprint(text, (), Invalid.EMPTY)
    if len(lines) > MAX_SUBGOALS:
        return Blueprint(text, (), Invalid.TOO_LONG)
    for line in lines:
        pushed = parse_push(line)
        if isinstance(pushed, Invalid):
            return Blueprint(text, (), pushed)
    return Blueprint(text, tuple(map(SubGoal, lines)))


def format_blueprint(subgoals: tuple[SubGoal, ...]) -> str:
    """The planner's text for these sub-goals: a newline before each."""
    return "".join("\n" + g.text for g in subgoals)


def vocabulary() -> list[str]:
    """The small model's tokens in id order; all texts above are sequences of these."""
    cells = [(r, c) for r in range(MAX_SIDE) for c in range(MAX_SIDE)]
    widths = range(3, MAX_SIDE + 1)
    return [
        *SPECIAL,
        *" #.$*@+",
        "#\n#",  # from the end of one row to the start of the next
        *(f"\n{'#' * w}\n#" for w in widths),  # top border
        *(f"#\n{'#' * w}\n\n" for w in widths),  # bottom border
        "\npush the box at ",
        *(f" {name} to " for name in NAMES),
        *map(cell_text, cells),
        *ACTIONS,
        *(observation_text(o, cell) for o in Outcome for cell in cells),
    ]
