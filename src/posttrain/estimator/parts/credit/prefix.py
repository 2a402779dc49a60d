"""Rollouts that continue the head of a demonstration: what is asked for, and what their tokens are credited with."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from posttrain.estimator.batch import Batch
from posttrain.estimator.parts.credit.baseline import centred, graded_rewards
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


def most_uncertain(batch: Batch, *, keep: float) -> Batch:
    """Advantage 0 on all demonstrated tokens but the `keep` share of highest collected entropy, over the whole collection.

    Of n tokens n - int((1 - keep) n) are left; of equal entropies the later ones.

    Raises:
        ValueError: the batch lacks the collecting policy's entropy.
    """
    if batch.entropy is None or batch.advantage is None:
        raise ValueError("Tokens are chosen by the collecting policy's entropy: set Batch.entropy.")
    prefix = demonstrations(batch)
    return batch.replace(advantage=torch.where(_lowest(batch.entropy, prefix, 1 - keep), 0.0, batch.advantage))


def _lowest(values: Tensor, among: Bool[Tensor, "B T"], share: float) -> Bool[Tensor, "B T"]:
    places = among.flatten().nonzero()[:, 0]
    order = values.flatten()[places].argsort(stable=True)
    chosen = torch.zeros_like(among).flatten()
    chosen[places[order[: int(share * len(places))]]] = True
    return chosen.view(among.shape)
