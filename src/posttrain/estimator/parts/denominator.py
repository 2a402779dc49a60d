"""Reference-policy denominators, as log pi_ref. The ratio of a token is exp(logp - log pi_ref)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from posttrain.estimator.batch import MAX_LOG_RATIO, Origin
from posttrain.estimator.view import View, row_mean, row_sum


def current(view: View) -> Float[Tensor, "..."]:
    """log pi_theta itself, detached: the ratio is 1 and the gradient that of the log-likelihood."""
    return view.logp


def unit(view: View) -> Float[Tensor, "..."]:
    """pi_ref = 1: the ratio is the probability itself (DFT; demonstrations in SRFT)."""
    return torch.zeros_like(view.logp)


def old(view: View) -> Float[Tensor, "..."]:
    """The policy when the batch was collected, by the trainer's own forward: PPO's denominator."""
    return view.old_logp


def old_sequence_mean(view: View) -> Float[Tensor, "..."]:
    """Every token's ratio is the row's geometric mean, (pi(y)/pi_old(y))^(1/|y|) (GSPO, arXiv:2507.18071, eq. 7)."""
    return view.logp - row_mean(view, view.logp - view.old_logp)


def old_sequence(view: View) -> Float[Tensor, "..."]:
    """Every token's ratio is that of the whole row, pi(y)/pi_old(y) (RLOO with several updates)."""
    return view.logp - row_sum(view, view.logp - view.old_logp)


def old_capped(view: View, *, high: float) -> Float[Tensor, "..."]:
    """max(old, logp - log(1 + high)): the ratio is min(r, 1 + high), as a weight (CISPO, arXiv:2506.13585, eq. 4-5)."""
    return torch.maximum(view.old_logp, view.logp - math.log1p(high))


def old_clipped_mean(view: View, *, low: float, high: float) -> Float[Tensor, "..."]:
    """Every token's ratio is the geometric mean of the row's ratios, each bounded on the side of its advantage: log r at most
    `high` where A > 0, at least -`low` where A < 0 (GMPO, arXiv:2507.20673).
    """
    gap, advantage = view.logp - view.old_logp, view.require("advantage")
    bounded = torch.where(advantage > 0, gap.clamp(max=high), torch.where(advantage < 0, gap.clamp(min=-low), gap))
    return view.logp - row_mean(view, bounded)


def soft_gate(view: View, *, positive: float, negative: float) -> Float[Tensor, "..."]:
    """The ratio is 4 g (1 - g) r, g = sigmoid(tau (r - 1)), tau by the sign of A: the gradient of 4 g / tau, which fades
    where PPO's clip cuts (SAPO, arXiv:2511.20347).
    """
    ratio = (view.logp - view.old_logp).clamp(max=MAX_LOG_RATIO).exp()
    slope = _either(view, view.require("advantage") > 0, positive, negative) * (ratio - 1)
    return view.old_logp - math.log(4) - logsigmoid(slope) - logsigmoid(-slope)


def tapered(view: View) -> Float[Tensor, "..."]:
    """Where A < 0 the ratio is min(pi(y)/pi_old(y), 1) of the whole row, else 1 (TOPR, arXiv:2503.14286): a wrong answer
    counts the less the less likely it has become.
    """
    taper = row_sum(view, view.logp - view.old_logp).clamp(max=0)
    return torch.where(view.require("advantage") < 0, view.logp - taper, view.logp)


def gamma_shaped(
    view: View, *, positive_power: float, positive_decay: float, negative_power: float, negative_decay: float
) -> Float[Tensor, "..."]:
    """The ratio is w^k exp(decay (1 - w)), w = pi(y)/pi_old(y) of the whole row, k and the decay by the sign of A: 1 at
    w = 1, largest at w = k / decay (VESPO, arXiv:2602.10693).
    """
    log_ratio = row_sum(view, view.logp - view.old_logp).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    rising = view.require("advantage") >= 0
    power, decay = (
        _either(view, rising, positive_power, negative_power),
        _either(view, rising, positive_decay, negative_decay),
    )
    return view.logp - (power * log_ratio + decay * (1 - log_ratio.exp()))


def shaped(view: View, *, gamma: float) -> Float[Tensor, "..."]:
    """2 log(p + gamma) - log gamma: the ratio is gamma p / (p + gamma)², the gradient that of p / (p + gamma).

    Policy shaping for demonstrations of an unknown policy (LUFFY, arXiv:2504.14945, eq. 8): at most 1/4, at p = gamma.
    """
    return 2 * (view.logp.exp() + gamma).log() - math.log(gamma)


def floored(view: View, *, least: float) -> Float[Tensor, "..."]:
    """The ratio is max(p, least): a weight by the token's own probability that never vanishes (GOLD, in arXiv:2305.14718)."""
    return view.logp - view.logp.exp().clamp(min=least).log()


def complement(view: View) -> Float[Tensor, "..."]:
    """pi_ref = 1 - p: with A = -1 the gradient of -log(1 - p) (unlikelihood, arXiv:1908.04319)."""
    eps = torch.finfo(view.logp.dtype).eps  # no log-prob is known better, and 1 - p of a token learnt by heart may be 0
    return (-view.logp.expm1()).clamp(min=eps).log()


def each(view: View, values: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """A token's own, where `row_sum` would be its row's."""
    return values


def reference_clipped(
    view: View, *, level: Callable[[View, Tensor], Tensor], low: float, high: float
) -> Float[Tensor, "..."]:
    """The ratio is clip(pi/pi_ref, low, high) against the start model, as a weight; of each token, or of the row."""
    gap = level(view, view.logp - view.require("ref_logp")).clamp(max=MAX_LOG_RATIO)
    return view.logp - gap.exp().clamp(low, high).log()


def by_origin(
    view: View, *, rollout: Callable[[View], Tensor], demonstration: Callable[[View], Tensor]
) -> Float[Tensor, "..."]:
    """One denominator for sampled tokens, another for demonstrated ones: one term over both."""
    return torch.where(view.origin == Origin.DEMO, demonstration(view), rollout(view))


def _either(view: View, choice: Tensor, one: float, other: float) -> Float[Tensor, "..."]:
    """One number or the other, in the precision of the log-probs: of two numbers `torch.where` makes float32."""
    return torch.where(choice, torch.full_like(view.logp, one), other)
