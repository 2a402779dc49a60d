"""A schedule of yours: a function, by path, or brought by an installed package."""

from __future__ import annotations

import math
from importlib.metadata import EntryPoint
from typing import Any, Literal

from posttrain.settings.doors.door import Door, check_call, installed
from posttrain.train.schedules._schedule import Factor, ScheduleConfig

TRIED = (0, 1, 50, 99, 100)
"""Steps of a run of 100, with a warm-up of 10, at which a function is tried."""


class FunctionSchedule(Door, ScheduleConfig):
    """A function of yours, by path: (step, steps, warmup, **options) → factor; needs --allow-code."""

    name: Literal["function"] = "function"

    def build(self) -> Factor:
        """The function, tried on a few steps."""
        function, path, options = self.load(), self.path, self.options
        check_call(path, function, {"step": 0, "steps": 1, "warmup": 0, **options})

        def factor(step: int, steps: int, warmup: int) -> float:
            made: Any = function(step=step, steps=steps, warmup=warmup, **options)
            if isinstance(made, bool) or not isinstance(made, (int, float)) or not 0 <= made < math.inf:
                raise ValueError(f"{path} gave {made!r:.60} at step {step} of {steps}: a number of 0 or more is expected")
            return float(made)

        for step in TRIED:
            try:
                factor(step, 100, 10)
            except ValueError:
                raise
            except Exception as error:  # code of the user's may fail in any way
                raise ValueError(f"{path} raised {type(error).__name__} at step {step}: {error}") from error
        return factor


def installed_schedule(point: EntryPoint, brought: Any) -> type[FunctionSchedule]:
    """The config of a function that an installed package brings; its options stand under `options`."""
    if not callable(brought):
        raise ValueError(f"{point.value} is neither a config class with build nor a function of step, steps and warmup")
    return installed(FunctionSchedule, point.name, point.value)
