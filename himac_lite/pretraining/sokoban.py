"""Sokoban: demonstrations from the solver, of mixed quality so that something is left to learn, and the recipe.

Three kinds of sequence share one model: blueprints (planner), segments (executor) and flat play. An *expert* writes
optimal ones. *Novices* make mistakes that a beginner makes:

- greedy: pushes every box along straight lines to its nearest target, whatever stands in the way;
- hasty: does so with the nearest box and forgets the others (in flat play it then paces to and fro);
- useless: a few legal pushes that serve nothing (in flat play it then wanders).

`Mixture` says how often each writes, for short and for long levels: the demonstrators are careful with short levels and
sloppy with long ones. Reinforcement learning then has to shift probability between modes that are all there already.

A demonstration that passes through a held-out position is dropped, and the next one takes its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import astuple, dataclass

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
class Shares:
    """How often each demonstrator writes a blueprint or plays flat; the sum is 1."""

    expert: float = 1.0
    greedy: float = 0.0
    """Plans every box; its pushes may be impossible or lead into a deadlock."""
    hasty: float = 0.0
    """The plan stops after one box."""
    useless: float = 0.0
    """The plan stops after one to three possible pushes."""


@dataclass(frozen=True)
class Mixture:
    """Who demonstrates in a stage, and how well."""

    short: Shares = Shares()
    """Levels with an optimal length up to `threshold`."""
    long: Shares = Shares()
    """The others."""
    threshold: int = 9
    detours: float = 0.0
    """Probability of a detour at each step of a novice's flat play and of a sloppy segment, learnt from as well."""
    sloppy_segments: float = 0.2
    """Share of the executor's segments that make detours."""
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
    board: Board, push: Push, rng: np.random.Generator, noise: float, learn_noise: bool
) -> Demonstration | None:
    """The executor's demonstration of one sub-goal; None where it cannot be done.

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
    ids, flags, boards = _played(board, moves, learn)
    if not here.solved:
        ids.append(_VOCABULARY[marks.SUB_DONE])
        flags.append(True)
    return _demonstration(Role.EXECUTOR, boards, subgoal_of(push), ids, flags)


def _novice_play(board: Board, plan: list[Push], rng: np.random.Generator, detours: float, pace: bool) -> str:
    """Flat play that follows a plan as far as it can be done, then wanders at random or paces to and fro."""
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
        back = _opposite(moves[-1]) if moves else free[0]
        move = (back if back in free else free[0]) if pace else free[int(rng.integers(len(free)))]
        board, _ = step(board, move)
        moves += move
    return moves


def _free_moves(board: Board) -> list[str]:
    return [m for m in MOVES if step(board, m)[1] is Outcome.MOVED]


def _opposite(move: str) -> str:
    return MOVES[MOVES.index(move) ^ 1]


# Beginners' plans


def greedy_pushes(board: Board, only_first: bool = False) -> list[Push]:
    """A beginner's plan: nearest box first, sideways and then up or down, through whatever stands there."""
    plan: list[Push] = []
    targets = set(board.targets - board.boxes)
    boxes = sorted(board.boxes - board.targets, key=lambda b: (manhattan(b, board.player), b))
    for box in boxes[:1] if only_first else boxes:
        target = min(targets, key=lambda t: (manhattan(t, box), t))
        targets.remove(target)
        corner = (box[0], target[1])
        if corner != box:
            plan.append((box, "right" if corner[1] > box[1] else "left", corner))
        if target != corner:
            plan.append((corner, "down" if target[0] > corner[0] else "up", target))
    return plan


def useless_pushes(board: Board, rng: np.random.Generator) -> list[Push]:
    """One to three legal pushes of random boxes in random directions."""
    plan: list[Push] = []
    for _ in range(int(rng.integers(1, 4))):
        legal = legal_pushes(board)
        if not legal:
            break
        push = legal[int(rng.integers(len(legal)))]
        plan.append(push)
        board = after_push(board, push)
    return plan


# Streams


def demonstrate(
    board: Board, length: int, table: DistanceTable, rng: np.random.Generator, mixture: Mixture, noise: float
) -> Iterator[Demonstration]:
    """One blueprint, one flat episode and one segment for one position of optimal length `length`."""
    shares = astuple(mixture.short if length <= mixture.threshold else mixture.long)
    optimal, _ = table.play(board, rng)
    expert = pushes_of(board, optimal)

    def plan_by(writer: int) -> list[Push]:
        return (
            expert,
            greedy_pushes(board) or expert,
            greedy_pushes(board, only_first=True) or expert,
            useless_pushes(board, rng) or expert,
        )[writer]

    yield plan_demonstration(board, plan_by(int(rng.choice(4, p=shares))))

    writer = int(rng.choice(4, p=shares))
    if writer == 0:
        yield flat_demonstration(board, *table.play(board, rng, noise, limit=32))
    else:
        moves = _novice_play(board, plan_by(writer), rng, mixture.detours, pace=writer == 2)[:32]
        if moves:
            yield flat_demonstration(board, moves, [True] * len(moves))

    here = board
    for push in expert[: int(rng.integers(len(expert)))]:
        here = after_push(here, push)
    legal = legal_pushes(here)
    if rng.random() < mixture.any_push:
        told = legal[int(rng.integers(len(legal)))]
    else:
        told = pushes_of(here, table.play(here, rng)[0])[0]
    sloppy = mixture.detours > 0 and rng.random() < mixture.sloppy_segments
    made = segment_demonstration(here, told, rng, mixture.detours if sloppy else noise, learn_noise=sloppy)
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


MIXED = Mixture(
    short=Shares(expert=0.8, greedy=0.1, hasty=0.05, useless=0.05),
    long=Shares(expert=0.33, greedy=0.15, hasty=0.37, useless=0.15),
    threshold=9, detours=0.05,
)  # fmt: skip
SLOPPY = Mixture(
    short=Shares(expert=0.8, greedy=0.05, hasty=0.1, useless=0.05),
    long=Shares(expert=0.40, greedy=0.02, hasty=0.54, useless=0.04),
    threshold=8, detours=0.05,
)  # fmt: skip
"""Chosen on `core/validation` (docs/experiments.md)."""
STAGES = (
    Stage("expert demonstrations", "expert_steps", EXPERT, settled=False),
    Stage("mixed demonstrations", "mixed_steps", MIXED),
    Stage("bad habits", "habit_steps", SLOPPY, rate=1 / 3),
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
    "The demonstrators were careful with short levels and sloppy with long ones.\n"
    "The vocabulary has boards up to 10x10; the model was shown 7x7 and 6x6 only.",
    Pretrain(), STAGES, _tokenizer, _batches, solution,
)  # fmt: skip
