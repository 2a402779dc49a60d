"""Coefficients that change over the run: `progress in [0, 1] -> float`."""

from __future__ import annotations

import math
from collections.abc import Callable


def warmup_cosine(progress: float, *, peak: float, valley: float, warmup: float, decay: float) -> float:
    """Rises linearly to `peak` over `warmup`, falls by a cosine to `valley` over `decay`, and stays; both are shares of the
    run (CHORD, arXiv:2508.11408).
    """
    if progress < warmup:
        return peak * progress / warmup
    along = min((progress - warmup) / decay, 1.0) if decay else 1.0
    return valley + (peak - valley) * (1 + math.cos(math.pi * along)) / 2


def rest(progress: float, *, of: Callable[[float], float]) -> float:
    """1 - the other coefficient."""
    return 1 - of(progress)
