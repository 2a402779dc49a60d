"""Reference-policy denominators, as log pi_ref. The ratio of a token is exp(logp - log pi_ref)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from posttrain.estimator.batch import Origin
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


def shaped(view: View, *, gamma: float) -> Float[Tensor, "..."]:
    """2 log(p + gamma) - log gamma: the ratio is gamma p / (p + gamma)², the gradient that of p / (p + gamma).

    Policy shaping for demonstrations of an unknown policy (LUFFY, arXiv:2504.14945, eq. 8): at most 1/4, at p = gamma.
    """
    return 2 * (view.logp.exp() + gamma).log() - math.log(gamma)


def by_origin(
    view: View, *, rollout: Callable[[View], Tensor], demonstration: Callable[[View], Tensor]
) -> Float[Tensor, "..."]:
    """One denominator for sampled tokens, another for demonstrated ones: one term over both."""
    return torch.where(view.origin == Origin.DEMO, demonstration(view), rollout(view))
