"""What a term averages over: the scale s_i of a row and the count N of the whole optimizer step. The mask of both is one.

The theory hides them, and most bugs of the field live here: N is summed over all micro-batches and ranks of the step
and divides once. It is never a mean of means.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posttrain.estimator.batch import Batch


@dataclass(frozen=True, slots=True)
class Average:
    """`count(select)` gives a batch's share of N; `row_scale(select)` gives s_i, [B, 1]. Where it is `weighted`, `count` is
    given the advantages' sizes on the selected tokens.
    """

    name: str
    count: Callable[[Tensor], Tensor]
    row_scale: Callable[[Bool[Tensor, "B T"]], Tensor]
    weighted: bool = False

    def share(self, batch: Batch, select: Bool[Tensor, "B T"]) -> Float[Tensor, ""]:
        """A batch's share of N."""
        if not self.weighted:
            return self.count(select)
        if batch.advantage is None:
            raise ValueError("N is the sum of weights: set Batch.weight, or Batch.advantage itself.")
        return self.count(torch.where(select, batch.advantage.detach().abs(), 0.0))

    def __repr__(self) -> str:
        return self.name


def divisor(count: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """What a sum is divided by: N, or 1 where nothing is counted."""
    return torch.where(count > 0, count, 1.0)


def _tokens(select: Bool[Tensor, "B T"]) -> Float[Tensor, ""]:
    return select.sum().double()


def _total(sizes: Float[Tensor, "B T"]) -> Float[Tensor, ""]:
    return sizes.double().sum()


def _rows(select: Bool[Tensor, "B T"], *, times: float = 1.0) -> Float[Tensor, ""]:
    return select.any(-1).sum().double() * times


def _units(select: Bool[Tensor, "B T"], *, rows: int) -> Float[Tensor, ""]:
    return select.any(-1).view(-1, rows).any(-1).sum().double()


def _one(select: Bool[Tensor, "B T"]) -> Float[Tensor, "B 1"]:
    return torch.ones(len(select), 1, dtype=torch.float64, device=select.device)


def _inverse_length(select: Bool[Tensor, "B T"]) -> Float[Tensor, "B 1"]:
    return 1 / select.sum(-1, keepdim=True).clamp(min=1).double()


token = Average("token", _tokens, _one)
"""s = 1, N = selected tokens."""

weighted = Average("weighted", _total, _one, weighted=True)
"""s = 1, N = the sum of the advantages' sizes over the selected tokens: a weighted mean."""

sequence_mean = Average("sequence_mean", _rows, _inverse_length)
"""s = 1/|y_i|, N = rows with a selected token."""

sequence_sum = Average("sequence_sum", _rows, _one)
"""s = 1, N = rows with a selected token."""

pair = Average("pair", partial(_units, rows=2), _one)
"""s = 1, N = preference pairs."""


def units(rows: int) -> Average:
    """s = 1, N = units of so many rows, of which one has a selected token; pairs, if they are of two."""
    return pair if rows == 2 else Average(f"unit({rows})", partial(_units, rows=rows), _one)


def constant(max_tokens: int) -> Average:
    """s = 1, N = rows with a selected token × max_tokens: no length enters (Dr. GRPO, arXiv:2503.20783)."""
    return Average(f"constant({max_tokens})", partial(_rows, times=float(max_tokens)), _one)
