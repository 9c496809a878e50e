"""The loss as pure functions of tensors: log-probabilities, clipped surrogate, KL estimators, masked means.

Entry (b, t) of every [B, T] tensor belongs to token ``ids[b, t]``; the caller shifts the logits. Log-probabilities are
in nats. No gradient flows into those of the behaviour and the reference policy. The mask alone decides which tokens
learn: blueprint tokens in phase A, action tokens in phase B (HiMAC, arXiv 2603.00977). Every function raises
ConfigError if shapes differ, even if they could broadcast. Axes B, T: see `himac_lite.types`; V is the vocabulary.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from himac_lite.errors import ConfigError, checked

Estimator = Literal["k1", "k2", "k3"]


@checked
def token_log_probs(logits_btv: Tensor, ids_bt: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probability of each token at the temperature of sampling.

        log π(y_t) = l_t[y_t] / τ − log Σ_v exp(l_t[v] / τ)

    Reference: GRPO (arXiv 2402.03300). Without τ the ratio would not start at 1.

    Args:
        logits_btv: [B, T, V]; position t predicts ``ids_bt[:, t]``. Half precision is converted to float32.
        ids_bt: int64 [B, T], in [0, V) everywhere, masked or not.
        temperature: τ > 0, the temperature of sampling.
    Returns: [B, T], without an intermediate [B, T, V] tensor in float32 at τ = 1.
    Raises: ConfigError if the shapes differ or τ is not positive.
    """
    z_btv = _scaled(logits_btv, temperature)
    if ids_bt.shape != z_btv.shape[:2]:
        raise ConfigError(f"ids_bt must have shape [B, T] = {tuple(z_btv.shape[:2])}, got {tuple(ids_bt.shape)}")
    if ids_bt.dtype != torch.int64 or not ((ids_bt >= 0) & (ids_bt < z_btv.shape[2])).all():
        raise ConfigError(f"ids_bt must be int64 from 0 to {z_btv.shape[2] - 1}")
    return z_btv.gather(-1, ids_bt.unsqueeze(-1)).squeeze(-1) - torch.logsumexp(z_btv, dim=-1)  # [B, T]


@checked
def entropy(logits_btv: Tensor, temperature: float = 1.0) -> Tensor:
    """Entropy of the next token's distribution.

        H_t = −Σ_v π_t(v) log π_t(v)

    Reference: Shannon 1948. A forbidden token (logit −inf) adds 0 · log 0 = 0, also to the gradient.

    Args:
        logits_btv, temperature: as in `token_log_probs`.
    Returns: [B, T], from 0 to log V.
    Raises: ConfigError if the rank is not 3 or τ is not positive.
    """
    logp_btv = torch.log_softmax(_scaled(logits_btv, temperature), dim=-1)
    return -(logp_btv.exp() * logp_btv.masked_fill(logp_btv == -torch.inf, 0.0)).sum(dim=-1)  # [B, T]


@checked
def ratio(logp_bt: Tensor, behaviour_bt: Tensor) -> Tensor:
    """Ratio of a token's probability now to its probability when it was sampled.

        ρ_t = π(y_t) / π_old(y_t) = exp(log π − log π_old)

    Reference: PPO (arXiv 1707.06347).

    Args:
        logp_bt: [B, T] log π, with gradient.
        behaviour_bt: [B, T] log π_old, stored at sampling.
    Returns: [B, T], 1 before the first step of an update.
    Raises: ConfigError if the shapes differ.
    """
    _check_bt(logp_bt=logp_bt, behaviour_bt=behaviour_bt)
    return torch.exp(logp_bt - behaviour_bt.detach())


