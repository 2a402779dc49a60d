"""Stochastic gradient descent, torch's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from posttrain.train.optimizers._optimizer import OptimizerConfig, Trained

if TYPE_CHECKING:
    from torch.optim import Optimizer


class SGD(OptimizerConfig):
    """Stochastic gradient descent, with momentum if it is told; keeps nothing without."""

    name: Literal["sgd"] = "sgd"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The share of the last change that is made again."""
    nesterov: bool = False
    """The gradient counts once more in the change, after the momentum."""

    @property
    def remembers(self) -> bool:
        """The last change, with momentum."""
        return self.momentum > 0

    def state(self, number: int) -> float:
        """See `OptimizerConfig`: the last change, with momentum."""
        return float(number * self.remembers)

    @model_validator(mode="after")
    def _has_momentum(self) -> SGD:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: needs momentum above 0")
        return self

    def build(self, trained: Trained) -> Optimizer:
        """torch's."""
        from torch import optim

        return optim.SGD(trained.groups, momentum=self.momentum, nesterov=self.nesterov)
