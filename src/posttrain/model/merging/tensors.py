"""The tensors of one name in several models, block by block, so that no model is in memory whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import prod
from typing import Any

import torch
from torch import Tensor

BLOCK = 2**18
"""Elements of a tensor, and rows that are larger whole, that are read at a time."""


@dataclass(frozen=True, slots=True)
class Same:
    """The tensors of one name, one of each model.

    slices: safetensors' own, of one shape.
    """

    name: str
    shape: tuple[int, ...]
    slices: Sequence[Any]

    @property
    def elements(self) -> int:
        """Of each of them."""
        return prod(self.shape)

    def blocks(self) -> Iterator[list[Tensor]]:
        """All of them in order, a block of each at a time: flat, in float64."""
        if not self.shape:
            yield [one[...].double().reshape(-1) for one in self.slices]
            return
        rows = max(1, BLOCK // max(prod(self.shape[1:]), 1))
        for start in range(0, self.shape[0], rows):
            yield [one[start : start + rows].double().reshape(-1) for one in self.slices]

    def vectors(self) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """A block of the first, the base, and those of the task vectors of the others, which are θ - θ_base."""
        for base, *others in self.blocks():
            yield base, [other - base for other in others]

    def seed(self, seed: int, block: int) -> int:
        """For what is drawn by chance in a block: another one in each, whatever other tensors there are."""
        return int.from_bytes(sha256(f"{seed} {block} {self.name}".encode()).digest()[:8], "little")


def weights_of(weights: Sequence[float]) -> Tensor:
    """As peft's formulas take them."""
    return torch.tensor(weights, dtype=torch.float64)
