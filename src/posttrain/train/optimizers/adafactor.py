"""Adafactor (arXiv:1804.04235), torch's: second moments of a matrix by its rows and columns alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from posttrain.settings.base import Positive
from posttrain.train.optimizers._optimizer import OptimizerConfig, Trained

if TYPE_CHECKING:
    from torch.optim import Optimizer


class Adafactor(OptimizerConfig):
    """Second moments by rows and columns, which take little memory; steps relative to the size of the weights."""

    whole_matrices: ClassVar[bool] = True
    name: Literal["adafactor"] = "adafactor"
    decay: Annotated[float, Field(le=0)] = -0.8
    """beta2 of step t is 1 - t^decay."""
    clip: Positive = 1.0
    """The root mean square of a weight's change, before the learning rate, is at most this."""

    def state(self, number: int) -> float:
        """See `OptimizerConfig`: next to nothing of a matrix."""
        return 0.0

    def build(self, trained: Trained) -> Optimizer:
        """torch's; the learning rate at step t is min(lr, 1 / sqrt(t)) times the root mean square of the weight."""
        from torch import optim

        return optim.Adafactor(trained.groups, beta2_decay=self.decay, d=self.clip)
