"""Memory of a CPU that is used again from call to call.

A large block that malloc gives is new to the process each time, and the first touch of each of its pages is a fault: with a
vocabulary of 152 k, 76,000 of them in a call. Other devices have allocators that keep their memory.
"""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor


@dataclass(slots=True, eq=False)
class _Block:
    memory: UInt8[np.ndarray, " bytes"]
    lent: weakref.ref[np.ndarray] | None = None

    @property
    def is_free(self) -> bool:
        return self.lent is None or self.lent() is None

    def lend(self, size: int) -> Tensor:
        part = self.memory[:size]  # an object of its own, which all tensors of this memory hold
        self.lent = weakref.ref(part)
        return torch.from_numpy(part)


class Workspace(threading.local):
    """Blocks of memory, of each thread its own. One is lent again when no tensor is left of what was made in it, so that what
    is made in it may be kept, handed to autograd, and become a parameter's gradient.

    Where no free block is large enough, all free ones are given up for a new one: no more is kept than was in use at once.
    """

    def __init__(self) -> None:
        self._blocks: list[_Block] = []

    def empty(self, *shape: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """A tensor that is not filled; on a CPU in memory of this workspace."""
        size = prod(shape) * dtype.itemsize
        if device.type != "cpu" or not size:
            return torch.empty(shape, dtype=dtype, device=device)
        large = [block for block in self._blocks if block.is_free and block.memory.nbytes >= size]
        block = min(large, key=lambda block: block.memory.nbytes, default=None)
        if block is None:
            self.clear()
            block = _Block(torch.empty(size, dtype=torch.uint8).numpy())
            self._blocks.append(block)
        return block.lend(size).view(dtype).view(shape)

    def clear(self) -> None:
        """Gives up the blocks that are free."""
        self._blocks = [block for block in self._blocks if not block.is_free]


WORKSPACE = Workspace()
"""Of the output layer and its products."""
