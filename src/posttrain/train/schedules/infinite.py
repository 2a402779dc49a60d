"""An infinite schedule (Beyond Cosine Decay, arXiv:2503.02844): one that needs no end, and can be ended from any step.

warm-up;  c + (1 - c)(1 + cos(π t / N)) / 2 for t < N = cooldown;  c = constant;
from step anneal_from, where the rate is r:  r · (min / r)^((t - anneal_from) / (steps - anneal_from))
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from posttrain.settings.base import Count
from posttrain.train.schedules._schedule import Factor, ScheduleConfig

PositiveShare = Annotated[float, Field(gt=0, le=1)]


class Infinite(ScheduleConfig):
    """A cosine down to a constant rate, which does not depend on the run's length; a decay from there when it is told."""

    name: Literal["infinite"] = "infinite"
    cooldown: Count
    """Steps of the cosine, after warm-up."""
    constant: PositiveShare = 0.1
    """The constant rate, as a share of learning_rate."""
    anneal_from: Count | None = None
    """The step from which the rate decays, exponentially, to `min` at the end of the run; it does not if null."""
    min: PositiveShare = 0.01
    """The rate at the end of the decay, as a share of learning_rate."""

    @model_validator(mode="after")
    def _decays(self) -> Infinite:
        if self.min > self.constant:
            raise ValueError(f"min: {self.min:g} is above constant: {self.constant:g}, to which the rate falls before")
        return self

    def build(self) -> Factor:
        """Warm-up, cosine, constant, decay."""

        def until_told(step: int, warmup: int) -> float:
            if step < warmup:
                return step / warmup
            z = min((step - warmup) / self.cooldown, 1.0)
            return self.constant + (1 - self.constant) * (1 + math.cos(math.pi * z)) / 2

        def factor(step: int, steps: int, warmup: int) -> float:
            begins = self.anneal_from
            if begins is None or step <= begins:
                return until_told(step, warmup)
            rate, z = until_told(begins, warmup), min((step - begins) / max(steps - begins, 1), 1.0)
            return rate * (self.min / rate) ** z

        return factor
