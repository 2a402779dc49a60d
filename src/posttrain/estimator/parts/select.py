"""Which tokens of the loss mask a term covers."""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor

from posttrain.estimator.batch import Batch, Origin


def everything(batch: Batch) -> Bool[Tensor, "B T"]:
    """Every token that carries loss."""
    return batch.loss_mask


def rollouts(batch: Batch) -> Bool[Tensor, "B T"]:
    """What the policy sampled."""
    return batch.loss_mask & (batch.origin == Origin.ROLLOUT)


def demonstrations(batch: Batch) -> Bool[Tensor, "B T"]:
    """What was demonstrated: whole rows, or prefixes."""
    return batch.loss_mask & (batch.origin == Origin.DEMO)


def marked_demonstrations(batch: Batch) -> Bool[Tensor, "B T"]:
    """Those that `prepare` has marked."""
    assert batch.mark is not None, "prepare makes it"
    return demonstrations(batch) & batch.mark


def unmarked_demonstrations(batch: Batch) -> Bool[Tensor, "B T"]:
    """Those that it has not."""
    assert batch.mark is not None, "prepare makes it"
    return demonstrations(batch) & ~batch.mark


def taught(batch: Batch) -> Bool[Tensor, "B T"]:
    """Rows of which the teacher is shown another right answer."""
    assert batch.taught is not None  # Needs.shows_right
    return batch.loss_mask & batch.taught[:, None]


def chosen(batch: Batch) -> Bool[Tensor, "B T"]:
    """The chosen completion of each pair."""
    assert batch.chosen is not None  # Needs.preference
    return batch.loss_mask & batch.chosen[:, None]


def third(batch: Batch) -> Bool[Tensor, "B T"]:
    """Loss tokens of the third completion of each unit."""
    return batch.loss_mask & _places(batch, 2)


def first_two(batch: Batch) -> Bool[Tensor, "B T"]:
    """Loss tokens of the first two completions of each unit: of pairs that have something beside them."""
    return batch.loss_mask & (_places(batch, 0) | _places(batch, 1))


def _places(batch: Batch, number: int) -> Bool[Tensor, "B 1"]:
    rows = len(batch.loss_mask)
    return (torch.arange(rows, device=batch.loss_mask.device) % batch.unit == number)[:, None]


def wanted(batch: Batch) -> Bool[Tensor, "B T"]:
    """What the data give a positive advantage."""
    assert batch.advantage is not None, "prepare makes it"
    return batch.loss_mask & (batch.advantage > 0)


def unwanted(batch: Batch) -> Bool[Tensor, "B T"]:
    """What the data give a negative one."""
    assert batch.advantage is not None, "prepare makes it"
    return batch.loss_mask & (batch.advantage < 0)


def demonstrated_rows(batch: Batch) -> Bool[Tensor, " B"]:
    """Rows in which nothing was sampled. One without any loss token is a demonstration if its first token is."""
    carries = batch.loss_mask.any(-1)
    return torch.where(carries, ~rollouts(batch).any(-1), batch.origin[:, 0] == Origin.DEMO)
