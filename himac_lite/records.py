"""Groups as plain dicts, the way `rollouts/*.jsonl` keeps them and widgets and notebooks read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from himac_lite.types import MacroGroup, MicroGroup, Trajectory
from himac_lite.types import Sequence as TokenSequence


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
    """The generated part, token by token: text, whether the model chose it, its log-probability."""
    n = sequence.prompt_len
    return {
        "tokens": [decode([i]) for i in sequence.ids[n:]],
        "sampled": [int(m) for m in sequence.action_mask[n:]],
        "logp": [round(p, 4) for p in sequence.logp[n:]],
    }


def macro_record(group: MacroGroup, advantages: Sequence[float], best: int, decode: Any) -> dict[str, Any]:
    return {
        "best": best,
        "members": [
            {
                "blueprint": z.text if z else "",
                "invalid": z.invalid.name if z and z.invalid else None,
                **trajectory_record(execution, float(a)),
                **sequence_record(plan, decode),
            }
            for plan, execution, a in zip(group.plans, group.executions, advantages, strict=True)
            for z in (execution.blueprint,)
        ],
    }


def micro_record(group: MicroGroup, advantages: Sequence[float], decode: Any) -> dict[str, Any]:
    return {
        "blueprint": group.blueprint.text if group.blueprint else None,
        "members": [
            {**trajectory_record(t, float(a)), "sequences": [sequence_record(s, decode) for s in t.segments]}
            for t, a in zip(group.trajectories, advantages, strict=True)
        ],
    }


def level_record(
    micro: MicroGroup, micro_adv: Sequence[float], decode: Any,
    macro: tuple[MacroGroup, Sequence[float], int] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """One line of rollouts/*.jsonl: a level with its groups. macro: group, advantages and the index of z*, if any."""
    length = getattr(micro.level, "optimal_moves", None)  # where a level says it: records do not solve
    record = {"level": micro.level.text, "title": micro.level.title, "optimal_moves": length}
    above = {"macro": macro_record(*macro, decode)} if macro else {}
    return {**record, **above, "micro": micro_record(micro, micro_adv, decode)}
