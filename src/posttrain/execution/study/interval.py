"""A mean over seeds with its 95 % interval, and how tables show it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over seeds and half the width of its 95 % t-interval."""

    mean: float
    half: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        """Of values, one for each seed; of one value the width is not known."""
        mean = float(np.mean(values))
        if len(values) < 2:
            return cls(mean, math.nan)
        return cls(mean, float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)))


def cell(values: Sequence[float | None]) -> str:
    """Of values, one for each seed; those that are not known are left out."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    interval = Interval.of(known)
    digits = 0 if abs(interval.mean) >= 100 else 3 if abs(interval.mean) < 10 else 1
    spread = "" if math.isnan(interval.half) else f" ± {interval.half:.{digits}f}"
    return f"{interval.mean:,.{digits}f}{spread}"
