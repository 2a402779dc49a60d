"""Warm-up, constant, decay (WSD, arXiv:2404.06395); its decay as 1 - sqrt is of Hägele et al. (arXiv:2405.18392).

rate(z) = 1 until z = 1 - decay,   then min + (1 - min) · shape(d),   d = (z - (1 - decay)) / decay
shape(d) = 1 - sqrt(d)  |  1 - d  |  (1 + cos(π d)) / 2,   z the share of the steps after warm-up
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from posttrain.settings.base import Share
from posttrain.train.schedules._schedule import Factor, ScheduleConfig, after_warmup

SHAPES: dict[str, Callable[[float], float]] = {
    "sqrt": lambda d: 1 - math.sqrt(d),
    "linear": lambda d: 1 - d,
    "cosine": lambda d: (1 + math.cos(math.pi * d)) / 2,
}


class WSD(ScheduleConfig):
    """Constant after warm-up, and a decay in the last part, as 1 - sqrt."""

    by_progress: ClassVar[bool] = True
    name: Literal["wsd"] = "wsd"
    decay: Annotated[float, Field(gt=0, le=1)] = 0.2
    """The share of the steps after warm-up in which the rate decays, the last ones."""
    shape: Literal["sqrt", "linear", "cosine"] = "sqrt"
    """Of the decay; sqrt is 1 - sqrt, which falls fastest at its beginning."""
    min: Share = 0.0
    """The rate at the end, as a share of learning_rate."""

    def build(self) -> Factor:
        """Warm-up, the constant part, the decay."""
        shape, begins = SHAPES[self.shape], 1 - self.decay

        def rate(z: float) -> float:
            return 1.0 if z <= begins else self.min + (1 - self.min) * shape((z - begins) / self.decay)

        return after_warmup(rate)
