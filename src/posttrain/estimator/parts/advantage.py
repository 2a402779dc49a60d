"""Advantages that depend on the current policy or on nothing. Those made from rewards are in `credit/`."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from posttrain.estimator.batch import MAX_LOG_RATIO
from posttrain.estimator.view import View, row_mean, row_sum

SAME_LOGP = 1e-4  # two forward passes of one model in float32 differ by less, and the sign of that is noise


def one(view: View) -> Float[Tensor, "..."]:
    """1: every token of a demonstration is as good as the next."""
    return torch.ones_like(view.logp)


def minus_one(view: View) -> Float[Tensor, "..."]:
    """-1: every token is to be forgotten."""
    return -torch.ones_like(view.logp)


def not_preferred(view: View, *, beta: float) -> Float[Tensor, "B 1"]:
    """-2 sigmoid(beta m), m the row's sum of logp - ref_logp (NPO, arXiv:2404.05868)."""
    return -2 * torch.sigmoid(beta * row_sum(view, view.logp - view.require("ref_logp")))


def given(view: View) -> Float[Tensor, "..."]:
    """The batch's own, made by `prepare` from rewards and groups."""
    return view.require("advantage")


def left_of_ratio(view: View, *, beta: float) -> Float[Tensor, "..."]:
    """2 beta (A - beta m), A the batch's own and m the row's sum of logp - ref_logp: the gradient of (beta m - A)²
    (A*-PO, arXiv:2505.20686).
    """
    gain = row_sum(view, view.logp - view.require("ref_logp"))
    return 2 * beta * (view.require("advantage") - beta * gain)


def drift(view: View) -> Float[Tensor, "..."]:
    """-log(pi / pi_old): the gradient of its square / 2, which holds the policy near the one that collected."""
    return view.old_logp - view.logp


def marked_drift_sign(view: View) -> Float[Tensor, "..."]:
    """-sign(log(pi / pi_old)) on marked tokens, 0 elsewhere: the gradient of |log(pi / pi_old)| (KL-Cov,
    arXiv:2505.22617).
    """
    gap = view.old_logp - view.logp
    return torch.where(view.require("mark") & (gap.abs() > SAME_LOGP), gap.sign(), 0.0)


def importance(view: View, *, exponent: float, max_weight: float) -> Float[Tensor, "B 1"]:
    """min((pi(y)/pi_ref(y))^(exponent/|y|), max_weight), one number for each row (iw-SFT, arXiv:2507.12856)."""
    return (exponent * row_mean(view, view.logp - view.require("ref_logp"))).exp().clamp(max=max_weight)


def k2(view: View) -> Float[Tensor, "..."]:
    """-(logp - ref_logp): the gradient of (logp - ref_logp)²/2, an estimate of KL(pi || ref) (Schulman 2020)."""
    return view.require("ref_logp") - view.logp


def k3(view: View) -> Float[Tensor, "..."]:
    """exp(d) - 1, d = ref_logp - logp: the gradient of exp(d) - d - 1, an estimate of KL(pi || ref) (Schulman 2020)."""
    return (view.require("ref_logp") - view.logp).clamp(max=MAX_LOG_RATIO).expm1()


def towards_teacher(view: View, *, bound: float, reward_coef: float) -> Float[Tensor, "..."]:
    """log q - log pi_old, within ±bound, + reward_coef · the batch's own advantage: the k1 estimate of -KL(pi || q)."""
    pull = (view.require("teacher_logp") - view.old_logp).clamp(-bound, bound)
    return pull + reward_coef * view.require("advantage") if reward_coef else pull


def nearer_to_teacher(view: View, *, bound: float) -> Float[Tensor, "..."]:
    """log q - log pi, within ±bound: `towards_teacher` of the policy as it is."""
    return (view.require("teacher_logp") - view.logp).clamp(-bound, bound)


def indecision(view: View) -> Float[Tensor, "..."]:
    """1 - p; with a denominator of 1 the weight is p (1 - p), largest where the policy is undecided (arXiv:2508.11408)."""
    return 1 - view.logp.exp()


def confidence(view: View, *, coef: float) -> Float[Tensor, "..."]:
    """coef · exp(-H), H the collected entropy: less for demonstrations that the policy finds strange (SRFT)."""
    return coef * (-view.require("entropy")).exp()
