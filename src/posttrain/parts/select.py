"""Which tokens of the loss mask a term covers."""

from __future__ import annotations

from jaxtyping import Bool
from torch import Tensor

from posttrain.types import Batch


def everything(batch: Batch) -> Bool[Tensor, "B T"]:
    """Every token that carries loss."""
    return batch.loss_mask
