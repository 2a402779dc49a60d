"""Credit of single tokens, and its whitening over the whole collection: `Batch -> Batch`, in `prepare`."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posttrain.estimator.batch import Batch
from posttrain.estimator.parts.coefficient import Coefficient, coefficient_at
from posttrain.estimator.parts.credit.grouping import centred, graded_rewards

WHITE_EPS = 1e-8  # added to the variance, as in verl


def returns_to_go(batch: Batch, *, discount: float, kl_coef: Coefficient, centre: bool) -> Batch:
    """A_t = sum over s >= t of discount^(s - t) r_s: at the last token that carries loss stands the answer's reward, less the
    mean of its group if `centre`, and at each - kl_coef (log pi_old - log pi_ref) (REINFORCE++, arXiv:2501.03262).

    Raises:
        ValueError: with a KL, the batch lacks the log-probs of the reference or of the collecting policy.
    """
    rewards, graded = graded_rewards(batch)
    rewards = centred(rewards, batch.group, graded) if centre else rewards
    mask = batch.loss_mask
    last = mask & (mask.cumsum(-1) == mask.sum(-1, keepdim=True))
    per_token = torch.where(last, rewards[:, None], 0.0)
    if kl_coef:
        per_token = per_token - coefficient_at(kl_coef, batch) * _kl(batch)
    return batch.replace(advantage=_to_go(per_token, mask, discount))


def whitened(batch: Batch) -> Batch:
    """(A - mean) / std over all tokens of the collection that carry loss, with the unbiased variance."""
    assert batch.advantage is not None
    mask = batch.loss_mask
    counted, number = batch.advantage[mask], mask.sum()  # without padding, whose width would be in the last bit
    mean = counted.sum() / number.clamp(min=1)
    variance = (counted - mean).square().sum() / (number - 1).clamp(min=1)
    return batch.replace(advantage=torch.where(mask, batch.advantage - mean, 0.0) * (variance + WHITE_EPS).rsqrt())


def _kl(batch: Batch) -> Float[Tensor, "B T"]:
    """log pi_old - log pi_ref of each token that carries loss: the k1 estimate, of the collecting policy."""
    collected = batch.old_logp if batch.old_logp is not None else batch.behavior_logp
    if collected is None or batch.ref_logp is None:
        raise ValueError("A KL penalty in the reward needs Batch.ref_logp and Batch.old_logp (or behavior_logp).")
    return torch.where(batch.loss_mask, collected - batch.ref_logp, 0.0)


def _to_go(rewards: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], discount: float) -> Float[Tensor, "B T"]:
    """Discounted sums from each token on; tokens without loss are no steps."""
    returns, ahead = torch.zeros_like(rewards), torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        ahead = torch.where(mask[:, t], rewards[:, t] + discount * ahead, ahead)
        returns[:, t] = ahead
    return returns
