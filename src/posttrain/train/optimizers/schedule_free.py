"""AdamW without a schedule, of the package schedulefree: The Road Less Scheduled (arXiv:2405.15682).

With g the gradient at y,

    z <- z - rate · g / (sqrt(v) + epsilon);   x <- (1 - c) x + c z;   y = (1 - beta1) z + beta1 x

v as in Adam, with c the step's part of all weights t^power · (the largest rate until now)^rate_power. Gradients are made at
y; x, the average, is what is evaluated and saved. Weight decay is of y. A rate that warms up is weighed by what it is.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from posttrain.settings.base import NonNegative
from posttrain.train.optimizers._optimizer import OptimizerConfig, Trained

if TYPE_CHECKING:
    from torch.optim import Optimizer


class ScheduleFree(OptimizerConfig):
    """AdamW whose average of weights takes the place of a rate that decays (schedulefree)."""

    package: ClassVar[tuple[str, str] | None] = ("schedulefree", "'posttrain[schedule-free]'")
    reads_betas: ClassVar[bool] = True
    own_average: ClassVar[bool] = True
    name: Literal["schedule_free"] = "schedule_free"
    power: NonNegative = 0.0
    """Of a step's number, in its weight in the average; above 0, later steps count for more."""
    rate_power: NonNegative = 2.0
    """Of the largest learning rate until then, in its weight, so that steps of warm-up count for less."""

    def build(self, trained: Trained) -> Optimizer:
        """The package's.

        Raises:
            ValueError: training.adam_beta1 is 0, by which it divides.
        """
        if not trained.betas[0]:
            raise ValueError("schedule_free: training.adam_beta1 must be above 0: it is the average's part in y")
        package: Any = import_module("schedulefree")
        options: dict[str, Any] = {"r": self.power, "weight_lr_power": self.rate_power}
        return package.AdamWScheduleFree(trained.groups, betas=trained.betas, eps=trained.epsilon, **options)
