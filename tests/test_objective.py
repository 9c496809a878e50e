"""The loss: literals derived by hand, torch.distributions and finite differences as second opinion, and its laws."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Categorical, kl_divergence

from himac_lite.objective import (
    clip_fraction,
    clipped_surrogate,
    entropy,
    kl,
    masked_mean,
    policy_loss,
    ratio,
    token_log_probs,
)

CLOSE = {"rtol": 1e-6, "atol": 1e-6}
LN2 = math.log(2.0)


def row(*values: float) -> torch.Tensor:
    """[1, T], double."""
    return torch.tensor([values], dtype=torch.float64)


def log_row(*values: float) -> torch.Tensor:
    return row(*values).log()


def keep(*values: int) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.bool)


# ---- log-probabilities and entropy -------------------------------------------------------------------------------


def test_token_log_probs_by_hand():
    # logits ln 1, ln 3: probabilities ¼, ¾; at τ = ½ the logits double to ln 1, ln 9: 1/10, 9/10
    logits = torch.tensor([[[0.0, math.log(3.0)]] * 2])
    ids = torch.tensor([[0, 1]])
    torch.testing.assert_close(token_log_probs(logits, ids).exp(), torch.tensor([[0.25, 0.75]]), **CLOSE)
    torch.testing.assert_close(token_log_probs(logits, ids, 0.5).exp(), torch.tensor([[0.1, 0.9]]), **CLOSE)


def test_entropy_by_hand():
    # uniform over 4: ln 4; (½, ¼, ¼): ½ ln 2 + 2 · ¼ ln 4 = 1.5 ln 2; a sure thing and a forbidden token: 0
    p = torch.tensor([[[0.25] * 4, [0.5, 0.25, 0.25, 0.0], [1.0, 0.0, 0.0, 0.0]]])
    torch.testing.assert_close(entropy(p.log()), torch.tensor([[2 * LN2, 1.5 * LN2, 0.0]]), **CLOSE)


@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.0])
def test_parity_with_torch_distributions_forward_and_gradient(temperature):
    torch.manual_seed(0)
    ours = (3 * torch.randn(3, 5, 11)).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    ids, weight = torch.randint(11, (3, 5)), torch.randn(2, 3, 5)
    other = Categorical(logits=theirs / temperature)
    for mine, reference, w in (
        (token_log_probs(ours, ids, temperature), other.log_prob(ids), weight[0]),
        (entropy(ours, temperature), other.entropy(), weight[1]),
    ):
        torch.testing.assert_close(mine, reference, **CLOSE)
        (grad,) = torch.autograd.grad((w * mine).sum(), ours)
        (grad_reference,) = torch.autograd.grad((w * reference).sum(), theirs, retain_graph=True)
        torch.testing.assert_close(grad, grad_reference, **CLOSE)


def test_half_precision_is_scored_in_float32():
    torch.manual_seed(0)
    logits, ids = 5 * torch.randn(2, 3, 7), torch.randint(7, (2, 3))
    for dtype in (torch.float16, torch.bfloat16):
        rounded = logits.to(dtype)
        scored = token_log_probs(rounded, ids)
        assert scored.dtype == entropy(rounded).dtype == torch.float32
        torch.testing.assert_close(scored, Categorical(logits=rounded.float()).log_prob(ids), **CLOSE)


def test_large_logits_do_not_overflow():
    # e^1000 is no float; ln(e^1000 / (e^1000 + 1)) = 0 and ln(1 / (e^1000 + 1)) = −1000
    logits = torch.tensor([[[1000.0, 0.0]] * 2])
    assert token_log_probs(logits, torch.tensor([[0, 1]])).tolist() == [[0.0, -1000.0]]


def test_forbidden_tokens_leave_gradients_finite():
    logits = torch.tensor([[[0.0, 1.0, -math.inf]]], requires_grad=True)
    (token_log_probs(logits, torch.tensor([[1]])) + entropy(logits)).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad[0, 0, 2] == 0.0


# ---- surrogate ---------------------------------------------------------------------------------------------------


def test_ratio_by_hand():
    torch.testing.assert_close(ratio(log_row(0.6, 0.25), log_row(0.5, 0.5)), row(1.2, 0.5))


# ρ, A, J, dJ/dlogp (= ρ A where the clip does not bind, else 0), with ε = 0.2
SURROGATE = [
    (1.1, +1.0, +1.1, +1.1),  # inside
    (0.9, -2.0, -1.8, -1.8),
    (1.5, +1.0, +1.2, 0.0),  # better already: no reward for going on
    (0.5, +1.0, +0.5, 0.5),  # too low for a good token: full gradient back up
    (1.5, -1.0, -1.5, -1.5),  # too high for a bad token: full gradient back down
    (0.5, -1.0, -0.8, 0.0),
    (1.5, 0.0, 0.0, 0.0),
]


def test_clipped_surrogate_by_hand_forward_and_gradient():
    rho, a, j, slope = (row(*column) for column in zip(*SURROGATE, strict=True))
    behaviour = log_row(*[0.1] * len(SURROGATE))
    logp = (behaviour + rho.log()).requires_grad_()
    surrogate = clipped_surrogate(logp, behaviour, a)
    torch.testing.assert_close(surrogate.detach(), j)
    surrogate.sum().backward()
    torch.testing.assert_close(logp.grad, slope)
    # the clip binds in rows 2 and 5 of 7; with row 2 masked, in 1 of 6
    everywhere = torch.ones_like(rho, dtype=torch.bool)
    assert clip_fraction(logp, behaviour, a, everywhere).item() == pytest.approx(2 / 7)
    assert clip_fraction(logp, behaviour, a, keep(1, 1, 0, 1, 1, 1, 1)).item() == pytest.approx(1 / 6)
    # a micro-batch's share of an update of 14 tokens
    assert clip_fraction(logp, behaviour, a, everywhere, denominator=14).item() == pytest.approx(1 / 7)


def test_clip_higher():
    # ε_high = 0.28 lifts the ceiling of a good token, not the floor of a bad one
    rho, a = row(1.5, 1.25, 0.5), row(1.0, 1.0, -1.0)
    j = clipped_surrogate(rho.log(), torch.zeros_like(rho), a, clip_high=0.28)
    torch.testing.assert_close(j, row(1.28, 1.25, -0.8))
    share = clip_fraction(rho.log(), torch.zeros_like(rho), a, keep(1, 1, 1), clip_high=0.28)
    assert share.item() == pytest.approx(2 / 3)


# ---- KL ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("estimator", "half_over_quarter", "quarter_over_half"),
    # π = ½, π_ref = ¼: d = −ln 2, k3 = ½ − 1 + ln 2; and the other way round: d = ln 2, k3 = 2 − 1 − ln 2
    [("k1", LN2, -LN2), ("k2", 0.2402265, 0.2402265), ("k3", 0.1931472, 0.3068528)],
)
def test_kl_by_hand(estimator, half_over_quarter, quarter_over_half):
    k = kl(log_row(0.5, 0.25), log_row(0.25, 0.5), estimator=estimator)
    torch.testing.assert_close(k, row(half_over_quarter, quarter_over_half), rtol=1e-6, atol=1e-7)


def test_the_reference_is_data():
    reference = log_row(0.25).requires_grad_()
    logp = log_row(0.5).requires_grad_()
    kl(logp, reference).sum().backward()
    assert reference.grad is None
    torch.testing.assert_close(logp.grad, row(0.5))  # d k3 / d log π = 1 − e^d = 1 − ¼ / ½


def every_token(logits_v: torch.Tensor) -> torch.Tensor:
    """[1, V] log-probability of each token of the vocabulary, so that expectations are sums and need no sampling."""
    v = len(logits_v)
    return token_log_probs(logits_v.expand(1, v, v), torch.arange(v)[None])


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_k1_and_k3_are_unbiased(estimator):
    torch.manual_seed(0)
    policy, reference = torch.randn(2, 6, dtype=torch.float64)
    logp = every_token(policy)
    expected = kl_divergence(Categorical(logits=policy), Categorical(logits=reference))
    torch.testing.assert_close((logp.exp() * kl(logp, every_token(reference), estimator=estimator)).sum(), expected)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_expected_gradient_of_each_estimator_in_a_loss(estimator):
    """What the docstring of `kl` claims: nothing, the gradient of KL(π ‖ π_ref), that of KL(π_ref ‖ π)."""
    torch.manual_seed(0)
    logits, reference = torch.randn(2, 6, dtype=torch.float64)
    logits.requires_grad_()
    logp = every_token(logits)
    # sampling does not let gradients through: the weights are detached
    in_loss = (logp.exp().detach() * kl(logp, every_token(reference), estimator=estimator)).sum()
    (grad,) = torch.autograd.grad(in_loss, logits)
    policy, other = Categorical(logits=logits), Categorical(logits=reference)
    target = {
        "k1": 0.0 * logits.sum(),
        "k2": kl_divergence(policy, other),
        "k3": kl_divergence(other, policy),
    }[estimator]
    (expected,) = torch.autograd.grad(target, logits)
    torch.testing.assert_close(grad, expected)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(-15, 0), st.floats(-15, 0)), min_size=1, max_size=8))
def test_k2_and_k3_are_never_negative(pairs):
    logp, reference = (row(*column) for column in zip(*pairs, strict=True))
    assert (kl(logp, reference, estimator="k2") >= 0).all()
    assert (kl(logp, reference, estimator="k3") >= 0).all()


def test_k3_keeps_its_precision_near_zero():
    # d = 1e-4: d²/2 + d³/6 = 5.00017e-9; in float32 e^d − 1 − d would lose it all (one ulp of 1 is 1.2e-7)
    assert kl(torch.zeros(1, 1), torch.full((1, 1), 1e-4)).item() == pytest.approx(5.00017e-9, rel=1e-2)


# ---- masked mean -------------------------------------------------------------------------------------------------


def test_masked_mean_and_its_three_denominators():
    x = torch.tensor([[1.0, 2.0, 3.0], [6.0, math.nan, math.inf]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    assert masked_mean(x, mask).item() == 3.0  # DAPO, token mean: (1 + 2 + 3 + 6) / 4
    assert masked_mean(x, mask, 6.0).item() == 2.0  # Dr. GRPO, a constant: 12 / 6
    per_sequence = 2.0 * mask.sum(dim=1, keepdim=True)
    assert masked_mean(x, mask, per_sequence).item() == 4.0  # GRPO, mean of sequence means: (6/3 + 6/1) / 2
    assert masked_mean(x, torch.zeros_like(mask)).item() == 0.0  # no token counts


# ---- policy loss -------------------------------------------------------------------------------------------------


def test_policy_loss_by_hand():
    # token 0: ρ = 1.5 clipped to 1.2, A = 2: J = 2.4; π = 0.3, π_ref = 0.3: KL 0
    # token 1: ρ = 0.5, A = 1: J = 0.5; π = ½, π_ref = ¼: k3 = ln 2 − ½ = 0.1931472
    # token 2: masked. L = −(2.4 + 0.5 − 0.1 · 0.1931472) / 4 = −0.7201713
    loss = policy_loss(
        log_row(0.3, 0.5, 0.9),
        log_row(0.2, 1.0, 0.1),
        log_row(0.3, 0.25, 0.5),
        row(2.0, 1.0, 7.0),
        keep(1, 1, 0),
        denominator=4,
        beta=0.1,
    )
    assert loss.item() == pytest.approx(-0.7201713, abs=1e-7)


def test_first_step_is_the_policy_gradient():
    """On fresh samples ρ = 1 and dL/dlogits = −A (onehot(y) − π) / D: REINFORCE, by hand."""
    # two tokens, π = (¼, ¾); y = 0 with A = 2, y = 1 with A = −1; D = 2
    logits = torch.tensor([[[0.0, math.log(3.0)]] * 2], dtype=torch.float64, requires_grad=True)
    logp = token_log_probs(logits, torch.tensor([[0, 1]]))
    # the behaviour is logp itself, undetached: it must not cancel the gradient
    policy_loss(logp, logp, None, row(2.0, -1.0), keep(1, 1), denominator=2, beta=0.0).backward()
    # −2 (1 − ¼, 0 − ¾) / 2 = (−¾, ¾);   +1 (0 − ¼, 1 − ¾) / 2 = (−⅛, ⅛)
    expected = torch.tensor([[[-0.75, 0.75], [-0.125, 0.125]]], dtype=torch.float64)
    torch.testing.assert_close(logits.grad, expected)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_gradient_against_finite_differences(estimator):
    # seed 0 leaves every ratio at least 0.01 from the kinks 0.8 and 1.2, far more than the step 1e-6
    torch.manual_seed(0)
    behaviour, reference = -3 * torch.rand(2, 3, 4, dtype=torch.float64)
    logp = behaviour + 0.3 * torch.randn(3, 4, dtype=torch.float64)
    advantage, mask = torch.randn(3, 4, dtype=torch.float64), torch.rand(3, 4) > 0.3
    rho = (logp - behaviour).exp()
    assert min((rho - 0.8).abs().min(), (rho - 1.2).abs().min()) > 1e-3

    def loss(x: torch.Tensor) -> torch.Tensor:
        return policy_loss(x, behaviour, reference, advantage, mask, denominator=5, beta=0.3, estimator=estimator)

    assert torch.autograd.gradcheck(loss, logp.requires_grad_())


def tiny_batch() -> tuple[torch.nn.Linear, torch.Tensor, dict[str, torch.Tensor]]:
    """A linear "language model" over 8 sequences of 5 tokens with very unequal masks."""
    torch.manual_seed(0)
    model = torch.nn.Linear(6, 9)
    lengths = torch.tensor([5, 1, 2, 5, 0, 3, 4, 1])
    batch = {
        "ids": torch.randint(9, (8, 5)),
        "behaviour": -3 * torch.rand(8, 5),
        "reference": -3 * torch.rand(8, 5),
        "advantage": torch.randn(8, 5),
        "mask": torch.arange(5) < lengths[:, None],
    }
    return model, torch.randn(8, 5, 6), batch


@pytest.mark.parametrize("pieces", [2, 4])
@pytest.mark.parametrize("per_sequence", [False, True])
def test_the_gradient_does_not_depend_on_the_micro_batches(pieces, per_sequence):
    model, x, batch = tiny_batch()
    count = batch["mask"].sum(dim=1, keepdim=True)
    d = 8.0 * count.clamp(min=1) if per_sequence else count.sum().expand(8, 1)

    def gradient(cuts: int) -> torch.Tensor:
        model.zero_grad()
        for part in torch.arange(8).chunk(cuts):
            b = {name: value[part] for name, value in batch.items()}
            logp = token_log_probs(model(x[part]), b["ids"])
            policy_loss(logp, b["behaviour"], b["reference"], b["advantage"], b["mask"], denominator=d[part]).backward()
        assert model.weight.grad is not None
        return model.weight.grad.clone()

    whole = gradient(1)
    assert whole.abs().max() > 1e-2
    torch.testing.assert_close(gradient(pieces), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("garbage", [1e30, -1e30, math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_masked_tokens_get_exactly_zero_gradient(garbage, estimator):
    behaviour, reference, a, mask = log_row(0.5, 0.5), log_row(0.4, 0.4), row(1.0, 1.0), keep(1, 0)
    clean = log_row(0.5, 0.5).requires_grad_()
    dirty = log_row(0.5, 0.5)
    dirty[0, 1] = garbage
    dirty.requires_grad_()
    loss = {}
    for name, logp in (("clean", clean), ("dirty", dirty)):
        loss[name] = policy_loss(logp, behaviour, reference, a, mask, denominator=1, estimator=estimator)
        loss[name].backward()
        assert logp.grad is not None
        assert logp.grad[0, 1].item() == 0.0
        assert logp.grad[0, 0].item() != 0.0
    assert loss["dirty"].item() == loss["clean"].item()
    assert torch.equal(clean.grad, dirty.grad)


@pytest.mark.parametrize("which", ["behaviour", "reference", "advantage"])
def test_garbage_data_at_masked_tokens(which):
    data = {"behaviour": log_row(0.5, 0.5), "reference": log_row(0.4, 0.4), "advantage": row(1.0, 1.0)}
    data[which][0, 1] = math.nan
    logp = log_row(0.5, 0.5).requires_grad_()
    loss = policy_loss(logp, data["behaviour"], data["reference"], data["advantage"], keep(1, 0), denominator=1)
    loss.backward()
    assert loss.isfinite()
    assert logp.grad is not None
    assert logp.grad.isfinite().all()
    assert logp.grad[0, 1].item() == 0.0


# ---- errors ------------------------------------------------------------------------------------------------------


def test_shapes_must_be_the_same_not_merely_broadcastable():
    bt, b1, t = torch.zeros(2, 3), torch.zeros(2, 1), torch.zeros(3)
    mask = torch.ones(2, 3, dtype=torch.bool)
    for call in (
        lambda: ratio(bt, b1),
        lambda: clipped_surrogate(bt, bt, b1),
        lambda: clip_fraction(bt, bt, b1, mask),
        lambda: clip_fraction(bt, bt, bt, mask[:, :1]),
        lambda: kl(bt, b1),
        lambda: masked_mean(bt, mask[:, :1]),
        lambda: policy_loss(bt, bt, b1, bt, mask, denominator=1),
        lambda: policy_loss(bt, bt, bt, bt, mask[:, :1], denominator=1),
        lambda: token_log_probs(torch.zeros(2, 3, 4), torch.zeros(2, 2, dtype=torch.long)),
        lambda: kl(t, t),
    ):
        with pytest.raises(ValueError, match=r"must have shape \[B, T\]"):
            call()
    for call in (lambda: token_log_probs(bt, bt.long()), lambda: entropy(bt)):
        with pytest.raises(ValueError, match=r"must have shape \[B, T, V\]"):
            call()


def test_values_that_are_not_allowed():
    bt, mask = torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool)
    for call, message in (
        (lambda: entropy(torch.zeros(1, 1, 2), 0.0), "temperature must be positive"),
        (lambda: clipped_surrogate(bt, bt, bt, clip_low=-0.1), "clip_low and clip_high must be at least 0"),
        (lambda: kl(bt, bt, estimator="k4"), "k1, k2, k3"),
        (lambda: masked_mean(bt, mask.float()), "mask_bt must be bool"),
        (lambda: policy_loss(bt, bt, bt, bt, mask.float(), denominator=1), "mask_bt must be bool"),
        (lambda: masked_mean(bt, mask, 0.0), "denominator must be positive"),
        (lambda: masked_mean(bt, mask, torch.ones(3)), r"of shape \[\] or \[B, 1\]"),
        (lambda: policy_loss(bt, bt, None, bt, mask, denominator=1, beta=0.01), "beta must be 0"),
        (lambda: policy_loss(bt, bt, bt, bt, mask, denominator=1, beta=-1.0), "beta must be 0"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
