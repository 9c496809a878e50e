"""A variant as one frozen value. The trainer reads its axes and never its name."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any

import numpy as np

from himac_lite import advantage
from himac_lite.errors import ConfigError, checked
from himac_lite.hierarchy import axes
from himac_lite.hierarchy.axes import ALTERNATE, JOINT, PHASES, Advantage, Credit, Schedule, Scorer, Selector, Spend
from himac_lite.rollout.rules import (
    ABORT,
    END,
    NEXT,
    REPLAN,
    SELF_ENDED,
    Check,
    Context,
    Ending,
    Fallback,
    Form,
    Potential,
    Rules,
    State,
    active_segment,
    as_written,
)

ONE, EACH = "one", "each"
SHARED, PER_PHASE = "shared", "per_phase"
_FLAT_HAS_NONE = (
    "sharing", "schedule", "score", "choose", "form", "end", "exhausted", "used_up", "reached", "at_test", "midway",
    "spend", "context", "macro_advantage",
)  # fmt: skip
"""Axes without a meaning in flat play."""


@dataclass(frozen=True)
class Hierarchy:
    """A variant: one choice on every axis. The defaults are HiMAC.

    Raises ConfigError for a choice that is not allowed, or for two that exclude each other.
    """

    depth: int = 2
    """1: flat play. 2: planner and executor. 3: the planner also divides each sub-goal at its turn (see `middle`)."""
    sharing: str = ONE
    """one: a shared LoRA adapter for all roles (HiMAC); each: one for the planner and one for the executor."""
    schedule: Schedule = ALTERNATE
    """Who learns when: alternate, joint, planner, executor, or a function of the iteration such as `turns`."""
    score: Scorer = axes.greedy_executor
    """The return of each blueprint of a macro group."""
    choose: Selector = axes.choose_best
    """How z* is chosen from the macro group."""
    form: Form = as_written
    """The blueprint that the executor follows, made from the planner's."""
    end: Ending = SELF_ENDED
    """How a sub-goal ends."""
    exhausted: str = NEXT
    """What follows a missed sub-goal: next, abort or replan (`Fallback`)."""
    reached: Check | None = None
    """A check at the end of a segment, such as `reached_by_world`; None: only a used-up budget misses a sub-goal."""
    used_up: str = END
    """What follows a used-up plan: end, keep or replan (`Fallback`)."""
    at_test: Fallback | None = None
    """The last three axes when the policy is scored; None: as in training. The paper does not say what follows."""
    midway: float = 0.0
    """Macro groups per level that start where a plan of this iteration ended without success. They train the blueprints
    that replanning asks for: such a blueprint is compared with others for the same board."""
    spend: Spend = axes.everywhere
    """The share of the levels whose z* is executed in phase B."""
    optimizer: str = SHARED
    """shared: one AdamW state for all phases; per_phase: one for each, so that no phase enters another's moments."""
    reward: Potential | None = None
    """A potential of the executor. Its change over each segment is added to the return."""
    credit: Credit = axes.by_trajectory
    """The assignment of advantages to the tokens of a trajectory."""
    context: Context = active_segment
    """The executor's context at the start of a segment."""
    macro_advantage: Advantage = advantage.group_advantage
    """Macro returns [P, G] → advantages [P, G] of the blueprints."""
    micro_advantage: Advantage = advantage.group_advantage
    """Micro returns [P, N] → advantages [P, N] of the executions, or of flat episodes."""
    state: State | None = None
    """The key of a state, such as `as_read`, for credit that compares states."""

    def __post_init__(self) -> None:
        if self.depth not in (1, 2, 3):
            raise ConfigError(f"depth must be 1, 2 or 3, not {self.depth!r}")
        if self.sharing not in (ONE, EACH):
            raise ConfigError(f"sharing must be {ONE!r} or {EACH!r}, not {self.sharing!r}")
        if self.optimizer not in (SHARED, PER_PHASE):
            raise ConfigError(f"optimizer must be {SHARED!r} or {PER_PHASE!r}, not {self.optimizer!r}")
        if not 0 <= self.midway <= 1:
            raise ConfigError(f"midway must lie between 0 and 1; it is {self.midway!r}")
        _ = self.rules  # refuses unknown names of `used_up` and `exhausted`
        if not callable(self.schedule):
            _phase(self.schedule)
        if self.depth == 1:
            for name in _FLAT_HAS_NONE:
                if getattr(self, name) != getattr(type(self), name):
                    raise ConfigError(_clash(self, "depth", name, "flat play has no blueprint and a single policy"))
        if self.depth == 3 and self.schedule == JOINT:
            raise ConfigError(
                _clash(self, "depth", "schedule", "each level samples its group after the level above has chosen")
            )
        for name in ("exhausted", "used_up", "at_test"):
            plans = getattr(self, name)
            if self.depth == 3 and REPLAN in (plans, getattr(plans, "exhausted", ""), getattr(plans, "used_up", "")):
                raise ConfigError(_clash(self, "depth", name, "the middle level plans at each sub-goal anyway"))
        if self.sharing == EACH and self.schedule == JOINT:
            raise ConfigError(_clash(self, "sharing", "schedule", "one update cannot change two adapters"))
        if self.exhausted == ABORT and self.end.steps is not None and not (self.end.sub_done or self.end.check):
            raise ConfigError(_clash(self, "exhausted", "end", "every sub-goal would end its episode"))
        for name in getattr(self.credit, "needs", ()):
            if getattr(self, name) is None:
                raise ConfigError(
                    _clash(self, "credit", name, "this credit compares values that are then not recorded")
                )

    @property
    def levels(self) -> int:
        """Deprecated name of `depth`."""
        warnings.warn("Hierarchy.levels is now Hierarchy.depth", DeprecationWarning, stacklevel=2)
        return self.depth

    @property
    def planner(self) -> bool:
        """Whether the variant has a planner."""
        return self.depth > 1

    @property
    def rules(self) -> Rules:
        """The axes that rollouts read in training."""
        fallback = Fallback(self.used_up, self.exhausted, self.reached)
        return Rules(self.form, self.end, fallback, self.context, self.reward, self.state, self.depth == 3)

    @property
    def test_rules(self) -> Rules:
        """The axes that rollouts read when the policy is scored."""
        return self.rules if self.at_test is None else replace(self.rules, fallback=self.at_test)

    @property
    def rule_names(self) -> dict[str, str]:
        """The names of the fallbacks in ``training`` and at ``test``, for manifests and tables."""
        if not self.planner:
            return {"training": "flat", "test": "flat"}
        return {"training": str(self.rules.fallback), "test": str(self.test_rules.fallback)}

    def phase(self, iteration: int) -> str:
        """Who learns in an iteration, from 0: one of `PHASES`. Raises ConfigError if the schedule returns another."""
        return _phase(self.schedule(iteration) if callable(self.schedule) else self.schedule)

    def share(self, live: tuple[float, float] | None) -> float:
        """The share of the levels whose z* is executed in phase B, by `spend`; 1 while `live` is not known.

        Raises ConfigError if the function returns anything but a number from 0 to 1.
        """
        share = 1.0 if live is None else self.spend(*live)
        if not 0 <= share <= 1:
            raise ConfigError(f"spend={getattr(self.spend, '__name__', self.spend)} returned {share!r}, not a share")
        return float(share)

    def advantages(self, level: str, return_pn: np.ndarray) -> np.ndarray:
        """Advantages float64 [P, N] of returns [P, N], by `macro_advantage` or `micro_advantage`.

        Raises ConfigError if the function returns another shape or a number that is not finite.
        """
        function: Any = getattr(self, f"{level}_advantage")
        found = np.asarray(function(return_pn), dtype=np.float64)
        name = f"{level}_advantage={getattr(function, '__name__', function)}"
        if found.shape != return_pn.shape:
            raise ConfigError(f"{name} returned shape {found.shape} for returns of shape [P, N] = {return_pn.shape}")
        if not np.isfinite(found).all():
            raise ConfigError(f"{name} returned {int((~np.isfinite(found)).sum())} advantages that are not finite")
        return found

    def pick(self, return_pg: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The index of z* for each level, int [P], or `ORACLE`, by `choose`.

        Raises ConfigError if the function returns anything else.
        """
        best_p = np.asarray(self.choose(return_pg, rng))
        size = return_pg.shape[1]
        if best_p.shape != return_pg.shape[:1] or best_p.dtype.kind not in "iu":
            what = f"{best_p.dtype} of shape {best_p.shape}"
        elif best_p.min() < axes.ORACLE or best_p.max() >= size:
            what = f"the index {int(best_p.min() if best_p.min() < axes.ORACLE else best_p.max())}"
        else:
            return best_p
        name = f"choose={getattr(self.choose, '__name__', self.choose)}"
        raise ConfigError(f"{name} returned {what}; it should return {len(return_pg)} integers, -1 or below {size}")


def _accept_levels(init: Callable[..., None]) -> Callable[..., None]:
    """Accept `levels`, the name of `depth` in version 0.1."""

    @wraps(init)
    def accepting(self: Hierarchy, *args: Any, levels: int | None = None, **axes_given: Any) -> None:
        if levels is not None:
            warnings.warn("Hierarchy(levels=…) is now Hierarchy(depth=…)", DeprecationWarning, stacklevel=2)
            axes_given["depth"] = levels
        init(self, *args, **axes_given)

    return accepting


Hierarchy.__init__ = _accept_levels(checked(Hierarchy.__init__))  # type: ignore[method-assign]


def _phase(name: str) -> str:
    if name not in PHASES:
        raise ConfigError(f"schedule must be one of {', '.join(map(repr, PHASES))}, not {name!r}")
    return name


def _clash(variant: Hierarchy, one: str, other: str, why: str) -> str:
    def said(name: str) -> str:
        value = getattr(variant, name)
        return f"{name}={getattr(value, '__name__', None) or repr(value)}"

    return f"{said(one)} clashes with {said(other)}: {why}"
