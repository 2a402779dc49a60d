"""Re-warming of a model whose rate has decayed before (arXiv:2308.04014): a linear rise from where it ended, then a cosine.

rate(s) = start + (1 - start) s in warm-up, s its share that is done
rate(z) = min + (1 - min) (1 + cos(π z)) / 2 after it, z the share of the steps after warm-up
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from posttrain.settings.base import Share
from posttrain.train.schedules._schedule import Factor, ScheduleConfig, after_warmup


class Rewarm(ScheduleConfig):
    """From the rate at which an earlier run ended up to learning_rate, then down along a cosine."""

    by_progress: ClassVar[bool] = True
    name: Literal["rewarm"] = "rewarm"
    start: Share = 0.1
    """The rate of the first step, as a share of learning_rate: that at which the earlier run ended."""
    min: Share = 0.1
    """The rate at the end, as a share of learning_rate."""

    def build(self) -> Factor:
        """Warm-up from `start`, then the cosine."""
        usual = after_warmup(lambda z: self.min + (1 - self.min) * (1 + math.cos(math.pi * z)) / 2)

        def factor(step: int, steps: int, warmup: int) -> float:
            risen = usual(step, steps, warmup)
            return self.start + (1 - self.start) * risen if step < warmup else risen

        return factor
