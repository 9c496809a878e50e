"""Group-relative advantages as pure functions of NumPy arrays, for the trainer, notebooks and browsers (Pyodide).

Keywords of `group_advantage` name the choices in which implementations of GRPO differ. The defaults are GRPO,
``scale="none"`` is Dr. GRPO, and ``baseline="leave_one_out", scale="none"`` is RLOO. Returns and rewards are in the
unit of the task's reward. Axes P, G, N: see `himac_lite.types`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from himac_lite.errors import ConfigError, checked

if TYPE_CHECKING:
    from typing_extensions import Unpack  # in `typing` from Python 3.11 on

Baseline = Literal["mean", "leave_one_out", "batch"]
Scale = Literal["std", "none", "batch"]
Floats = NDArray[np.float64]


class Choices(TypedDict, total=False):
    """The keywords of `group_advantage`, for functions that pass them on."""

    baseline: Baseline
    scale: Scale
    ddof: int
    eps: float


@dataclass(frozen=True, slots=True)
class HierarchicalAdvantage:
    """Advantages of planner and executor in one iteration."""

    macro_pg: Floats
    """[P, G], of the tokens of each blueprint."""
    micro_pn: Floats
    """[P, N], of the action tokens of each execution of z*."""
    best_p: NDArray[np.intp]
    """[P], index of z* in its macro group."""


def zero_variance(return_pn: ArrayLike) -> NDArray[np.bool_]:
    """Whether the returns of a group are all equal, which makes its advantages zero.

        flat_p = [max_n R_pn = min_n R_pn]

    Reference: DAPO (arXiv 2503.14476), which resamples these groups.

    Args:
        return_pn: [P, N].
    Returns: bool [P].
    Raises: ConfigError if the shape is not [P, N] or a return is not finite.
    """
    flat_p: NDArray[np.bool_] = np.ptp(_returns(return_pn), axis=1) == 0.0
    return flat_p


@checked
def group_advantage(
    return_pn: ArrayLike, *, baseline: Baseline = "mean", scale: Scale = "std", ddof: int = 0, eps: float = 1e-6
) -> Floats:
    """Advantage of each trajectory relative to its group.

        A_pn = (R_pn − b) / (s + ε)

    References: GRPO (arXiv 2402.03300); without s, Dr. GRPO (2503.20783); leave-one-out b, RLOO (2402.14740).

    A group whose returns are all equal gets exact zeros instead of 0/0 or a rounding error divided by ε. The exception
    is ``baseline="batch"`` without ``scale="std"``, where only a batch whose returns are all equal gets zeros.

    Args:
        return_pn: [P, N] undiscounted returns.
        baseline: b is the ``mean`` of the group, of its N − 1 other members (``leave_one_out``) or of the ``batch``.
        scale: s is the ``std`` of the group or of the ``batch``; ``none``: no division.
        ddof: the std divides by (count − ddof); 0 as in `numpy.std`, 1 as in `torch.std` and most trainers.
        eps: ε, in the unit of the returns; it keeps the advantages of nearly equal returns small.
    Returns: float64 [P, N].
    Raises: ConfigError if a shape, return or choice is not allowed, or the group is too small for the choice.
    """
    r_pn = _returns(return_pn)
    n = r_pn.shape[1]
    if baseline == "leave_one_out" and n < 2:
        raise ConfigError(f"baseline='leave_one_out' needs return_pn of shape [P, N >= 2], got {r_pn.shape}")
    if scale != "none" and not 0 <= ddof < (n if scale == "std" else r_pn.size):
        raise ConfigError(f"scale={scale!r} needs 0 <= ddof < number of returns, got ddof={ddof}, shape {r_pn.shape}")

    if baseline == "mean":
        b = r_pn.mean(axis=1, keepdims=True)  # [P, 1]
    elif baseline == "leave_one_out":
        b = (r_pn.sum(axis=1, keepdims=True) - r_pn) / (n - 1)  # [P, N]
    else:
        b = r_pn.mean(keepdims=True)  # [1, 1]

    pooled = baseline == "batch" and scale != "std"
    live = ~zero_variance(r_pn.reshape(1, -1) if pooled else r_pn)[:, None]  # [P, 1] or [1, 1]
    if scale == "none":
        return np.where(live, r_pn - b, 0.0)
    s = r_pn.std(axis=1 if scale == "std" else None, ddof=ddof, keepdims=True)  # [P, 1] or [1, 1]
    advantage_pn: Floats = np.divide(r_pn - b, s + eps, out=np.zeros_like(r_pn), where=live)
    return advantage_pn


@checked
def group_advantage_over_steps(
    return_pn: ArrayLike, steps_pn: ArrayLike, *, scale: Scale = "std", ddof: int = 0, eps: float = 1e-6
) -> Floats:
    """GRPO's advantage in trainers that store one row per *step*, where long trajectories weigh more.

        A_pn = (R_pn − m_p) / (s_p + ε),   m_p, s_p over Σ_n L_pn rows, L_pn of which hold R_pn

    Reference: an undocumented variant of GRPO (arXiv 2402.03300), which has one row per trajectory. Long failures lower
    m, which raises the advantage of every trajectory. Σ_n L_pn A_pn is zero; Σ_n A_pn is not.

    Args:
        return_pn: [P, N].
        steps_pn: int [P, N], L >= 1, environment steps of each trajectory.
        scale, ddof, eps: as in `group_advantage`, without ``scale="batch"``; ddof counts steps.
    Returns: float64 [P, N], the advantage of every step of the trajectory.
    Raises: ConfigError if a shape, return, choice or number of steps is not allowed.
    """
    r_pn, count_pn = _returns(return_pn), as_floats(steps_pn, "steps_pn [P, N]", 2)
    if count_pn.shape != r_pn.shape or (count_pn % 1 != 0).any() or count_pn.min() < 1:
        raise ConfigError(f"steps_pn must hold integers >= 1 in the shape [P, N] = {r_pn.shape} of return_pn")
    if scale == "batch":
        raise ConfigError("scale='batch' is not defined over steps: use 'std' or 'none'")
    advantage_pn = np.empty_like(r_pn)
    for p, (r_n, steps_n) in enumerate(zip(r_pn, count_pn.astype(np.int64), strict=True)):
        per_step = group_advantage(np.repeat(r_n, steps_n)[None], scale=scale, ddof=ddof, eps=eps)[0]  # [Σ_n L_n]
        advantage_pn[p] = per_step[np.cumsum(steps_n) - 1]  # [N], the last row of each trajectory
    return advantage_pn


def best(return_pg: ArrayLike) -> NDArray[np.intp]:
    """Index of z*, the blueprint with the highest return, in each macro group.

        z*_p = argmax_g R(z_pg), the first one of equal returns

    Reference: HiMAC (arXiv 2603.00977).

    Args:
        return_pg: [P, G] return of each blueprint's greedy execution.
    Returns: int [P], indices into G.
    Raises: ConfigError if the shape is not [P, G] or a return is not finite.
    """
    best_p: NDArray[np.intp] = _returns(return_pg, "return_pg [P, G]").argmax(axis=1)
    return best_p


def hierarchical_advantage(
    return_pg: ArrayLike, return_pn: ArrayLike, **choices: Unpack[Choices]
) -> HierarchicalAdvantage:
    """Hierarchical advantage: blueprints against blueprints, and executions of z* against each other.

        A^M_pg = (R(z_pg) − mean_j R(z_pj)) / (std_j R(z_pj) + ε),   z_pg ~ π^M(· | x_p), executed greedily
        A^m_pn = (R(τ_pn) − mean_j R(τ_pj)) / (std_j R(τ_pj) + ε),   τ_pn ~ π^m(· | x_p, z*_p)

    Reference: HiMAC (arXiv 2603.00977). All executions of a micro group follow the same z*, so the blueprint does not
    affect their advantages.

    Args:
        return_pg: [P, G] macro group: return of each blueprint's greedy execution.
        return_pn: [P, N] micro group: return of each sampled execution of z*.
        **choices: as in `group_advantage`, the same at both levels.
    Returns: `HierarchicalAdvantage`.
    Raises: ConfigError if a shape, return or choice is not allowed, or the two groups disagree about P.
    """
    r_pg, r_pn = _returns(return_pg, "return_pg [P, G]"), _returns(return_pn)
    if len(r_pg) != len(r_pn):
        raise ConfigError(f"return_pg [P, G] and return_pn [P, N] must share P, got {r_pg.shape} and {r_pn.shape}")
    return HierarchicalAdvantage(group_advantage(r_pg, **choices), group_advantage(r_pn, **choices), best(r_pg))


@checked
def same_state_advantage(
    reward_ns: Sequence[Sequence[float]],
    state_ns: Sequence[Sequence[Hashable]],
    *,
    gamma: float = 0.95,
    **choices: Unpack[Choices],
) -> tuple[Floats, ...]:
    """Step advantage: actions in the same state, anywhere in a group, are compared with each other.

        G_ns = r_ns + γ G_n,s+1;   A^step_ns = `group_advantage` of G_ns among {G_mt : state_mt = state_ns}

    Reference: GiGPO (arXiv 2505.10978), "anchor states". A state that occurs once gives zero.

    Args:
        reward_ns: N trajectories of one level, the reward of each of their S_n steps (S_n may differ).
        state_ns: the state before each of these steps, any hashable value, such as the board's text.
        gamma: γ in [0, 1], the discount per step.
        **choices: as in `group_advantage`; the visits of one state are its group and its batch.
    Returns: N arrays, float64 [S_n].
    Raises: ConfigError if rewards and states do not match, or a return or choice is not allowed.
    """
    if [len(reward_s) for reward_s in reward_ns] != [len(state_s) for state_s in state_ns]:
        raise ConfigError("reward_ns and state_ns must both hold N trajectories, with one reward and one state a step")
    if not 0.0 <= gamma <= 1.0:
        raise ConfigError(f"gamma must lie in [0, 1], got {gamma}")
    return_ns = tuple(np.array(reward_s, dtype=np.float64) for reward_s in reward_ns)
    visits: dict[Hashable, list[tuple[int, int]]] = defaultdict(list)
    for n, (return_s, state_s) in enumerate(zip(return_ns, state_ns, strict=True)):
        for s in reversed(range(len(return_s) - 1)):
            return_s[s] += gamma * return_s[s + 1]
        for s, state in enumerate(state_s):
            visits[state].append((n, s))
    advantage_ns = tuple(np.zeros_like(return_s) for return_s in return_ns)
    for steps in visits.values():
        if len(steps) > 1:
            compared = group_advantage([[return_ns[n][s] for n, s in steps]], **choices)[0]  # [visits of the state]
            for (n, s), a in zip(steps, compared, strict=True):
                advantage_ns[n][s] = a
    return advantage_ns


@checked
def gigpo_advantage(
    reward_ns: Sequence[Sequence[float]],
    state_ns: Sequence[Sequence[Hashable]],
    *,
    omega: float = 1.0,
    gamma: float = 0.95,
    **choices: Unpack[Choices],
) -> tuple[Floats, ...]:
    """Group-in-group advantage: the advantage of the trajectory plus the step advantage of the action.

        A_ns = A^episode_n + ω A^step_ns,   A^episode = `group_advantage` of R_n = Σ_s r_ns

    Reference: GiGPO (arXiv 2505.10978).

    Args:
        reward_ns, state_ns, gamma: as in `same_state_advantage`. Rewards of a return at the end: (0, …, 0, R).
        omega: ω, weight of the step advantage.
        **choices: as in `group_advantage`, for both terms.
    Returns: N arrays, float64 [S_n].
    Raises: ConfigError as `same_state_advantage`.
    """
    step_ns = same_state_advantage(reward_ns, state_ns, gamma=gamma, **choices)
    episode_n = group_advantage([[sum(reward_s) for reward_s in reward_ns]], **choices)[0]
    return tuple(a + omega * step_s for a, step_s in zip(episode_n, step_ns, strict=True))


def _returns(values: ArrayLike, name: str = "return_pn [P, N]") -> Floats:
    array = as_floats(values, name, 2)
    if array.size == 0:
        raise ConfigError(f"{name} must have rank 2 and at least one return, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ConfigError(f"{name} must be finite: one nan or inf makes its whole group nan")
    return array


def as_floats(values: ArrayLike, name: str, rank: int) -> Floats:
    """The values as a float64 array. Raises `ConfigError` with their name for another rank or what is not numbers."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ConfigError(f"{name} must be numbers in rows of equal length, not {values!r:.80}") from None
    if array.ndim != rank:
        raise ConfigError(f"{name} must have rank {rank}, got shape {array.shape}")
    return array
