"""Linear decay, by default to zero (arXiv:2310.07831 on why): rate(z) = min + (1 - min) (1 - z), z the share of the steps
after warm-up.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from posttrain.settings.base import Share
from posttrain.train.schedules._schedule import Factor, ScheduleConfig, after_warmup


class Linear(ScheduleConfig):
    """A straight line from the end of warm-up to `min`, which is 0."""

    by_progress: ClassVar[bool] = True
    name: Literal["linear"] = "linear"
    min: Share = 0.0
    """The rate at the end, as a share of learning_rate."""

    def build(self) -> Factor:
        """Warm-up, then the line."""
        return after_warmup(lambda z: self.min + (1 - self.min) * (1 - z))
