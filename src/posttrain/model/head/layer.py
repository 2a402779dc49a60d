"""An output layer, and what is known of each token that it scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from posttrain.estimator.divergence import Divergence

PLAIN = Divergence()
Columns = Float[Tensor, "n k"]
"""Of each scored token: log p(target); then entropy, the log of the sum of the squared probabilities, and the divergence from
another model where asked for."""


class Named(NamedTuple):
    """The columns by name, [n, 1] each; None where they were not asked for."""

    logp: Float[Tensor, "n 1"]
    entropy: Float[Tensor, "n 1"] | None
    collision: Float[Tensor, "n 1"] | None
    divergence: Float[Tensor, "n 1"] | None


def named(columns: Columns, *, entropy: bool, collision: bool = False) -> Named:
    """The columns of a table in which these were asked for, or were not; a last one that is left is the divergence."""
    logp, *others = columns.split(1, 1)
    first, second = (others.pop(0) if asked else None for asked in (entropy, collision))
    return Named(logp, first, second, others.pop(0) if others else None)


@dataclass(frozen=True, slots=True)
class Head:
    """An output layer: logits = hidden @ weight.T + bias."""

    weight: Float[Tensor, "V H"]
    bias: Float[Tensor, " V"] | None = None

    def to(self, dtype: torch.dtype) -> Head:
        """The same in another dtype."""
        return Head(self.weight.to(dtype), None if self.bias is None else self.bias.to(dtype))

    def finish(self, product: Float[Tensor, "c V"], scale: float) -> Float[Tensor, "c V"]:
        """From a product with the weight to logits by the temperature, in place."""
        if self.bias is not None:
            product += self.bias
        if scale != 1:
            product *= scale
        return product


@dataclass(frozen=True, slots=True)
class ReferenceStates:
    """Another model's hidden states at the same positions, its head, and how its distributions are compared with."""

    hidden: Float[Tensor, "n H2"]
    head: Head
    divergence: Divergence = PLAIN
