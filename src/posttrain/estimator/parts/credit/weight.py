"""From what the data say that a row or a token is worth to advantages: `Batch -> Batch`, in `prepare`."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from posttrain.estimator.batch import MAX_LOG_RATIO, Batch


def of_data(batch: Batch) -> Float[Tensor, "B T"]:
    """What the data say.

    Raises:
        ValueError: they say nothing.
    """
    if batch.weight is None:
        raise ValueError("The algorithm weighs rows by what the data say: set Batch.weight, or Batch.advantage itself.")
    return batch.weight


def as_given(batch: Batch) -> Batch:
    """A = w."""
    return batch.replace(advantage=of_data(batch))


def positive(batch: Batch, *, less: float = 0.0) -> Batch:
    """A = w - `less` where w > 0; what has no more leaves the loss mask, and so N."""
    weight = of_data(batch)
    return batch.replace(advantage=weight - less, loss_mask=batch.loss_mask & (weight > 0))


def exponential(batch: Batch, *, beta: float, cap: float) -> Batch:
    """A = min(exp(w / beta), cap)."""
    exponent = (of_data(batch) / beta).clamp(max=MAX_LOG_RATIO)
    return batch.replace(advantage=exponent.exp().clamp(max=cap))
