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


@dataclass(frozen=True, slots=True)
class Average:
    """`count(select)` gives a batch's share of N; `row_scale(select)` gives s_i, [B, 1]."""

    name: str
    count: Callable[[Bool[Tensor, "B T"]], Tensor]
    row_scale: Callable[[Bool[Tensor, "B T"]], Tensor]

    def __repr__(self) -> str:
        return self.name


def _tokens(select: Bool[Tensor, "B T"]) -> Float[Tensor, ""]:
    return select.sum().double()


def _rows(select: Bool[Tensor, "B T"], *, times: float = 1.0) -> Float[Tensor, ""]:
    return select.any(-1).sum().double() * times


def _pairs(select: Bool[Tensor, "B T"]) -> Float[Tensor, ""]:
    return select.any(-1).view(-1, 2).any(-1).sum().double()


def _one(select: Bool[Tensor, "B T"]) -> Float[Tensor, "B 1"]:
    return torch.ones(len(select), 1, dtype=torch.float64, device=select.device)


def _inverse_length(select: Bool[Tensor, "B T"]) -> Float[Tensor, "B 1"]:
    return 1 / select.sum(-1, keepdim=True).clamp(min=1).double()


token = Average("token", _tokens, _one)
"""s = 1, N = selected tokens."""

sequence_mean = Average("sequence_mean", _rows, _inverse_length)
"""s = 1/|y_i|, N = rows with a selected token."""

sequence_sum = Average("sequence_sum", _rows, _one)
"""s = 1, N = rows with a selected token."""

pair = Average("pair", _pairs, _one)
"""s = 1, N = preference pairs."""


def constant(max_tokens: int) -> Average:
    """s = 1, N = rows with a selected token × max_tokens: no length enters (Dr. GRPO, arXiv:2503.20783)."""
    return Average(f"constant({max_tokens})", partial(_rows, times=float(max_tokens)), _one)
