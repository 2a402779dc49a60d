"""Corrections for a sampler that is not quite the trainer: detached factors made from old_logp - behavior_logp.

The clip does not see them, and they are 1 on demonstration tokens, which no sampler wrote.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from posttrain.estimator.batch import Origin
from posttrain.estimator.view import View, row_mean, row_sum


def none(view: View) -> Float[Tensor, "..."]:
    """The sampler is the trainer."""
    return torch.ones_like(view.logp)


def token(view: View) -> Float[Tensor, "..."]:
    """log pi_old - log pi_behavior of each token, 0 on demonstration tokens."""
    gap = view.old_logp - view.require("behavior_logp")
    return torch.where(view.origin == Origin.ROLLOUT, gap, 0.0)


def sequence(view: View) -> Float[Tensor, "B 1"]:
    """The row's sum of the tokens' log-ratios."""
    return row_sum(view, token(view))


def geometric(view: View) -> Float[Tensor, "B 1"]:
    """The row's mean of the tokens' log-ratios."""
    return row_mean(view, token(view))


def truncate(view: View, *, level: Callable[[View], Tensor], cap: float) -> Float[Tensor, "..."]:
    """min(exp(log-ratio), cap): truncated importance sampling (TIS; Espeholt et al. 2018, arXiv:1802.01561, eq. 1)."""
    return _on_rollouts(view, level(view).exp().clamp(max=cap))


def mask(view: View, *, level: Callable[[View], Tensor], cap: float) -> Float[Tensor, "..."]:
    """The ratio where it lies in [1/cap, cap], 0 elsewhere: masked importance sampling (MIS)."""
    ratio = level(view).exp()
    return _on_rollouts(view, torch.where((ratio <= cap) & (ratio >= 1 / cap), ratio, 0.0))


def _on_rollouts(view: View, factor: Tensor) -> Tensor:
    return torch.where(view.origin == Origin.ROLLOUT, factor, 1.0)
