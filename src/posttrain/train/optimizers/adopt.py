"""ADOPT (arXiv:2411.02853): Adam whose gradients are divided by what was known before them, which converges for any beta2.

    first step: v = g², and nothing is changed;  second step: m = g / max(sqrt(v), 1);  later ones:
    m <- beta1 m + (1 - beta1) g / max(sqrt(v), floor_t),   floor_t = max(epsilon, floor^(t - 2)) at step t
    each but the first, then: w <- w - lr m,   v <- beta2 v + (1 - beta2) g²

The floor is the authors' (github.com/iShohei220/adopt), whose first version clipped by t^(1/4). Weight decay is decoupled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from posttrain.settings.base import Positive
from posttrain.train.optimizers._optimizer import OptimizerConfig, Trained

if TYPE_CHECKING:
    from torch.optim import Optimizer

Beta = Annotated[float, Field(ge=0, lt=1)]


class ADOPT(OptimizerConfig):
    """Adam that converges for any beta2; its first step changes nothing."""

    name: Literal["adopt"] = "adopt"
    beta1: Beta = 0.9
    """Of the scaled gradients."""
    beta2: Beta = 0.9999
    """Of the squares."""
    epsilon: Positive = 1e-6
    """What a gradient is divided by is no less."""
    floor: Beta = 0.9
    """Nor is it less than this to the power of the changes that were made before, of which the first so has 1."""

    def build(self, trained: Trained) -> Optimizer:
        """Of this package: no library that it stands on has it."""
        from posttrain.train.optimizers._adopt import Adopt

        return Adopt(trained.groups, beta1=self.beta1, beta2=self.beta2, epsilon=self.epsilon, floor=self.floor)
