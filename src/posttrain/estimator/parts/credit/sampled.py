"""Credit by how likely tokens were to who sampled them: `Batch -> Batch`, in `prepare`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from posttrain.estimator.batch import MAX_LOG_RATIO, Batch, Origin


def by_effective_size(batch: Batch, *, credit: Callable[[Batch], Batch]) -> Batch:
    """A · min(w, ESS) - (1 - ESS)(1 - 1/w), w = pi_old/pi_behavior of the token, ESS = (sum w)² / (n sum w²) over all tokens
    that carry loss: an importance weight and the pull of KL(pi || pi_behavior) by the k3 estimate, both by one number that
    is 1 where the samples are the policy's own (P3O, arXiv:1905.01756).

    Raises:
        ValueError: the batch lacks the collecting policy's log-probs, or the sampler's.
    """
    if batch.old_logp is None or batch.behavior_logp is None:
        raise ValueError("Tokens are weighed by who sampled them: set Batch.old_logp and Batch.behavior_logp.")
    advantage = credit(batch).advantage
    assert advantage is not None
    counted = batch.loss_mask & (batch.origin == Origin.ROLLOUT)
    log_ratio = torch.where(counted, batch.old_logp - batch.behavior_logp, 0.0).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    size = effective_size(log_ratio[batch.loss_mask].exp())
    return batch.replace(advantage=advantage * log_ratio.exp().clamp(max=size) + (1 - size) * (-log_ratio).expm1())


def effective_size(weights: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """(sum w)² / (n sum w²), the share of samples that is as good as unweighted ones; 1 of none."""
    squares = weights.square().sum() * len(weights)
    return torch.where(squares > 0, weights.sum().square() / squares.clamp(min=torch.finfo(weights.dtype).tiny), 1.0)
