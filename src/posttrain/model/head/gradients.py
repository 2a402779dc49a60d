"""The gradients of what an output layer was given, over chunks of rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from posttrain.model.head.layer import Columns, Head
from posttrain.model.head.rows import Chunk, Rows
from posttrain.model.layers.products import add_product, product
from posttrain.model.layers.workspace import WORKSPACE


class Gradients:
    """Those of hidden states, weight and bias that are wanted; that of the weight in memory that is used again.

    Args:
        hidden: the states.
        head: the layer. cast: the same in the dtype of products.
        asked: of the rows.
        wanted: hidden, weight, bias.
    """

    def __init__(self, hidden: Float[Tensor, "n H"], head: Head, cast: Head, asked: Rows, wanted: Sequence[bool]) -> None:
        self._hidden, self._head, self._cast, self._asked = hidden, head, cast, asked
        self._d_hidden = torch.empty_like(hidden) if wanted[0] else None
        self._weighs, self._d_weight = wanted[1], None if len(hidden) or not wanted[1] else self._room().zero_()
        self._d_bias = torch.zeros_like(head.bias, dtype=asked.wide) if wanted[2] and head.bias is not None else None

    def add(self, chunk: Chunk, grad: Columns) -> None:
        """Those of a chunk, where `grad` is the derivative of the loss by its columns."""
        slope, factor = chunk.slope(grad)
        if self._d_hidden is not None:
            self._d_hidden[chunk.rows] = product(slope, self._cast.weight.T).to(self._d_hidden.dtype) * factor
        if self._weighs:
            states, before = (self._hidden[chunk.rows] * factor).to(self._asked.dtype), self._d_weight
            self._d_weight = self._room() if before is None else before  # after the logits' room: each finds that of its size
            _add_product(self._d_weight, slope, states, before is not None)
        if self._d_bias is not None:
            self._d_bias += (slope.T @ factor.to(slope.dtype))[:, 0]

    def _room(self) -> Tensor:
        return WORKSPACE.empty(*self._head.weight.shape, dtype=self._asked.wide, device=self._hidden.device)

    def made(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """In the dtypes of what they are of."""
        sums = ((self._d_weight, self._head.weight), (self._d_bias, self._head.bias))
        d_weight, d_bias = (None if total is None or of is None else total.to(of.dtype) for total, of in sums)
        return self._d_hidden, d_weight, d_bias


def _add_product(total: Float[Tensor, "V H"], left: Float[Tensor, "c V"], right: Float[Tensor, "c H"], add: bool) -> None:
    """total = left.T @ right, added to what it was or in its place, in the total's precision."""
    if total.dtype == left.dtype:
        add_product(total, left, right, add=add)
    elif total.device.type == "cuda":
        torch.addmm(total, left.T, right, out_dtype=total.dtype, beta=int(add), out=total)
    elif add:
        total += left.T @ right
    else:
        total.copy_(left.T @ right)
