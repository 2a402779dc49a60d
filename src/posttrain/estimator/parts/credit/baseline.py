"""From rewards and groups to advantages: `Batch -> Batch`, run once on the whole collection, before any forward pass.

Rows whose `reward_mask` is False are in no baseline, and their own advantage does not matter: their loss mask is cleared.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from posttrain.estimator.batch import Batch
from posttrain.estimator.parts.select import demonstrated_rows

STD_EPS = 1e-4  # keeps a group of nearly equal rewards from dividing by nothing; the value of TRL and verl


def as_given(batch: Batch) -> Batch:
    """No credit to assign: the estimator needs no rewards, or the advantages are there."""
    return batch


def reward(batch: Batch) -> Batch:
    """A = R: no baseline (Williams 1992)."""
    rewards, _ = graded_rewards(batch)
    return spread(batch, rewards)


def group_mean(batch: Batch) -> Batch:
    """A_i = R_i - mean(R of its group)."""
    rewards, graded = graded_rewards(batch)
    return spread(batch, centred(rewards, batch.group, graded))


def group_normalised(batch: Batch, *, eps: float = STD_EPS) -> Batch:
    """A_i = (R_i - mean) / (std + eps) in its group, with the unbiased std; 0 in a group of one.

    arXiv:2402.03300, section 4.1.2.
    """
    rewards, graded = graded_rewards(batch)
    gaps = centred(rewards, batch.group, graded)
    return spread(batch, gaps / (_group_std(gaps, batch.group, graded) + eps))


def leave_one_out(batch: Batch) -> Batch:
    """A_i = R_i - mean(R of the others in its group); 0 in a group of one (arXiv:2402.14740, eq. 8)."""
    rewards, graded = graded_rewards(batch)
    size = group_sum(graded.to(rewards.dtype), batch.group)
    gaps = centred(rewards, batch.group, graded)
    return spread(batch, gaps * size / (size - 1).clamp(min=1))


def varying_groups_normalised(batch: Batch, *, eps: float = STD_EPS) -> Batch:
    """`group_normalised`, and groups whose graded rewards are all equal leave the loss mask, and so N: dynamic sampling
    (DAPO, arXiv:2503.14476, eq. 11).
    """
    kept = batch.loss_mask & _varying(batch)[:, None]
    return group_normalised(batch, eps=eps).replace(loss_mask=kept)


def of_rollouts(batch: Batch, *, credit: Callable[[Batch], Batch]) -> Batch:
    """The credit of sampled rows: a demonstration is in no baseline, and gets no advantage."""
    sampled = ~demonstrated_rows(batch)
    graded = sampled if batch.reward_mask is None else sampled & batch.reward_mask
    credited = credit(batch.replace(reward_mask=graded)).replace(reward_mask=batch.reward_mask)
    advantage = credited.advantage
    assert advantage is not None
    return credited.replace(advantage=torch.where(sampled[:, None], advantage, 0.0))


def in_turn(batch: Batch, *, steps: tuple[Callable[[Batch], Batch], ...]) -> Batch:
    """One after the other."""
    for step in steps:
        batch = step(batch)
    return batch


def _varying(batch: Batch) -> Bool[Tensor, " B"]:
    rewards, graded = graded_rewards(batch)
    gaps = centred(rewards, batch.group, graded)
    return group_sum(gaps.abs() * graded, batch.group) > 0


def less_kl(batch: Batch, *, coef: float) -> Batch:
    """R_i - coef · sum_t (logp_t - ref_logp_t): the k1 estimate in the reward, of the collecting policy."""
    collected = batch.old_logp if batch.old_logp is not None else batch.behavior_logp
    if collected is None or batch.ref_logp is None:
        raise ValueError("A KL penalty in the reward needs Batch.ref_logp and Batch.old_logp (or behavior_logp).")
    rewards, _ = graded_rewards(batch)
    gap = torch.where(batch.loss_mask, collected - batch.ref_logp, 0.0).sum(-1)
    return batch.replace(reward=rewards - coef * gap)


def graded_rewards(batch: Batch) -> tuple[Float[Tensor, " B"], Bool[Tensor, " B"]]:
    """Rewards, 0 where there is none, and where there is one.

    Raises:
        ValueError: the batch has no rewards.
    """
    if batch.reward is None:
        raise ValueError("The algorithm makes advantages from rewards: set Batch.reward, or Batch.advantage itself.")
    graded = torch.ones_like(batch.loss_mask[:, 0]) if batch.reward_mask is None else batch.reward_mask
    return torch.where(graded, batch.reward, 0.0), graded


def _group_index(group: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
    return torch.unique(group, return_inverse=True)[1]  # pyright: ignore


def group_sum(values: Float[Tensor, " B"], group: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
    """On every row the sum over its group."""
    index = _group_index(group)
    return torch.zeros_like(values).index_add_(0, index, values)[index]


def centred(rewards: Tensor, group: Tensor, graded: Tensor, among: Tensor | None = None) -> Float[Tensor, " B"]:
    """R - mean(R of the group's graded rows, of those `among` if given; of none, 0), measured from the group's largest
    reward: equal rewards give exactly 0, and not a rounding error that a small std magnifies.
    """
    index = _group_index(group)
    lowest = torch.full_like(rewards, -torch.inf)
    top = lowest.scatter_reduce(0, index, torch.where(graded, rewards, lowest), "amax")[index]
    below = torch.where(graded, rewards - top, 0.0)
    counted = graded if among is None else graded & among
    gaps = below - _group_mean(below, group, counted)
    return torch.where(group_sum(counted.to(rewards.dtype), group) > 0, gaps, 0.0)


def _group_mean(values: Tensor, group: Tensor, graded: Tensor) -> Float[Tensor, " B"]:
    size = group_sum(graded.to(values.dtype), group).clamp(min=1)
    return group_sum(torch.where(graded, values, 0.0), group) / size


def _group_std(gaps: Tensor, group: Tensor, graded: Tensor) -> Float[Tensor, " B"]:
    size = group_sum(graded.to(gaps.dtype), group)
    squares = group_sum(torch.where(graded, gaps**2, 0.0), group)
    return (squares / (size - 1).clamp(min=1)).sqrt()


def spread(batch: Batch, per_row: Float[Tensor, " B"]) -> Batch:
    """The batch with an advantage that is one number for each row."""
    return batch.replace(advantage=per_row[:, None].expand(batch.loss_mask.shape))
