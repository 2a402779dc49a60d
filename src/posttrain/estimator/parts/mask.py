"""Stabilisation masks: which tokens keep their gradient. `Mask = (view, ratio, advantage) -> Bool`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posttrain.estimator.batch import Origin
from posttrain.estimator.view import View


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


def on_rollouts(
    view: View,
    ratio: Float[Tensor, "..."],
    advantage: Float[Tensor, "..."],
    *,
    mask: Callable[[View, Tensor, Tensor], Tensor],
) -> Bool[Tensor, "..."]:
    """A mask for sampled tokens; every demonstrated one is kept, for its ratio compares nothing."""
    return view.select & (mask(view, ratio, advantage) | (view.origin == Origin.DEMO))
