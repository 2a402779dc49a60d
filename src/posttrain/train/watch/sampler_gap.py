"""How far the sampler is from the trainer: the same tokens, scored by the engine that sampled them and by the trainer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from posttrain.estimator.batch import MAX_LOG_RATIO, Batch, Origin

_WEIGHT, _SQUARE = "weight of rollout tokens", "squared weight of rollout tokens"


def gap_shares(batch: Batch, own: Float[Tensor, "B T"], tokens: int) -> dict[str, Float[Tensor, ""]]:
    """A micro-batch's shares, of `tokens` rollout tokens in the whole step.

    With w = p_trainer / p_sampler of a token: mean of w - 1 - log w, an estimate of KL(sampler || trainer) (k3, Schulman
    2020); the largest |log w|; and what the effective sample size is made of.
    """
    assert batch.behavior_logp is not None
    select = batch.loss_mask & (batch.origin == Origin.ROLLOUT)
    gap = torch.where(select, own.detach() - batch.behavior_logp.to(own.dtype), 0.0)
    weight = gap.clamp(max=MAX_LOG_RATIO).exp()
    return {
        "kl/sampler_trainer": (weight - 1 - gap).sum() / tokens,
        "logp_diff/max": gap.abs().max(),
        _WEIGHT: torch.where(select, weight, 0.0).sum(),
        _SQUARE: torch.where(select, weight**2, 0.0).sum(),
    }


def gap_metrics(total: Mapping[str, float], tokens: int) -> dict[str, float]:
    """The step's metrics with `rollout/effective_sample_size`, (sum w)² / (n · sum w²), a share of the step's tokens."""
    metrics = dict(total)
    weight, square = metrics.pop(_WEIGHT, 0.0), metrics.pop(_SQUARE, 0.0)
    return {**metrics, "rollout/effective_sample_size": weight**2 / (tokens * square)} if square else metrics