@checked
def clipped_surrogate(
    logp_bt: Tensor, behaviour_bt: Tensor, advantage_bt: Tensor, *, clip_low: float = 0.2, clip_high: float = 0.2
) -> Tensor:
    """Clipped surrogate objective of each token, to be maximised.

        J_t = min(ρ_t A_t, clip(ρ_t, 1 − ε_low, 1 + ε_high) A_t)

    References: PPO (arXiv 1707.06347); GRPO (2402.03300); ε_high > ε_low is DAPO's clip-higher (2503.14476).

    Args:
        logp_bt, behaviour_bt: as in `ratio`.
        advantage_bt: [B, T], the advantage of the token's blueprint, trajectory or step.
        clip_low, clip_high: ε_low and ε_high, at least 0.
    Returns: [B, T], in the unit of the advantage.
    Raises: ConfigError if the shapes differ or an ε is negative.
    """
    rho_bt = ratio(logp_bt, behaviour_bt)
    _check_bt(logp_bt=logp_bt, advantage_bt=advantage_bt)
    _check_clip(clip_low, clip_high)
    return torch.minimum(rho_bt * advantage_bt, rho_bt.clamp(1.0 - clip_low, 1.0 + clip_high) * advantage_bt)


@checked
def clip_fraction(
    logp_bt: Tensor,
    behaviour_bt: Tensor,
    advantage_bt: Tensor,
    mask_bt: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    denominator: float | Tensor | None = None,
) -> Tensor:
    """Share of the tokens whose gradient the clip sets to zero.

        mean_t [(A_t > 0 and ρ_t > 1 + ε_high) or (A_t < 0 and ρ_t < 1 − ε_low)]

    Reference: PPO (arXiv 1707.06347). A ratio outside the range on the other side keeps its gradient: not counted.

    Args:
        logp_bt, behaviour_bt, advantage_bt, clip_low, clip_high: as in `clipped_surrogate`.
        mask_bt, denominator: as in `masked_mean`.
    Returns: scalar from 0 to 1, without gradient.
    Raises: ConfigError if the shapes differ, an ε is negative or the mask is not bool.
    """
    rho_bt = ratio(logp_bt.detach(), behaviour_bt)
    _check_bt(logp_bt=logp_bt, advantage_bt=advantage_bt)
    _check_clip(clip_low, clip_high)
    cut_bt = ((advantage_bt > 0) & (rho_bt > 1.0 + clip_high)) | ((advantage_bt < 0) & (rho_bt < 1.0 - clip_low))
    return masked_mean(cut_bt.to(rho_bt.dtype), mask_bt, denominator)


@checked
def kl(logp_bt: Tensor, reference_bt: Tensor, *, estimator: Estimator = "k3") -> Tensor:
    """Estimate of KL(π ‖ π_ref) from one token y ~ π.

        d = log π_ref(y) − log π(y);   k1 = −d,   k2 = d² / 2,   k3 = e^d − 1 − d

    References: Schulman 2020 (joschu.net/blog/kl-approx.html); GRPO (arXiv 2402.03300) uses k3.

    The values of k1 and k3 are unbiased; those of k2 and k3 are never negative. In a loss, the expected gradient of k1
    is zero, that of k2 is the gradient of KL(π ‖ π_ref), and that of k3 is the gradient of KL(π_ref ‖ π).

    Args:
        logp_bt: [B, T] log π, with gradient.
        reference_bt: [B, T] log π_ref.
        estimator: ``k1``, ``k2`` or ``k3``.
    Returns: [B, T] in nats.
    Raises: ConfigError if the shapes differ or the estimator is unknown.
    """
    _check_bt(logp_bt=logp_bt, reference_bt=reference_bt)
    d_bt = reference_bt.detach() - logp_bt
    if estimator == "k1":
        return -d_bt
    if estimator == "k2":
        return d_bt.square() / 2.0
    return torch.expm1(d_bt) - d_bt  # k3: expm1, because near d = 0 the terms e^d and 1 cancel


