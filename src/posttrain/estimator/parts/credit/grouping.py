"""What credits are made of: graded rewards, and sums, means and deviations over the rows of a question.

Rows that were not graded are in none of them.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from posttrain.estimator.batch import Batch


def graded_rewards(batch: Batch) -> tuple[Float[Tensor, " B"], Bool[Tensor, " B"]]:
    """Rewards, 0 where there is none, and where there is one.

    Raises:
        ValueError: the batch has no rewards.
    """
    if batch.reward is None:
        raise ValueError("The algorithm makes advantages from rewards: set Batch.reward, or Batch.advantage itself.")
    graded = torch.ones_like(batch.loss_mask[:, 0]) if batch.reward_mask is None else batch.reward_mask
    return torch.where(graded, batch.reward, 0.0), graded


def index_of(group: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
    """The groups numbered from 0 on, in the order of their numbers."""
    return torch.unique(group, return_inverse=True)[1]  # pyright: ignore


def group_sum(values: Float[Tensor, " B"], group: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
    """On every row the sum over its group."""
    index = index_of(group)
    return torch.zeros_like(values).index_add_(0, index, values)[index]


def centred(rewards: Tensor, group: Tensor, graded: Tensor, among: Tensor | None = None) -> Float[Tensor, " B"]:
    """R - mean(R of the group's graded rows, of those `among` if given; of none, 0), measured from the group's largest
    reward: equal rewards give exactly 0, and not a rounding error that a small std magnifies.
    """
    top = group_max(rewards, group, graded)
    below = torch.where(graded, rewards - top, 0.0)
    counted = graded if among is None else graded & among
    gaps = below - mean_of(below, group, counted)
    return torch.where(group_sum(counted.to(rewards.dtype), group) > 0, gaps, 0.0)


def mean_of(values: Tensor, group: Tensor, graded: Tensor) -> Float[Tensor, " B"]:
    """On every row the mean over its group's graded rows; 0 where there is none."""
    size = group_sum(graded.to(values.dtype), group).clamp(min=1)
    return group_sum(torch.where(graded, values, 0.0), group) / size


def group_std(gaps: Tensor, group: Tensor, graded: Tensor) -> Float[Tensor, " B"]:
    """On every row the unbiased standard deviation of its group's graded rows, by their gaps to the mean; 0 of one row."""
    size = group_sum(graded.to(gaps.dtype), group)
    squares = group_sum(torch.where(graded, gaps**2, 0.0), group)
    return (squares / (size - 1).clamp(min=1)).sqrt()


def spread(batch: Batch, per_row: Float[Tensor, " B"]) -> Batch:
    """The batch with an advantage that is one number for each row."""
    return batch.replace(advantage=per_row[:, None].expand(batch.loss_mask.shape))


def group_max(values: Float[Tensor, " B"], group: Int[Tensor, " B"], among: Bool[Tensor, " B"]) -> Float[Tensor, " B"]:
    """On every row the largest of its group's values, of the rows `among`; -inf where there is none."""
    index, lowest = index_of(group), torch.full_like(values, -torch.inf)
    return lowest.scatter_reduce(0, index, torch.where(among, values, lowest), "amax")[index]


def varying(batch: Batch) -> Bool[Tensor, " B"]:
    """Rows of groups whose graded rewards are not all equal."""
    rewards, graded = graded_rewards(batch)
    gaps = centred(rewards, batch.group, graded)
    return group_sum(gaps.abs() * graded, batch.group) > 0
