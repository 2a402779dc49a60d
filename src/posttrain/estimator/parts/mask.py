"""Stabilisation masks: which tokens keep their gradient. `Mask = (view, ratio, advantage) -> Bool`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posttrain.estimator.batch import MAX_LOG_RATIO, Origin
from posttrain.estimator.view import View, row_mean

NO_PROBABILITY = 1e-8  # of all other tokens, where the policy is sure of one: a logarithm of less is none


def keep(view: View, ratio: Float[Tensor, "..."], advantage: Float[Tensor, "..."]) -> Bool[Tensor, "..."]:
    """Every selected token."""
    return view.select


def ppo_clip(
    view: View,
    ratio: Float[Tensor, "..."],
    advantage: Float[Tensor, "..."],
    *,
    low: float,
    high: float,
    dual: float | None = None,
) -> Bool[Tensor, "..."]:
    """Drop tokens whose ratio already left the trust region in the direction of the advantage.

        mask_t = not (A_t > 0 and r_t > 1 + high  or  A_t < 0 and r_t < 1 - low  or  A_t < 0 and r_t > dual)

    Same gradient as min(r A, clip(r, 1 - low, 1 + high) A) (Schulman et al. 2017, arXiv:1707.06347, eq. 7), except on
    the boundary itself, where that one has none; `dual` adds the bound max(min(…), dual · A) for A < 0 (Ye et al.
    2020, arXiv:1912.09729, eq. 5). A ratio that is one number for the whole row makes the mask constant along T.
    """
    left = ((advantage > 0) & (ratio > 1 + high)) | ((advantage < 0) & (ratio < 1 - low))
    if dual is not None:
        left = left | ((advantage < 0) & (ratio > dual))
    return torch.logical_and(view.select, ~left)


def two_sided(
    view: View, ratio: Float[Tensor, "..."], advantage: Float[Tensor, "..."], *, low: float, high: float
) -> Bool[Tensor, "..."]:
    """Drop tokens whose ratio is outside [1 - low, 1 + high], whatever their advantage (REC, arXiv:2509.24203)."""
    return view.select & (ratio >= 1 - low) & (ratio <= 1 + high)


def ring(
    view: View,
    ratio: Float[Tensor, "..."],
    advantage: Float[Tensor, "..."],
    *,
    low: float,
    high: float,
    far_low: float,
    far_high: float,
) -> Bool[Tensor, "..."]:
    """`two_sided`, and tokens that are far off where their advantage leads back: ratio <= 1 - far_low with A >= 0, ratio >=
    1 + far_high with A <= 0 (REC, arXiv:2509.24203).
    """
    far = ((advantage >= 0) & (ratio <= 1 - far_low)) | ((advantage <= 0) & (ratio >= 1 + far_high))
    return two_sided(view, ratio, advantage, low=low, high=high) | (view.select & far)


def by_old(
    view: View,
    ratio: Float[Tensor, "..."],
    advantage: Float[Tensor, "..."],
    *,
    mask: Callable[[View, Tensor, Tensor], Tensor],
) -> Bool[Tensor, "..."]:
    """A mask by the token's ratio to pi_old, whatever it is weighed by."""
    return mask(view, (view.logp - view.old_logp).clamp(max=MAX_LOG_RATIO).exp(), advantage)


def log_clip(
    view: View, ratio: Float[Tensor, "..."], advantage: Float[Tensor, "..."], *, low: float, high: float
) -> Bool[Tensor, "..."]:
    """PPO's mask by the token's own log-ratio, whatever the ratio of its row (GMPO, arXiv:2507.20673)."""
    gap = view.logp - view.old_logp
    return view.select & ~(((advantage > 0) & (gap > high)) | ((advantage < 0) & (gap < -low)))


def total_variation(
    view: View, ratio: Float[Tensor, "..."], advantage: Float[Tensor, "..."], *, limit: float
) -> Bool[Tensor, "..."]:
    """Drop tokens whose probability has already moved by more than `limit` in the direction of the advantage: the total
    variation between the policies, of this token and all others together (DPPO, arXiv:2602.04879).
    """
    moved = view.logp.exp() - view.old_logp.exp()
    return view.select & ~torch.where(advantage > 0, moved > limit, moved < -limit)


def binary_kl(
    view: View, ratio: Float[Tensor, "..."], advantage: Float[Tensor, "..."], *, limit: float
) -> Bool[Tensor, "..."]:
    """`total_variation` by KL(pi_old || pi), of this token and all others together (DPPO, arXiv:2602.04879)."""
    p, old = view.logp.exp(), view.old_logp.exp()
    others = (1 - old) * ((1 - old + NO_PROBABILITY) / (1 - p + NO_PROBABILITY)).log()
    far = old * (view.old_logp - view.logp) + others > limit
    return view.select & ~(far & torch.where(advantage > 0, p > old, p < old))


def fresh_rows(
    view: View,
    ratio: Float[Tensor, "..."],
    advantage: Float[Tensor, "..."],
    *,
    limit: float,
    mask: Callable[[View, Tensor, Tensor], Tensor],
) -> Bool[Tensor, "..."]:
    """Of a mask, without rows of negative advantage from which the policy has moved away: the mean of
    log pi_behavior - log pi over the row is above `limit` (off-policy sequence mask, DeepSeek-V3.2, arXiv:2512.02556).
    """
    gap = torch.where(view.origin == Origin.ROLLOUT, view.require("behavior_logp") - view.logp, 0.0)
    return mask(view, ratio, advantage) & ((advantage >= 0) | (row_mean(view, gap) <= limit))


def on_rollouts(
    view: View,
    ratio: Float[Tensor, "..."],
    advantage: Float[Tensor, "..."],
    *,
    mask: Callable[[View, Tensor, Tensor], Tensor],
) -> Bool[Tensor, "..."]:
    """A mask for sampled tokens; every demonstrated one is kept, for its ratio compares nothing."""
    return view.select & (mask(view, ratio, advantage) | (view.origin == Origin.DEMO))
