"""Rollouts that continue the head of a demonstration: what is asked for, and what their tokens are credited with."""

from __future__ import annotations

from typing import Literal

import torch

from posttrain.estimator.batch import Batch
from posttrain.estimator.parts.credit.grouping import centred, graded_rewards
from posttrain.estimator.parts.select import demonstrations, rollouts

Baseline = Literal["plain", "group", "uncentred"]


def prefix_credit(batch: Batch, *, baseline: Baseline) -> Batch:
    """A = R - b on every token, where `baseline` says what b is.

    plain       b is the mean of the group's rows without a prefix, for all rows
    group       b is the mean of the whole group, for all rows
    uncentred   as plain, but b = 0 for the continuation: the authors' code
    """
    rewards, graded = graded_rewards(batch)
    continues = demonstrations(batch).any(-1)
    among = None if baseline == "group" else ~continues
    advantage = centred(rewards, batch.group, graded, among)[:, None].expand(batch.loss_mask.shape)
    if baseline == "uncentred":
        continuation = rollouts(batch) & continues[:, None]
        advantage = torch.where(continuation, rewards[:, None], advantage)
    return batch.replace(advantage=advantage)


def without_loss(batch: Batch) -> Batch:
    """What was demonstrated leaves the loss mask, and so every N."""
    return batch.replace(loss_mask=rollouts(batch))
