"""Whether the kernel for stretches of any length gives on a device what blocks give, in outputs and gradients."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from posttrain.model.layout.attention import Layout
from posttrain.model.layout.blocks import Blocks
from posttrain.model.layout.varlen import Varlen

TRUNKS, ANSWERS = (1, 40, 300, 3, 150, 260), ((3, 1), (3, 30), (4, 129), (4, 64), (5, 200), (5, 1))
"""The row that it is tried on: documents and prompts of less than a tile, of several, and none of whole ones."""
BOUND = 0.02
"""Of the difference's norm to the whole's: five times what bfloat16's rounding makes of it."""


class Heads(NamedTuple):
    """Of an attention layer: how many of queries and of keys, the sizes of a key and of a value, and the scale."""

    queries: int
    keys: int
    size: int
    value_size: int
    scale: float


@dataclass(frozen=True, slots=True)
class Seen:
    """A layout that notes the heads of the layers that ask it."""

    within: Layout
    heads: set[Heads] = field(default_factory=set[Heads])

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """See `Layout`."""
        return self.within.tensors

    def with_tensors(self, *tensors: Tensor) -> Seen:
        """See `Layout`."""
        return Seen(self.within.with_tensors(*tensors), self.heads)

    def attend(
        self,
        query: Float[Tensor, "1 h S d"],
        key: Float[Tensor, "1 k S d"],
        value: Float[Tensor, "1 k S e"],
        *,
        scale: float | None = None,
        dropout: float = 0.0,
    ) -> Float[Tensor, "1 S h e"]:
        """See `Layout`."""
        self.heads.add(Heads(query.shape[1], key.shape[1], key.shape[3], value.shape[3], scale or key.shape[3] ** -0.5))
        return self.within.attend(query, key, value, scale=scale, dropout=dropout)


def difference(heads: Heads, device: torch.device, dtype: torch.dtype) -> float:
    """Between the kernel in this dtype and blocks in float32, as a share of their norm: of outputs, or gradients if larger.

    Raises:
        RuntimeError: the kernel is not there, or does not take such heads.
    """
    draw, length = torch.Generator().manual_seed(0), sum(TRUNKS) + sum(length for _, length in ANSWERS)
    shapes = ((heads.queries, heads.size), (heads.keys, heads.size), (heads.keys, heads.value_size))
    drawn = [torch.randn(1, length, n, size, generator=draw) for n, size in (*shapes, (heads.queries, heads.value_size))]
    *states, upstream = (one.to(device, dtype) for one in drawn)

    def made(layout: Layout, dtype: torch.dtype) -> list[Tensor]:
        placed = layout.with_tensors(*(one.to(device) for one in layout.tensors))
        leaves = [one.to(dtype).transpose(1, 2).requires_grad_() for one in states]
        out = placed.attend(*leaves, scale=heads.scale)
        return [out.detach(), *torch.autograd.grad(out, leaves, upstream.to(dtype))]

    with torch.autocast(device.type, enabled=False):
        pairs = zip(made(Varlen.of(TRUNKS, ANSWERS), dtype), made(Blocks.of(TRUNKS, ANSWERS), torch.float32), strict=True)
        return float(torch.stack([(ours.float() - plain).norm() / plain.norm() for ours, plain in pairs]).max())
