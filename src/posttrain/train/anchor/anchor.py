"""What makes `Batch.anchor`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from posttrain.train.collect.collection import Collection

Gains = Callable[[Collection], Float[Tensor, " n"]]
"""log pi - log ref of all tokens of a collection, under the policy as it is."""


class Anchor(Protocol):
    """One number for a whole step, made before its first micro-batch, over all ranks: no cut of the step enters."""

    def of(self, collection: Collection, gains: Gains, *, follow: bool) -> Float[Tensor, " B"]:
        """The number, for each row. Of rows that are only looked at, nothing is remembered: it does not `follow` them."""
        ...

    def state(self) -> dict[str, float]:
        """What a run goes on from."""
        ...

    def restore(self, state: Mapping[str, float]) -> None:
        """As it was."""
        ...
