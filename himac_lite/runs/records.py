"""Groups as plain dicts, for `rollouts/*.jsonl`, widgets and notebooks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from himac_lite.errors import RunError
from himac_lite.types import Group, TokenSequence, Trajectory


def trajectory_record(trajectory: Trajectory, advantage: float) -> dict[str, Any]:
    z = trajectory.blueprint
    told = trajectory.told or (z.subgoals if z else ())
    return {
        "return": trajectory.ret,
        "success": trajectory.success,
        "steps": trajectory.steps,
        "moves": trajectory.moves,
        **({"transcript": [list(step) for step in trajectory.transcript]} if trajectory.transcript else {}),
        "advantage": advantage,
        "segments": [
            {"end": s.end.value, "steps": n, "subgoal": told[k].text if z else ""}
            for k, (s, n) in enumerate(zip(trajectory.segments, trajectory.segment_moves, strict=True))
        ],
    }


def sequence_record(sequence: TokenSequence, decode: Any) -> dict[str, Any]:
    """The generated part, token by token: text, whether it was sampled, and its log-probability."""
    n = sequence.prompt_len
    return {
        "tokens": [decode([i]) for i in sequence.ids[n:]],
        "sampled": [int(m) for m in sequence.action_mask[n:]],
        "logp": [round(p, 4) for p in sequence.logp[n:]],
    }


def macro_record(group: Group, advantages: Sequence[float], best: int, decode: Any) -> dict[str, Any]:
    return {
        "best": best,
        "members": [
            {
                "blueprint": z.text if z else "",
                "invalid": z.invalid.name if z and z.invalid else None,
                **trajectory_record(execution, float(a)),
                **(sequence_record(tokens, decode) if tokens else {}),
            }
            for execution, a in zip(group.trajectories, advantages, strict=True)
            for z, tokens in ((execution.blueprint, execution.blueprint_tokens),)
        ],
    }


def micro_record(group: Group, advantages: Sequence[float], decode: Any) -> dict[str, Any]:
    return {
        "blueprint": group.blueprint.text if group.blueprint else None,
        "members": [
            {**trajectory_record(t, float(a)), "sequences": [sequence_record(s, decode) for s in t.segments]}
            for t, a in zip(group.trajectories, advantages, strict=True)
        ],
    }


def level_record(
    micro: Group | None, micro_adv: Sequence[float], decode: Any,
    macro: tuple[Group, Sequence[float], int] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """One line of rollouts/*.jsonl: a level with its macro group, micro group or both.

    micro: None if only the planner learns. macro: group, advantages and index of z*; None in flat play.
    """
    level = next(group.level for group in (micro, macro and macro[0]) if group)
    length = getattr(level, "optimal_moves", None)  # only Sokoban levels have it
    record = {"level": level.text, "title": level.title, "optimal_moves": length}
    above = {"macro": macro_record(*macro, decode)} if macro else {}
    below = {"micro": micro_record(micro, micro_adv, decode)} if micro else {}
    return {**record, **above, **below}


# Reading

_MEMBER: dict[str, tuple[type, ...]] = {
    "return": (int, float), "success": (bool,), "steps": (int,), "moves": (str,), "segments": (list,),
}  # fmt: skip
_SEGMENT: dict[str, tuple[type, ...]] = {"end": (str,), "steps": (int,), "subgoal": (str,)}
_PLAN: dict[str, tuple[type, ...]] = {
    "blueprint": (str,), "invalid": (str, type(None)), "tokens": (list,), "sampled": (list,), "logp": (list,),
}  # fmt: skip
_OPTIONAL: dict[str, tuple[type, ...]] = {"advantage": (int, float), "sequences": (list,)}


def check(record: Mapping[str, Any]) -> None:
    """Raise RunError if a record of groups lacks a field that widgets show, or has another type there.

    Unknown fields, and records without groups, are accepted.
    """
    groups = [name for name in ("macro", "micro") if name in record]
    if groups:
        _have(record, {"level": (str,)}, "the record")
    for name in groups:
        group = record[name]
        _have(group, {"members": (list,)}, name)
        if not group["members"]:
            raise RunError(f"{name} has no members")
        for n, member in enumerate(group["members"]):
            where = f"member {n} of {name}"
            _have(member, _MEMBER | (_PLAN if name == "macro" else {}), where)
            _have(member, {k: v for k, v in _OPTIONAL.items() if k in member}, where)
            for segment in member["segments"]:
                _have(segment, _SEGMENT, f"a segment of {where}")
            for part in (*([member] if name == "macro" else []), *member.get("sequences", ())):
                _have(part, {k: _PLAN[k] for k in ("tokens", "sampled", "logp")}, f"a sequence of {where}")
                if len({len(part[k]) for k in ("tokens", "sampled", "logp")}) > 1:
                    raise RunError(f"{where} has tokens, sampled and logp of different lengths")
    if "macro" in record:
        _have(record["macro"], {"best": (int,)}, "macro")
        if not -1 <= record["macro"]["best"] < len(record["macro"]["members"]):  # -1: the oracle
            raise RunError("macro: 'best' should be the index of a member, or -1")


_RESULTS: dict[str, tuple[type, ...]] = {
    "levels": (str,), "mode": (str,), "iterations": (int,), "env_steps": (int,), "tokens": (int,),
    "seconds": (int, float),
}  # fmt: skip
_SCORE: dict[str, tuple[type, ...]] = {
    "success": (int, float), "ci95": (list,), "n": (int,), "by_length": (dict,), "mean_steps": (int, float),
}  # fmt: skip


def check_results(results: Mapping[str, Any]) -> None:
    """Raise RunError if final scores lack a field that tables show, or have another type there."""
    _have(results, _RESULTS, "the results")
    for who in ("trained", "base", "random"):
        score: Any = results.get(who)
        _have(score, _SCORE, who)
        if [type(end) in (int, float) for end in score["ci95"]] != [True, True]:
            raise RunError(f"{who}: 'ci95' should be two numbers")
        for name, part in score["by_length"].items():
            _have(part, {"n": (int,), "success": (int, float)}, f"{who}, optimal length {name[:40]!r}")


def _have(found: Any, wanted: Mapping[str, tuple[type, ...]], where: str) -> None:
    if not isinstance(found, Mapping):
        raise RunError(f"{where} should be an object")
    for name, kinds in wanted.items():
        value = found.get(name)
        if type(value) not in kinds or (isinstance(value, float) and not math.isfinite(value)):
            raise RunError(f"{where}: {name!r} should be {' or '.join(k.__name__ for k in kinds)}")
        if type(value) is int and name == "steps" and value < 0:
            raise RunError(f"{where}: {name!r} should not be negative")
