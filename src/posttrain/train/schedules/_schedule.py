"""What a schedule is: the share of the learning rate that a step is made with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from posttrain.settings.base import Config

Factor = Callable[[int, int, int], float]
"""(step, steps of the run, steps of warm-up) → a factor of the learning rate. Step 0 is the first."""


class ScheduleConfig(Config, ABC):
    """The options of one schedule."""

    by_progress: ClassVar[bool] = False
    """It reads the share of the run that is done, and no steps; with training.budget that is the share that is spent."""

    name: str
    """Which schedule; the other keys here are its options."""

    @abstractmethod
    def build(self) -> Factor:
        """The schedule that these options describe.

        Raises:
            ValueError: it cannot be had, or is none.
        """

    def build_at(self, learning_rate: float) -> Factor:
        """The same for a schedule of which a part is a learning rate, and no factor of it.

        Raises:
            ValueError: as `build`.
        """
        return self.build()


def after_warmup(shape: Callable[[float], float]) -> Factor:
    """A linear warm-up from 0 to 1, as transformers have it, then `shape` of the share of the steps after it."""

    def factor(step: int, steps: int, warmup: int) -> float:
        if step < warmup:
            return step / warmup
        return shape(min((step - warmup) / max(steps - warmup, 1), 1.0))

    return factor
