"""What is asked of rows, and what a chunk of them gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from posttrain.model.head.layer import Columns, Named, ReferenceStates, named

CHUNK_ROWS = {"cpu": 256, "cuda": 1024}
"""Rows of float32 logits held at a time. On a CPU fewer cost a tenth and more, more gain 3 %; 160 MB with a vocabulary of
152 k. On GPUs enough for full matrix throughput; 620 MB with such a vocabulary."""
NARROW_CHUNK_ROWS = {"cpu": 256, "cuda": 4096}
"""The same where the logits that are held are of 16 bits: 1.2 GB on a GPU. The gradient of the weight, 4 V H bytes, is read
and written once for each chunk."""


def rows_at_a_time(device: str, *, narrow: bool = False) -> int:
    """Rows of a chunk on such a device."""
    rows = NARROW_CHUNK_ROWS if narrow else CHUNK_ROWS
    return rows.get(device, rows["cuda"])


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """What is asked: `dtype` is that of matrix products, `scale` is one by the temperature. `collision` has no slope."""

    targets: Int[Tensor, " n"]
    scale: float
    entropy: bool
    reference: ReferenceStates | None
    dtype: torch.dtype
    collision: bool = False

    @property
    def wide(self) -> torch.dtype:
        """Of scores: float32, or float64 where products are."""
        return torch.promote_types(torch.float32, self.dtype)

    @property
    def width(self) -> int:
        """Scores of a row."""
        return 1 + self.entropy + self.collision + (self.reference is not None)

    def named(self, columns: Columns) -> Named:
        """Scores by name, or what is given by the columns of scores."""
        return named(columns, entropy=self.entropy, collision=self.collision)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows and their scores. It is gone when the next one is made, for they share their memory.

    slope: from the derivative of the loss by the columns to that by the logits: a matrix in the dtype of products, and what
    its rows are to be multiplied by. To be called once, for it may be made of the logits' memory.
    """

    rows: slice
    columns: Columns
    slope: Callable[[Columns], tuple[Float[Tensor, "c V"], Float[Tensor, "c 1"]]]
