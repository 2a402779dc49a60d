"""REX (Chen et al. 2021, arXiv:2107.04197): between a linear decay and a constant rate, by a rational function.

    rate(z) = min + (1 - min) · (1 - z) / (1 - z/2),   z the share of the steps after warm-up

A port that is often used has (1 - z) / (0.1 + 0.9 (1 - z)), which is another curve.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

from posttrain.settings.base import Share
from posttrain.train.schedules._schedule import Factor, ScheduleConfig, after_warmup


class REX(ScheduleConfig):
    """Above a linear decay everywhere, and steepest at the end."""

    by_progress: ClassVar[bool] = True
    name: Literal["rex"] = "rex"
    min: Share = 0.0
    """The rate at the end, as a share of learning_rate."""

    def build(self) -> Factor:
        """Warm-up, then the curve."""
        return after_warmup(partial(rex, least=self.min))


def rex(z: float, *, least: float = 0.0) -> float:
    """The factor at z: 1, 2/3 and 0 at 0, 1/2 and 1, where `least` is 0."""
    return least + (1 - least) * (1 - z) / (1 - z / 2)
