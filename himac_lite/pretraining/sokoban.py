"""Sokoban: demonstrations from the solver and from beginners, so that something is left to learn, and the recipe.

Three kinds of sequence share one model: blueprints (planner), segments (executor) and flat play. An *expert* writes
optimal ones. A *beginner* finishes what it begins and errs on the way:

- in a blueprint it plans every box along straight lines to its nearest target, whatever stands in the way, so that
  pushes are impossible or lead into a deadlock;
- in flat play it does so as far as it can be done, and then wanders;
- in a long segment it stops one move too early, or it makes detours.

`Mixture` says how often beginners demonstrate, for short and for long levels: they are careful with short levels.
Reinforcement learning then has to shift probability between modes that are all there already. No demonstrator forgets
a box: a plan that stops early is repaired by any rule that plans again, which is not learning.

A demonstration that passes through a held-out position is dropped, and the next one takes its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass

import numpy as np

from himac_lite.errors import LevelError
from himac_lite.pretraining import Batch, Recipe, Solution, Stage
from himac_lite.pretraining.augment import Demonstration, symmetric_batches
from himac_lite.pretraining.tokenizers import build_tokenizer
from himac_lite.settings import Pretrain
from himac_lite.tasks import marks
from himac_lite.tasks.sokoban import language
from himac_lite.tasks.sokoban.generator import held_out_keys, random_layout, random_positions
from himac_lite.tasks.sokoban.keys import Key, position_key
from himac_lite.tasks.sokoban.levels import closed
from himac_lite.tasks.sokoban.pushes import after_push, execute_push, legal_pushes, manhattan
from himac_lite.tasks.sokoban.rules import MOVES, STEP, Board, Outcome, board_from_level, rows_of, step
from himac_lite.tasks.sokoban.solver import DistanceTable, distances, solve
from himac_lite.tasks.sokoban.task import Push, pushes_of
from himac_lite.types import Level, Role, SubGoal

_VOCABULARY = {piece: i for i, piece in enumerate(language.vocabulary())}


@dataclass(frozen=True)
class Mixture:
    """How often beginners demonstrate in a stage; the rest is the expert's."""

    short: float = 0.0
    """Share of beginners' blueprints and flat episodes at levels with an optimal length up to `threshold`."""
    long: float = 0.0
    """The same at the others."""
    threshold: int = 9
    detours: float = 0.0
    """Probability of a detour at each step of a beginner's flat play and of a sloppy segment, learnt from as well."""
    sloppy_segments: float = 0.2
    """Share of the executor's segments that make detours."""
    early_segments: float = 0.0
    """Share of the executor's segments of at least `early_from` moves that end one move too early."""
    early_from: int = 8
    any_push: float = 0.5
    """Share of segments whose sub-goal is any legal push, so that the executor does what it is told, not what it would
    have planned; the others have the solver's next push."""


EXPERT = Mixture()


# Sequences


def _ids(pieces: list[str]) -> list[int]:
    return [_VOCABULARY[p] for p in pieces]


def _played(board: Board, moves: str, learn: list[bool]) -> tuple[list[int], list[bool], list[Board]]:
    """Moves → action and observation tokens, with the loss on the actions that `learn` marks, and the boards passed."""
    ids: list[int] = []
    flags: list[bool] = []
    boards = [board]
    for move, counts in zip(moves, learn, strict=True):
        board, outcome = step(board, move)
        if outcome is Outcome.PUSHED:
            boards.append(board)
        ids += _ids([language.ACTIONS[MOVES.index(move)], language.observation_text(outcome, board.player)])
        flags += [counts, False]
    return ids, flags, boards


def _demonstration(
    role: Role, boards: list[Board], subgoal: SubGoal | None, ids: list[int], learn: list[bool]
) -> Demonstration:
    prompt = _ids(language.prompt_pieces(role, boards[0], subgoal))
    flags = (*(False for _ in prompt), *learn)
    return Demonstration(role, boards[0].width, (*prompt, *ids), flags, tuple(boards))


def subgoal_of(push: Push) -> SubGoal:
    return SubGoal(language.subgoal_text(*push))


def plan_demonstration(board: Board, plan: list[Push]) -> Demonstration:
    ids = [i for push in plan for i in _ids(language.subgoal_pieces(subgoal_of(push)))]
    ids.append(_VOCABULARY[marks.END])
    return _demonstration(Role.PLANNER, _planned(board, plan), None, ids, [True] * len(ids))


