"""The explorer's numbers: recorded groups, the choices of its controls, and the advantages that follow. Pure.

The browser computes the same with himac_lite/widgets/static/maths.js; tests hold it to `credit` on random groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Literal

import numpy as np

from himac_lite.advantage import Baseline, Scale, group_advantage, group_advantage_over_steps, same_state_advantage
from himac_lite.widgets.plots import Record, executed_blueprint
from himac_lite.widgets.replay import board_of, replay, states

MARKS = {"sub_done": "✓", "budget": "◷", "success": "★", "truncated": "✂", "over": "■"}
"""How a sub-goal ended, in a row of moves."""
SHARE = 0.5
"""What all boxes on their targets would be worth in the shaped return, if that did not solve the level."""


@dataclass(frozen=True)
class Dials:
    """What the controls of the explorer say; names and defaults are those of `himac_lite.advantage`."""

    baseline: Baseline = "mean"
    scale: Scale = "std"
    ddof: int = 0
    eps: float = 1e-6
    over: Literal["trajectories", "steps"] = "trajectories"
    """Mean and std over one row a trajectory, or one row a step (then the baseline is the mean)."""
    omega: float = 0.0
    """GiGPO's ω: weight of the comparison with actions taken in the same state."""
    gamma: float = 0.95
    """GiGPO's γ, discount a step."""
    size: int = 0
    """Only the first so many members of each group; 0: all."""
    reward: Literal["recorded", "success", "shaped"] = "recorded"
    """success: 1 or 0; shaped: a failure is worth `SHARE` × share of the boxes on targets (`rollout.ReturnRule`)."""


@dataclass(frozen=True)
class Member:
    """What an advantage is computed from."""

    ret: float
    steps: int
    states: tuple[Any, ...] = ()
    """One a step, hashable."""


@dataclass(frozen=True)
class CreditView:
    """The advantages of one group."""

    member: np.ndarray
    """[N] of each member: the credit of its tokens, but for the same-state term."""
    actions: tuple[np.ndarray, ...]
    """N arrays [S_n]: of each environment step's action, with that term."""


def credit(groups: Sequence[Sequence[Member]], p: int, dials: Dials) -> CreditView:
    """Advantages of group p, the other groups being the rest of the batch.

        A_n = `group_advantage` or `group_advantage_over_steps`;   A_ns = A_n + ω `same_state_advantage`_ns

    The return comes with the last step, as in training: rewards are (0, …, 0, R). A member that took no step (an
    invalid blueprint) counts as one step in statistics over steps. ω = 1 is `gigpo_advantage`.

    Raises: ValueError as the functions of `himac_lite.advantage`.
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
    """The batch of group p after taking `size` members of each; that group alone where sizes differ."""
    cut = [group[: size or None] for group in groups]
    return ([cut[p]], 0) if len({len(group) for group in cut}) > 1 else (cut, p)


# Records → what the browser gets


def micro_groups(record: Record) -> dict[int, Sequence[Any]]:
    """Blueprint → its sampled executions: of z* (none where the planner alone learnt), of others where a probe recorded
    them; −1: flat play."""
    best = record["macro"]["best"] if "macro" in record else -1
    more = {int(g): group["members"] for g, group in record.get("micros", {}).items()}
    return {best: record["micro"]["members"] if "micro" in record else [], **more}


def level_data(record: Record) -> dict[str, Any]:
    """A record as the explorer's browser side wants it: groups of {rets, steps, states, moves, chips}.

    chips are what a row shows, one after another: [text] with the member's credit, [text, k] with that of its k-th
    action, [text, None] with none.
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

    best = record["macro"]["best"] if "macro" in record else -1
    out: dict[str, Any] = {"title": record.get("title") or "untitled", "best": best, "micros": {}}
    for g, group in micro_groups(record).items():
        out["micros"][str(g)] = [member(m) for m in group]
    if "macro" in record:
        words = shared_words(record)
        out["words"], out["macro"] = words, []
        for g, m in enumerate(record["macro"]["members"]):
            text, reason = executed_blueprint(record, "macro", g)
            written = {"text": (text or "").strip("\n"), "bad": reason, "chips": [[p] for p in pieces(m, words)]}
            out["macro"].append({**member(m), **written, "states": []})
    return out


def states_of(record: Record, member: Any) -> tuple[Sequence[Any], float]:
    """The state in which each action was chosen, and how much of the goal was reached in the end, in [0, 1].

    In a task in plain words the state is the active sub-goal and what was seen last; what was reached is the return.
    """
    if "transcript" not in member and "\n" in record["level"]:
        board = board_of(record)
        played = replay(board, member)
        return states(played), played.home / max(1, len(board.boxes))
    seen = ["", *(text for _, text in member.get("transcript", []))]
    goals = [k for k, segment in enumerate(member["segments"]) for _ in range(segment["steps"])]
    return list(zip(goals, seen, strict=False)), float(member["return"])


def played_chips(member: Any) -> list[list[Any]]:
    """A trajectory's actions, and how each of its sub-goals ended; only ``<sub_done>`` was chosen, and has credit."""
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
    """A blueprint's tokens as they are shown: a new line as ·, without the words that every sub-goal begins with."""
    out = []
    for number, token in enumerate(member["tokens"]):
        bare = " ".join(token.split())
        dot = "· " if number and token.startswith("\n") else ""
        out.append(dot + ("" if bare == words.strip() else bare))
    return out


def shared_words(record: Record) -> str:
    """The words with which every sub-goal of the valid blueprints begins: said once, rows stay short."""
    texts = [m["blueprint"].strip("\n").split("\n") for m in record["macro"]["members"] if not m["invalid"]]
    columns = zip(*(line.split() for text in texts for line in text), strict=False)
    return "".join(f"{c[0]} " for c in takewhile(lambda c: len({*c}) == 1 and c[0].isalpha(), columns))
