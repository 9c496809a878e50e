"""Recorded trajectories of one level, to play forward and back, alone or side by side."""

from __future__ import annotations

from typing import Any

import anywidget
import numpy as np
import traitlets

from himac_lite.errors import RunError
from himac_lite.tasks.sokoban import render
from himac_lite.tasks.sokoban.rules import Board
from himac_lite.widgets import pictures
from himac_lite.widgets.base import PACKED, Pictured, browser_code
from himac_lite.widgets.cards import CardPlayer, is_text
from himac_lite.widgets.credit import micro_groups
from himac_lite.widgets.plots import SYMBOLS, Record, executed_blueprint, signed
from himac_lite.widgets.replay import board_of, replay


def playback(
    record: Record, group: str = "micro", member: int | None = None, plan: int | None = None
) -> dict[str, Any]:
    """One recorded trajectory as the player wants it: positions, sub-goals, tokens; a cell is row × width + column.

    group: ``macro`` (greedy execution of a blueprint) or ``micro`` (sampled execution of z*, or flat play).
    member: its index in the group; by default z* of the macro group and the highest return of the micro group.
    plan: the blueprint whose micro group is meant, where a record has several; by default z*.
    Raises: RunError if the record has no such group or member.
    """
    if group not in record:
        raise RunError(f"this record has no {group!r} group; it has {' and '.join(g for g in SYMBOLS if g in record)}")
    best = record["macro"]["best"] if "macro" in record else -1
    plan = best if plan is None else plan
    members = record["macro"]["members"] if group == "macro" else micro_groups(record).get(plan, [])
    if member is None:
        member = best if group == "macro" else int(np.argmax([m["return"] for m in members]))
    if not 0 <= member < len(members):
        raise RunError(f"there is no member {member}: this {group} group has {len(members)} members, counted from 0")
    chosen, board = members[member], board_of(record)
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
    if "advantage" in chosen:  # an episode that belongs to no group has none
        came += f", advantage {signed(chosen['advantage'])}"
    return {
        "name": what, "title": f"{what}, {came}",
        "size": len(board.boxes) + 1, "frames": [cell for frame in played.frames for cell in frame],
        "moves": chosen["moves"], "happened": played.happened, "goals": goals, "note": note, "ret": chosen["return"],
        "advantage": chosen.get("advantage", 0.0), "planned": group == "macro", "tokens": tokens(chosen, group),
    }  # fmt: skip


def tokens(member: Any, group: str) -> list[list[Any]]:
    """[text, role, log-prob, move, segment] of each token after the prompt; move is None where it stands for none.

    The k-th token that the model chose in a segment is the segment's k-th move; one more is its ``<sub_done>``.
    Role ``given``: the environment wrote it, mask 0.
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
    """All trajectories of a record for the browser to choose from, and the place of the one that is asked for."""
    board, at = board_of(record), 0
    members: list[dict[str, Any]] = []
    for name in (g for g in SYMBOLS if g in record):
        best = record["macro"]["best"] if "macro" in record else -1
        where = (
            record["macro"]["members"]
            if name == "macro"
            else micro_groups(record).get(best if plan is None else plan, [])
        )
        if name == group:
            asked = playback(record, group, member, plan)["name"]  # refuses what is not there
            at = len(members) + int(asked[1:]) - 1
        members += [playback(record, name, n, plan) for n in range(len(where))]
    if group not in record:
        playback(record, group)  # says what there is
    empty = Board(board.height, board.width, board.walls, frozenset(), frozenset(), board.player)
    return {
        "title": record.get("title") or "level", "board": render.to_svg(empty, coordinates=True), "width": board.width,
        "targets": [r * board.width + c for r, c in sorted(board.targets)], "members": members, "open": False,
    }, at  # fmt: skip


class RolloutPlayer(Pictured, anywidget.AnyWidget):
    """A recorded episode on its board, forward and back: active sub-goal, how each ended, tokens and their credit.

    It plays in the browser, so it plays while the kernel is busy. `beside` is a second member of the same record, to
    be compared: ("micro", 3). `explorer` is the place in one to whose returns and advantages the browser listens,
    instead of the recorded ones. The other arguments: see `playback`. For a record in plain words it makes a
    `CardPlayer`.
    """

    def __new__(cls, record: Record, *args: Any, **kwargs: Any) -> Any:
        if is_text(record):
            return CardPlayer(record, *args, **kwargs)
        return super().__new__(cls, record, *args, **kwargs)

    _esm = browser_code("unpack.js", "numbers.js", "choosers.js", "player.js")
    _css = browser_code("player.css")
    data = traitlets.Dict().tag(**PACKED)
    shown = traitlets.List([0]).tag(sync=True)
    """Which of the record's members are on the stage: one, or two side by side."""

    def __init__(
        self, record: Record, group: str = "micro", member: int | None = None, *,
        beside: tuple[str, int] | None = None, plan: int | None = None, explorer: tuple[str, str] = ("", ""),
        **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(**kwargs)
        self.show(record, group, member, plan=plan, beside=beside, explorer=explorer)

    def show(
        self, record: Record, group: str = "micro", member: int | None = None, *,
        plan: int | None = None, beside: tuple[str, int] | None = None, explorer: tuple[str, str] = ("", ""),
    ) -> None:  # fmt: skip
        """Another episode in the same place."""
        data, at = level_playback(record, group, member, plan)
        data["channel"], data["key"] = explorer
        other = [level_playback(record, *beside, plan)[1]] if beside else []
        with self.hold_sync():
            self.record, self.data, self.shown = record, data, [at, *other]

    def words(self) -> str:
        lines = [f"Recorded episode, {self.data['title']}"]
        for member in (self.data["members"][i] for i in self.shown):
            goals = [f"  {g['text']}: {g['end'] or 'not reached'} after {g['steps']} steps" for g in member["goals"]]
            lines += [f"{member['title']}, moves {member['moves'] or '–'}", *goals, *member["note"].splitlines()]
        return "\n".join(lines)

    def picture(self) -> bytes:
        return pictures.player_picture(self.record, [self.data["members"][i] for i in self.shown])
