"""Recorded trajectories of one level, played forward and backward, alone or side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import traitlets

from himac_lite.errors import RunError, checked
from himac_lite.tasks.sokoban import render
from himac_lite.tasks.sokoban.rules import Board
from himac_lite.widgets import pictures
from himac_lite.widgets.base import PACKED, browser_code, records_of
from himac_lite.widgets.cards import CardPlayer, EpisodePlayer, Wanted, member_of
from himac_lite.widgets.plots import SYMBOLS, Record, best_of, executed_blueprint, members_of, signed
from himac_lite.widgets.replay import board_of, is_text, replay


@checked
def playback(
    record: Record, group: str = "micro", member: int | None = None, plan: int | None = None
) -> dict[str, Any]:
    """One recorded trajectory as data for player.js: positions, sub-goals, tokens. A cell is row × width + column.

    group: ``macro`` (greedy execution of a blueprint) or ``micro`` (sampled execution of z*, or flat play).
    member: index in the group; by default z* of the macro group, or the highest return of the micro group.
    plan: the blueprint of the micro group, for records with several; by default z*.
    Raises RunError if the record has no such group or member.
    """
    records_of(record)
    if is_text(record):
        raise RunError("this record is of a text-action task, which has no board; show it with RolloutPlayer(record)")
    plan = best_of(record) if plan is None else plan
    member = member_of(record, group, member, plan)
    chosen, board = members_of(record, group, plan)[member], board_of(record)
    played = replay(board, chosen)
    told = ("micro", member) if group == "micro" and plan < 0 else ("macro", member if group == "macro" else plan)
    text, reason = executed_blueprint(record, *told)
    goals = [{"text": s["subgoal"], "steps": s["steps"], "end": s["end"]} for s in chosen["segments"]]
    note = ""
    if text is None:
        goals = [{**goal, "text": "(flat play: no blueprint)"} for goal in goals]
    elif reason:
        note = f"{text.strip()}\n✗ not executed: {reason}"
    else:
        rest = text.strip("\n").split("\n")[len(goals) :]
        goals += [{"text": line, "steps": 0, "end": ""} for line in rest if line]
    what = f"{SYMBOLS[group]}{member + 1}"
    came = f"{'' if chosen['success'] else 'not '}solved"
    if "advantage" in chosen:  # an episode outside a group has no advantage
        came += f", advantage {signed(chosen['advantage'])}"
    return {
        "name": what, "title": f"{what}, {came}",
        "size": len(board.boxes) + 1, "frames": [cell for frame in played.frames for cell in frame],
        "moves": chosen["moves"], "happened": played.happened, "goals": goals, "note": note, "ret": chosen["return"],
        "advantage": chosen.get("advantage", 0.0), "planned": group == "macro", "tokens": tokens(chosen, group),
    }  # fmt: skip


def tokens(member: Any, group: str) -> list[list[Any]]:
    """[text, role, log-prob, move, segment] of each token after the prompt; move is None for a token without a move.

    The k-th sampled token of a segment is its k-th move; one more is its ``<sub_done>``. Role ``given``: written by the
    environment, mask 0.
    """
    if group == "macro":
        return [[t, "blueprint", p, None, None] for t, p in zip(member["tokens"], member["logp"], strict=True)]
    out, begun = [], 0
    for k, (sequence, segment) in enumerate(zip(member.get("sequences", []), member["segments"], strict=False)):
        taken = 0
        for text, own, logp in zip(sequence["tokens"], sequence["sampled"], sequence["logp"], strict=True):
            move = begun + taken if own and taken < segment["steps"] else None
            role = "given" if not own else "sub_done" if move is None else "action"
            out.append([text, role, logp, move, k])
            taken += own
        begun += segment["steps"]
    return out


def level_playback(record: Record, group: str, member: int | None, plan: int | None) -> tuple[dict[str, Any], int]:
    """All trajectories of a record as data for player.js, and the place of the requested one."""
    board, members = board_of(record), list[dict[str, Any]]()
    at = int(playback(record, group, member, plan)["name"][1:]) - 1  # refuses what is not there
    if group == "micro":
        at += len(members_of(record, "macro"))
    for name in (g for g in SYMBOLS if g in record):
        members += [playback(record, name, n, plan) for n in range(len(members_of(record, name, plan)))]
    empty = Board(board.height, board.width, board.walls, frozenset(), frozenset(), board.player)
    return {
        "title": record.get("title") or "level", "board": render.to_svg(empty, coordinates=True), "width": board.width,
        "targets": [r * board.width + c for r, c in sorted(board.targets)], "members": members, "open": False,
    }, at  # fmt: skip


class RolloutPlayer(EpisodePlayer):
    """A recorded episode on its board, forward and backward: sub-goals and their ends, tokens and their credit.

    It plays in the browser, also while the kernel is busy. beside: a second member of the same record for comparison,
    such as ("micro", 3). explorer: channel and key of an `AdvantageExplorer`, whose returns and advantages replace the
    recorded ones. Other arguments: see `playback`. For a text-action task it creates a `CardPlayer`.
    """

    def __new__(cls, record: Record, *args: Any, **kwargs: Any) -> Any:
        if is_text(*records_of([record])):
            return CardPlayer(record, *args, **kwargs)
        return super().__new__(cls, record, *args, **kwargs)

    _esm = browser_code("unpack.js", "numbers.js", "choosers.js", "player.js")
    _css = browser_code("player.css")
    data = traitlets.Dict().tag(**PACKED)

    def _load(
        self, record: Record, wanted: Sequence[Wanted], plan: int | None, explorer: tuple[str, str]
    ) -> tuple[dict[str, Any], list[int]]:
        found = [level_playback(record, group, member, plan) for group, member in wanted]
        return found[0][0] | dict(zip(("channel", "key"), explorer, strict=True)), [place for _, place in found]

    def words(self) -> str:
        lines = [f"Recorded episode, {self.data['title']}"]
        for member in (self.data["members"][i] for i in self.shown):
            goals = [f"  {g['text']}: {g['end'] or 'not reached'} after {g['steps']} steps" for g in member["goals"]]
            lines += [f"{member['title']}, moves {member['moves'] or '–'}", *goals, *member["note"].splitlines()]
        return "\n".join(lines)

    def picture(self) -> bytes:
        return pictures.player_picture(self.record, [self.data["members"][i] for i in self.shown])