@checked
def masked_mean(x_bt: Tensor, mask_bt: Tensor, denominator: float | Tensor | None = None) -> Tensor:
    """Sum over the tokens of the mask, divided by D.

        Σ_bt m_bt x_bt / D_b

    References: DAPO (arXiv 2503.14476): D is the number of tokens of the mask. Dr. GRPO (2503.20783): D is a constant.
    GRPO (2402.03300): D_b is the number of sequences times the tokens of sequence b.

    Args:
        x_bt: [B, T]; values outside the mask are ignored, nan included.
        mask_bt: bool [B, T].
        denominator: D > 0, a number, a scalar tensor or [B, 1]. Default: the tokens of the mask, at least 1.
    Returns: scalar, in the unit of x.
    Raises: ConfigError if the shapes differ, the mask is not bool or D is not positive.
    """
    _check_bt(x_bt=x_bt, mask_bt=mask_bt)
    if mask_bt.dtype != torch.bool:
        raise ConfigError(f"mask_bt must be bool [B, T], got {mask_bt.dtype}")
    if denominator is None:
        denominator = mask_bt.sum().clamp(min=1)
    checked = torch.as_tensor(denominator)
    if checked.shape not in ((), (len(x_bt), 1)) or not (checked > 0).all():
        raise ConfigError(f"denominator must be positive, of shape [] or [B, 1] = ({len(x_bt)}, 1), got {denominator}")
    return (torch.where(mask_bt, x_bt, 0.0) / denominator).sum()


@checked
def policy_loss(
    logp_bt: Tensor,
    behaviour_bt: Tensor,
    reference_bt: Tensor | None,
    advantage_bt: Tensor,
    mask_bt: Tensor,
    *,
    denominator: float | Tensor,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    beta: float = 0.01,
    estimator: Estimator = "k3",
) -> Tensor:
    """Loss of one micro-batch. The losses of all micro-batches *add up* to the loss of the update.

        L = −Σ_bt m_bt (J_bt − β KL_bt) / D

    References: GRPO (arXiv 2402.03300); HiMAC (arXiv 2603.00977), for both roles.

    Args:
        logp_bt, behaviour_bt, advantage_bt, clip_low, clip_high: as in `clipped_surrogate`.
        reference_bt, estimator: as in `kl`; the reference may be None if β = 0.
        mask_bt: bool [B, T], the tokens that learn; the gradient of all others is exactly zero.
        denominator: D of the *whole* update (see `masked_mean`), so that the gradient does not depend on micro-batches.
        beta: β >= 0, the weight of the KL term.
    Returns: scalar, to be minimised.
    Raises: ConfigError if the shapes differ, a choice is not allowed, or the reference is missing.
    """
    _check_bt(logp_bt=logp_bt, behaviour_bt=behaviour_bt, advantage_bt=advantage_bt, mask_bt=mask_bt)
    if beta < 0 or (beta > 0 and reference_bt is None):
        raise ConfigError(f"beta must be 0, or positive with a reference_bt of shape [B, T], got {beta}")
    # Cuts the gradient of masked tokens. `masked_mean` is too late: an overflow of exp gives 0 · inf = nan.
    logp_bt = logp_bt.masked_fill(~mask_bt.bool(), 0.0)
    objective_bt = clipped_surrogate(logp_bt, behaviour_bt, advantage_bt, clip_low=clip_low, clip_high=clip_high)
    if beta > 0 and reference_bt is not None:
        objective_bt = objective_bt - beta * kl(logp_bt, reference_bt, estimator=estimator)
    return -masked_mean(objective_bt, mask_bt, denominator)


def _scaled(logits_btv: Tensor, temperature: float) -> Tensor:
    if logits_btv.ndim != 3:
        raise ConfigError(f"logits_btv must have shape [B, T, V], got {tuple(logits_btv.shape)}")
    if not temperature > 0:
        raise ConfigError(f"temperature must be positive, got {temperature}")
    z_btv = logits_btv.to(torch.promote_types(logits_btv.dtype, torch.float32))
    return z_btv if temperature == 1.0 else z_btv / temperature


def _check_bt(**tensors: Tensor) -> None:
    (first, like), *others = tensors.items()
    if like.ndim != 2:
        raise ConfigError(f"{first} must have shape [B, T], got {tuple(like.shape)}")
    for name, x in others:
        if x.shape != like.shape:
            raise ConfigError(f"{name} must have shape [B, T] = {tuple(like.shape)} like {first}, got {tuple(x.shape)}")


def _check_clip(clip_low: float, clip_high: float) -> None:
    if not (clip_low >= 0 and clip_high >= 0):
        raise ConfigError(f"clip_low and clip_high must be at least 0, got {clip_low} and {clip_high}")