def _planned(board: Board, plan: list[Push]) -> list[Board]:
    """The boards that a plan passes through, cell by cell, until a push is impossible."""
    boards = [board]
    for box, direction, target in plan:
        dr, dc = STEP[direction[0]]
        while box != target:
            ahead = (box[0] + dr, box[1] + dc)
            if execute_push(boards[-1], (box, direction, ahead)) is None:
                return boards
            boards.append(after_push(boards[-1], (box, direction, ahead)))
            box = ahead
    return boards


def flat_demonstration(board: Board, moves: str, learn: list[bool]) -> Demonstration:
    ids, flags, boards = _played(board, moves, learn)
    return _demonstration(Role.FLAT, boards, None, ids, flags)


def segment_demonstration(
    board: Board, push: Push, rng: np.random.Generator, noise: float, learn_noise: bool, early: float = 0.0
) -> Demonstration | None:
    """The executor's demonstration of one sub-goal; None where it cannot be done.

    With probability `early` it ends one move too early.

    With probability `noise` a step of the walk is a random move that touches no box; it counts in the loss only if
    `learn_noise`, so that the executor learns to recover from a slip without learning to slip.
    """
    here, moves, learn = board, "", []
    plan = execute_push(board, push)
    while plan:
        move, counts = plan[0], True
        walking = not all(m == plan[0] for m in plan) or len(plan) > manhattan(push[0], push[2])
        if walking and rng.random() < noise:
            options = [m for m in MOVES if step(here, m)[1] is not Outcome.PUSHED]
            move, counts = options[int(rng.integers(len(options)))], learn_noise
        here, outcome = step(here, move)
        moves += move
        learn.append(counts)
        if outcome is Outcome.PUSHED or move == plan[0]:
            plan = plan[1:]
        else:
            plan = execute_push(here, push)
    if plan is None or len(moves) > 40:
        return None
    if early and rng.random() < early:
        moves, learn = moves[:-1], learn[:-1]
    ids, flags, boards = _played(board, moves, learn)
    if not boards[-1].solved:
        ids.append(_VOCABULARY[marks.SUB_DONE])
        flags.append(True)
    return _demonstration(Role.EXECUTOR, boards, subgoal_of(push), ids, flags)


def _beginner_play(board: Board, plan: list[Push], rng: np.random.Generator, detours: float) -> str:
    """Flat play that follows a plan as far as it can be done, then wanders at random."""
    moves = ""
    for push in plan:
        part = execute_push(board, push)
        if part is None:
            break
        for move in part:
            free = _free_moves(board)
            if free and rng.random() < detours:  # one step aside and back
                aside = free[int(rng.integers(len(free)))]
                moves += aside + _opposite(aside)
            board, _ = step(board, move)
            moves += move
        if board.solved:
            return moves
    for _ in range(int(rng.integers(4, 9))):
        free = _free_moves(board)
        if not free:
            break
        move = free[int(rng.integers(len(free)))]
        board, _ = step(board, move)
        moves += move
    return moves


def _free_moves(board: Board) -> list[str]:
    return [m for m in MOVES if step(board, m)[1] is Outcome.MOVED]


def _opposite(move: str) -> str:
    return MOVES[MOVES.index(move) ^ 1]


# A beginner's plan


def beginner_pushes(board: Board) -> list[Push]:
    """A beginner's plan: nearest box first, sideways and then up or down, through whatever stands there."""
    plan: list[Push] = []
    targets = set(board.targets - board.boxes)
    boxes = sorted(board.boxes - board.targets, key=lambda b: (manhattan(b, board.player), b))
    for box in boxes:
        target = min(targets, key=lambda t: (manhattan(t, box), t))
        targets.remove(target)
        corner = (box[0], target[1])
        if corner != box:
            plan.append((box, "right" if corner[1] > box[1] else "left", corner))
        if target != corner:
            plan.append((corner, "down" if target[0] > corner[0] else "up", target))
    return plan


# Streams


