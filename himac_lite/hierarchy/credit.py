"""Credit: groups and their advantages → credited sequences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from himac_lite.errors import ConfigError
from himac_lite.hierarchy import by_trajectory
from himac_lite.hierarchy.axes import Credit, Share
from himac_lite.types import Credited, Group, TokenSequence, Trajectory


def credit_blueprints(groups: Sequence[Group], advantage_pg: np.ndarray, replans: bool = False) -> list[list[Credited]]:
    """Phase A: the tokens of each blueprint get its macro advantage.

    replans: blueprints that were written during the execution get the same advantage.
    Returns one list per group, without groups whose advantages are all zero.
    """
    return _credited(
        groups, advantage_pg, lambda t: (t.blueprint_tokens, *t.replans) if replans else (t.blueprint_tokens,)
    )


def credit_divisions(groups: Sequence[Group], advantage_pn: np.ndarray) -> list[list[Credited]]:
    """Middle level: divisions get the advantage of their trajectory. Returns as `credit_blueprints`."""
    return _credited(groups, advantage_pn, lambda t: t.replans)


def _credited(
    groups: Sequence[Group],
    advantage_pn: np.ndarray,
    trained: Callable[[Trajectory], Iterable[TokenSequence | None]],
) -> list[list[Credited]]:
    return [
        [
            Credited(sequence, float(a), level=_name(group))
            for t, a in zip(group.trajectories, row, strict=True)
            for sequence in trained(t)
            if sequence is not None
        ]
        for group, row in zip(groups, advantage_pn, strict=True)
        if row.any()
    ]


def credit_actions(
    groups: Sequence[Group],
    advantage_pn: np.ndarray,
    credit: Credit = by_trajectory,
    above_p: np.ndarray | None = None,
) -> list[list[Credited]]:
    """Phase B: the action tokens of each segment get the advantage that `credit` assigns to it.

    above_p: A^M of each level's z*. Returns as `credit_blueprints`.
    Raises ConfigError if `credit` returns another number of trajectories, segments or choices.
    """
    out = []
    for p, (group, row) in enumerate(zip(groups, advantage_pn, strict=True)):
        shares = credit(group, row, 0.0 if above_p is None else float(above_p[p]))
        if len(shares) != len(group.trajectories):
            raise ConfigError(f"credit returned {len(shares)} rows for {len(group.trajectories)} trajectories")
        items = []
        for t, row_k in zip(group.trajectories, shares, strict=True):
            if len(row_k) != len(t.segments):
                raise ConfigError(f"credit returned {len(row_k)} shares for a trajectory of {len(t.segments)} segments")
            for seg, share in zip(t.segments, row_k, strict=True):
                items.append(Credited(seg, _spread(seg, share), level=_name(group)))
        if any(np.any(item.advantage) for item in items):
            out.append(items)
    return out


def _name(group: Group) -> str:
    """A level on one line: its title, or its rows joined by ``|``."""
    return repr(group.level.title or group.level.text.replace("\n", "|")[:200])


def _spread(segment: TokenSequence, share: Share) -> float | tuple[float, ...]:
    """A `Share` of a segment → one advantage for all of its generated tokens, or one for each."""
    if isinstance(share, float | int):
        return float(share)
    chosen = segment.action_mask[segment.prompt_len :]
    if len(share) != sum(chosen):
        raise ConfigError(f"credit returned {len(share)} advantages for a segment of {sum(chosen)} choices")
    given = iter(share)
    return tuple(float(next(given)) if own else 0.0 for own in chosen)
