"""Proof that no held-out position is in the batches of Sokoban's recipe: each batch is made again, read and compared.

It shares no code with the rejection (`tasks.sokoban.keys`, `Demonstration.boards`). A row of token ids is text again, a
position is the text of a board with a player in every cell that the player can reach, and two positions are the same
if one is among the eight symmetric texts of the other. It is slow, so one process a core compares.
"""

from __future__ import annotations

import multiprocessing
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np

from himac_lite.pretraining import Batch
from himac_lite.processors import cores
from himac_lite.tasks.sokoban import language
from himac_lite.tasks.sokoban.generator import reserve
from himac_lite.tasks.sokoban.levels import held_out_levels
from himac_lite.types import Cell

_ROLES = {"<plan>": "planner", "<act>": "executor", "<play>": "flat"}
_SEQUENCE = re.compile(r"(<\w+>)\n(#[^<]*?#)\n\n(?:\n(push [^\n<]*))?<again>\n\2\n\n(.*)", re.DOTALL)
_STEP = re.compile(r"\n(up|down|left|right) (moved|pushed|blocked) \((\d),(\d)\)")
_PUSH = re.compile(r"\npush the box at \((\d),(\d)\) (up|down|left|right) to \((\d),(\d)\)")
_WAY = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}


@dataclass(frozen=True)
class Hit:
    """A held-out position in a demonstration."""

    level: str
    """Title of the held-out level, such as ``core/test 12``; ``reserve 7`` is a candidate for ``core/holdout``."""
    role: str
    pushes: int
    """Pushes before the position: 0 is the board of the prompt."""
    place: str = ""
    """Stage, batch and row."""


@dataclass
class Proof:
    """What was compared, and what was found."""

    batches: int
    demonstrations: Counter[str]
    """By role."""
    positions: int
    held_out: int
    hits: list[Hit]

    def __str__(self) -> str:
        roles = ", ".join(f"{count:,} {role}" for role, count in sorted(self.demonstrations.items()))
        return (
            f"{self.batches:,} batches, {self.demonstrations.total():,} demonstrations ({roles}), "
            f"{self.positions:,} positions compared with {self.held_out:,} held-out ones: {len(self.hits):,} hits"
        )


# One position


@dataclass
class _Game:
    """A position that text is played on."""

    rows: list[str]
    boxes: set[Cell]
    player: Cell

    @classmethod
    def of(cls, text: str) -> _Game:
        rows = text.split("\n")
        cells = {(r, c): char for r, row in enumerate(rows) for c, char in enumerate(row)}
        (player,) = (cell for cell, char in cells.items() if char in "@+")
        bare = [re.sub("[@$]", " ", re.sub("[*+]", ".", row)) for row in rows]
        return cls(bare, {cell for cell, char in cells.items() if char in "$*"}, player)

    def free(self, cell: Cell) -> bool:
        return self.rows[cell[0]][cell[1]] != "#" and cell not in self.boxes

    def region(self) -> set[Cell]:
        """Every cell that the player can walk to."""
        region, edge = {self.player}, [self.player]
        while edge:
            r, c = edge.pop()
            new = {(r + dr, c + dc) for dr, dc in _WAY.values() if self.free((r + dr, c + dc))} - region
            region |= new
            edge += new
        return region

    def text(self) -> str:
        """The smallest of the eight symmetric texts, with a player in every cell of the region."""
        rows = [list(row) for row in self.rows]
        for cells, plain, on_target in ((self.boxes, "$", "*"), (self.region(), "@", "+")):
            for r, c in cells:
                rows[r][c] = on_target if rows[r][c] == "." else plain
        lines, images = ["".join(row) for row in rows], []
        for _ in range(4):
            lines = ["".join(column) for column in zip(*lines[::-1], strict=True)]
            images += ["\n".join(lines), "\n".join(line[::-1] for line in lines)]
        return min(images)


def positions(sequence: str) -> tuple[str, list[str]]:
    """The text of a demonstration → its role, and the position of its prompt and after every push."""
    found = _SEQUENCE.fullmatch(sequence)
    if found is None:
        raise ValueError(f"not a demonstration: {sequence!r}")
    mark, board, _, rest = found.groups()
    game = _Game.of(board)
    return _ROLES[mark], [game.text(), *(_planned if mark == "<plan>" else _played)(game, rest)]


def _played(game: _Game, rest: str) -> Iterator[str]:
    for way, happened, row, column in _STEP.findall(rest):
        game.player = int(row), int(column)
        if happened == "pushed":
            game.boxes.remove(game.player)
            game.boxes.add((game.player[0] + _WAY[way][0], game.player[1] + _WAY[way][1]))
            yield game.text()


def _planned(game: _Game, rest: str) -> Iterator[str]:
    """The positions of a plan until a push cannot be made."""
    for r, c, way, row, column in _PUSH.findall(rest):
        box, target, (dr, dc) = (int(r), int(c)), (int(row), int(column)), _WAY[way]
        while box != target:
            ahead = box[0] + dr, box[1] + dc
            behind = box[0] - dr, box[1] - dc
            if box not in game.boxes or not game.free(ahead) or behind not in game.region():
                return
            game.boxes ^= {box, ahead}
            game.player, box = box, ahead
            yield game.text()


# All batches


def held_out() -> dict[str, str]:
    """Position → title, of every validation, test and holdout level and of every candidate for the holdout."""
    named = [(f"reserve {i}", level) for i, level in enumerate(reserve(), 1)]
    named += [(level.title, level) for level in held_out_levels()]
    return {_Game.of(level.text).text(): title for title, level in named}


def compare(ids: np.ndarray, forbidden: dict[str, str]) -> list[tuple[str, int, list[Hit]]]:
    """Of each row of a batch (ids [B, T]): its role, its number of positions, its hits."""
    pieces, out = language.vocabulary(), []
    for row in ids.tolist():
        role, found = positions("".join(pieces[i] for i in row if i))
        hits = [Hit(forbidden[text], role, n) for n, text in enumerate(found) if text in forbidden]
        out.append((role, len(found), hits))
    return out


def prove(stages: Sequence[tuple[str, int, Iterator[Batch]]], say: Callable[[str], None] = print) -> Proof:
    """Compare every batch of (name of the stage, number of batches, batches); `say` hears of every 50th."""
    forbidden = held_out()
    proof = Proof(0, Counter(), 0, len(forbidden), [])
    for name, count, batches in stages:
        listed = (next(batches)[0] for _ in range(count))
        for number, rows in enumerate(_compared(listed, forbidden), 1):
            proof.batches += 1
            for row, (role, compared, hits) in enumerate(rows, 1):
                proof.demonstrations[role] += 1
                proof.positions += compared
                place = f"{name}, batch {number}, row {row}"
                proof.hits += [Hit(hit.level, hit.role, hit.pushes, place) for hit in hits]
            if number % 50 == 0 or number == count:
                say(f"{name} {number}/{count}: {proof.demonstrations.total():,} demonstrations, {len(proof.hits)} hits")
    return proof


def _compared(batches: Iterable[np.ndarray], forbidden: dict[str, str]) -> Iterator[list[tuple[str, int, list[Hit]]]]:
    """`compare` of each batch in order: here, or with several cores in processes while this one makes batches."""
    workers = cores() - 1
    if not workers:
        yield from (compare(ids, forbidden) for ids in batches)
        return
    waiting: deque[Future[list[tuple[str, int, list[Hit]]]]] = deque()
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        for ids in batches:
            waiting.append(pool.submit(compare, ids, forbidden))
            if len(waiting) > 4 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
