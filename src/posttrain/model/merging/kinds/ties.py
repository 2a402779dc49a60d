"""TIES (arXiv:2306.01708): each task vector is trimmed to its largest entries; the sign of an entry is that of their sum; the
mean of those that agree with it is added to the base.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from posttrain.model.merging.kinds._merge import Density, Formula, Vectors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from posttrain.model.merging.tensors import Same


class Ties(Vectors):
    """Trimmed task vectors, of which those that agree in sign are averaged."""

    method: Literal["ties"] = "ties"
    density: Density = 0.2
    """The share of each tensor's entries that is kept, the largest by magnitude."""

    def build(self) -> Formula:
        """Signs and means are peft's; it trims as peft does, and holds one task vector of a tensor at a time for it."""
        from peft.utils.merge_utils import calculate_majority_sign_mask, disjoint_merge

        from posttrain.model.merging.tensors import weights_of

        weights = weights_of(self.scales)

        def agreed(same: Same) -> Iterator[Tensor]:
            import torch

            bounds = [_Bound(same, number, self.density) for number in range(len(self.models))]
            for base, vectors in same.vectors():
                kept = torch.stack([bound.trimmed(vector) for bound, vector in zip(bounds, vectors, strict=True)])
                yield base + disjoint_merge(kept * weights[:, None], calculate_majority_sign_mask(kept))

        return agreed


class _Bound:
    """The magnitude from which on the entries of a task vector are kept, and how many that have just this are."""

    def __init__(self, same: Same, number: int, density: float) -> None:
        import numpy as np
        import torch

        kept = int(density * same.elements)
        sizes = torch.empty(same.elements, dtype=torch.float32).numpy()
        start = 0
        for _, vectors in same.vectors():
            block = vectors[number].abs().float().numpy()
            sizes[start : start + len(block)] = block
            start += len(block)
        self._bound, self._left = float("inf"), 0
        if kept:
            sizes.partition(len(sizes) - kept)
            self._bound = float(sizes[len(sizes) - kept])
            self._left = kept - int(np.count_nonzero(sizes > self._bound))

    def trimmed(self, block: Tensor) -> Tensor:
        """The next block, 0 where it is not kept."""
        sizes = block.abs().float()
        equal = (sizes == self._bound) & ((sizes == self._bound).cumsum(0) <= self._left)
        self._left -= int(equal.sum())
        return block * ((sizes > self._bound) | equal)