def demonstrate(
    board: Board, length: int, table: DistanceTable, rng: np.random.Generator, mixture: Mixture, noise: float
) -> Iterator[Demonstration]:
    """One blueprint, one flat episode and one segment for one position of optimal length `length`."""
    beginners = mixture.short if length <= mixture.threshold else mixture.long
    expert = pushes_of(board, table.play(board, rng)[0])

    yield plan_demonstration(board, (rng.random() < beginners and beginner_pushes(board)) or expert)

    if rng.random() < beginners:
        moves = _beginner_play(board, beginner_pushes(board) or expert, rng, mixture.detours)[:32]
        if moves:
            yield flat_demonstration(board, moves, [True] * len(moves))
    else:
        yield flat_demonstration(board, *table.play(board, rng, noise, limit=32))

    here = board
    for push in expert[: int(rng.integers(len(expert)))]:
        here = after_push(here, push)
    legal = legal_pushes(here)
    if rng.random() < mixture.any_push:
        told = legal[int(rng.integers(len(legal)))]
    else:
        told = pushes_of(here, table.play(here, rng)[0])[0]
    sloppy = mixture.detours > 0 and rng.random() < mixture.sloppy_segments
    long = len(execute_push(here, told) or "") >= mixture.early_from
    early = mixture.early_segments if long else 0.0
    made = segment_demonstration(here, told, rng, mixture.detours if sloppy else noise, sloppy, early)
    if made:
        yield made


def stream(
    rng: np.random.Generator, mixture: Mixture, noise: float, held_out: Set[Key], warmup_share: float = 0.06
) -> Iterator[Demonstration]:
    """Demonstrations of fresh random levels for ever; none passes through a position with a key of `held_out`."""
    while True:
        size, boxes = (6, 1) if rng.random() < warmup_share else (7, 2)
        layout = random_layout(rng, size, boxes, 0.25)
        table = distances(layout)
        for position, length in random_positions(rng, table, layout, (3, 25), 24):
            board = board_from_level(closed(Level(rows_of(position))))  # as a level file would have it
            for made in demonstrate(board, length, table, rng, mixture, noise):
                if held_out.isdisjoint(map(position_key, made.boards)):
                    yield made


# The recipe


def solution(level: Level, rng: np.random.Generator, who: str = "expert") -> Solution:
    """The solver's pushes, each carried out by the shortest way, and its shortest moves. Draws nothing from `rng`.

    Raises `LevelError` for a level that is solved already or has no solution.
    """
    found, board = solve(level), board_from_level(level)
    if found is None or not found.lurd:
        raise LevelError(f"level {level.title!r} has no solution of at least one move")
    parts = []
    for push in pushes_of(board, found.lurd):
        parts.append((subgoal_of(push), tuple(map(MOVES.index, execute_push(board, push) or ""))))
        board = after_push(board, push)
    return Solution(tuple(parts), tuple(map(MOVES.index, found.lurd.lower())))


BEGINNERS = Mixture(short=0.1, long=0.55, threshold=6, detours=0.05, early_segments=0.7)
"""Chosen on `core/validation` (docs/experiments.md)."""
STAGES = (
    Stage("expert demonstrations", "expert_steps", EXPERT, settled=False),
    Stage("expert demonstrations, settled", "settle_steps", EXPERT),
    Stage("beginners", "habit_steps", BEGINNERS, rate=1 / 3),
)


def _tokenizer(seed: int) -> object:
    """The vocabulary; asked for first, so a missing numba is reported before the work, not by a worker."""
    from himac_lite.tasks.sokoban import jit  # noqa: F401

    return build_tokenizer()


def _batches(settings: Pretrain, number: int, tokenizer: object) -> Iterator[Batch]:
    rng = np.random.default_rng([settings.seed, number])
    source = stream(rng, STAGES[number].players, settings.noise, held_out_keys())
    return symmetric_batches(source, settings.batch_tokens, rng)


RECIPE = Recipe(
    "sokoban",
    "It saw blueprints, segments and flat play on fresh random levels (7x7 with two boxes, a few 6x6 with one).\n"
    "No demonstration passes through the start of a validation, test or holdout level, up to symmetry and the player's "
    "walk: `himac-lite pretrain --prove` makes every batch again and compares.\n"
    "Beginners demonstrated beside the solver in the last stage: they finish their plans and push wrongly.\n"
    "The vocabulary has boards up to 10x10; the model was shown 7x7 and 6x6 only.",
    Pretrain(width=192, inner=320, heads=6, settle_steps=600, habit_steps=200), STAGES, _tokenizer, _batches, solution,
)  # fmt: skip
