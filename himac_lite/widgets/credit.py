"""The explorer's advantages, as pure functions of recorded groups and of the values of its controls.

The browser computes the same with himac_lite/widgets/static/maths.js; tests compare it with `credit` on random groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Literal

import numpy as np

from himac_lite.advantage import Baseline, Scale, group_advantage, group_advantage_over_steps, same_state_advantage
from himac_lite.widgets.plots import Record, best_of, executed_blueprint, members_of, micro_groups
from himac_lite.widgets.replay import board_of, replay, states

MARKS = {"sub_done": "✓", "budget": "◷", "success": "★", "truncated": "✂", "over": "■"}
"""Marks of a sub-goal's end in a row of moves."""
SHARE = 0.5
"""Weight of the share of boxes on targets in the shaped return of a failure."""


@dataclass(frozen=True)
class Dials:
    """The values of the explorer's controls, with the names and defaults of `himac_lite.advantage`."""

    baseline: Baseline = "mean"
    scale: Scale = "std"
    ddof: int = 0
    eps: float = 1e-6
    over: Literal["trajectories", "steps"] = "trajectories"
    """Mean and std over trajectories, or over steps (then the baseline is the mean)."""
    omega: float = 0.0
    """GiGPO's ω: weight of the same-state advantage."""
    gamma: float = 0.95
    """GiGPO's γ: discount per step."""
    size: int = 0
    """Use only the first `size` members of each group; 0: all."""
    reward: Literal["recorded", "success", "shaped"] = "recorded"
    """success: 1 or 0. shaped: 1, or `SHARE` × share of boxes on targets for a failure (`rollout.rules.ReturnRule`)."""


@dataclass(frozen=True)
class Member:
    """The inputs of an advantage."""

    ret: float
    steps: int
    states: tuple[Any, ...] = ()
    """One hashable state per step."""


@dataclass(frozen=True)
class CreditView:
    """The advantages of one group."""

    member: np.ndarray
    """[N], per member: the advantage of its tokens without the same-state term."""
    actions: tuple[np.ndarray, ...]
    """N arrays [S_n], per environment step: the advantage of its action, with the same-state term."""


def credit(groups: Sequence[Sequence[Member]], p: int, dials: Dials) -> CreditView:
    """Advantages of group p; the other groups are the rest of the batch.

        A_n = `group_advantage` or `group_advantage_over_steps`;   A_ns = A_n + ω `same_state_advantage`_ns

    Rewards are (0, …, 0, R), as in training. A member without steps (an invalid blueprint) counts as one step in
    statistics over steps. ω = 1 is `gigpo_advantage`.

    Raises ValueError like the functions of `himac_lite.advantage`.
    """
    group = groups[p]
    choices: dict[str, Any] = {"scale": dials.scale, "ddof": dials.ddof, "eps": dials.eps}
    if dials.over == "steps":
        steps_n = [max(1, m.steps) for m in group]
        member = group_advantage_over_steps([[m.ret for m in group]], [steps_n], **choices)[0]
    else:
        return_pn = [[m.ret for m in row] for row in groups]
        member = group_advantage(return_pn, baseline=dials.baseline, **choices)[p]
    if not dials.omega:
        return CreditView(member, tuple(np.full(len(m.states), a) for m, a in zip(group, member, strict=True)))
    reward_ns = [[0.0] * (len(m.states) - 1) + [m.ret] * bool(m.states) for m in group]
    step_ns = same_state_advantage(
        reward_ns, [m.states for m in group], gamma=dials.gamma, baseline=dials.baseline, **choices
    )
    return CreditView(member, tuple(a + dials.omega * s for a, s in zip(member, step_ns, strict=True)))


def comparable(groups: Sequence[Sequence[Any]], p: int, size: int) -> tuple[list[Sequence[Any]], int]:
    """The batch cut to `size` members per group, and p; only group p if the sizes differ."""
    cut = [group[: size or None] for group in groups]
    return ([cut[p]], 0) if len({len(group) for group in cut}) > 1 else (cut, p)


# Records → data for the browser


def level_data(record: Record) -> dict[str, Any]:
    """A record as data for explorer.js: groups of {rets, steps, states, moves, chips}.

    chips are the parts of a row: [text] with the member's advantage, [text, k] with the advantage of its k-th action,
    [text, None] without one.
    """
    numbers = dict[Any, int]()

    def member(recorded: Any) -> dict[str, Any]:
        where, reached = states_of(record, recorded)
        success = bool(recorded["success"])
        shaped = 1.0 if success else 0.0 if recorded.get("invalid") else SHARE * reached
        return {
            "rets": {"recorded": recorded["return"], "success": float(success), "shaped": shaped},
            "steps": recorded["steps"], "states": [numbers.setdefault(s, len(numbers)) for s in where],
            "moves": recorded["moves"], "chips": played_chips(recorded),
        }  # fmt: skip

    out: dict[str, Any] = {"title": record.get("title") or "untitled", "best": best_of(record), "micros": {}}
    for g, group in micro_groups(record).items():
        out["micros"][str(g)] = [member(m) for m in group]
    if "macro" in record:
        words = shared_words(record)
        out["words"], out["macro"] = words, []
        for g, m in enumerate(members_of(record, "macro")):
            text, reason = executed_blueprint(record, "macro", g)
            written = {"text": (text or "").strip("\n"), "bad": reason, "chips": [[p] for p in pieces(m, words)]}
            out["macro"].append({**member(m), **written, "states": []})
    return out


def states_of(record: Record, member: Any) -> tuple[Sequence[Any], float]:
    """The state of each action, and the share of the goal reached at the end, in [0, 1].

    In a text-action task the state is the active sub-goal and the last observation; the share is the return.
    """
    if "transcript" not in member and "\n" in record["level"]:
        board = board_of(record)
        played = replay(board, member)
        return states(played), played.home / max(1, len(board.boxes))
    seen = ["", *(text for _, text in member.get("transcript", []))]
    goals = [k for k, segment in enumerate(member["segments"]) for _ in range(segment["steps"])]
    return list(zip(goals, seen, strict=False)), float(member["return"])


def played_chips(member: Any) -> list[list[Any]]:
    """A trajectory's actions and the end of each sub-goal; of the ends, only ``<sub_done>`` is a token with credit."""
    actions = [f"{action} " for action, _ in member["transcript"]] if "transcript" in member else member["moves"]
    out: list[list[Any]] = []
    begun = 0
    for segment in member["segments"]:
        moves = range(begun, begun + segment["steps"])
        out += [[actions[k], k] for k in moves]
        begun = moves.stop
        mark = MARKS.get(segment["end"], "")
        out.append([mark] if segment["end"] == "sub_done" else [f"{mark} ", None])
    return out or [["–", None]]


def pieces(member: Any, words: str) -> list[str]:
    """A blueprint's tokens for display: a new line as ·, without the words that begin every sub-goal."""
    out = []
    for number, token in enumerate(member["tokens"]):
        bare = " ".join(token.split())
        dot = "· " if number and token.startswith("\n") else ""
        out.append(dot + ("" if bare == words.strip() else bare))
    return out


def shared_words(record: Record) -> str:
    """The words that begin every sub-goal of the valid blueprints; they are shown once, to keep rows short."""
    texts = [m["blueprint"].strip("\n").split("\n") for m in record["macro"]["members"] if not m["invalid"]]
    columns = zip(*(line.split() for text in texts for line in text), strict=False)
    return "".join(f"{c[0]} " for c in takewhile(lambda c: len({*c}) == 1 and c[0].isalpha(), columns))
