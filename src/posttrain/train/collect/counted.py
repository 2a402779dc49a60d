"""What is counted of the rows of an optimizer step, before any is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from posttrain.estimator.algorithm import Algorithm
from posttrain.estimator.parts.select import demonstrations, rollouts
from posttrain.train.collect.collection import Collection

ROWS = 256  # at a time, padded to the longest of them


@dataclass(slots=True)
class Counted:
    """Of some units: which have a row with signal; the algorithm's counts; and the tokens with loss of either origin."""

    carries: list[bool]
    counts: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    sampled: int = 0
    demonstrated: int = 0

    @classmethod
    def of(cls, algorithm: Algorithm, collection: Collection, units: Sequence[int]) -> Counted:
        """A part of the rows at a time, those of like length together: no part is as wide as the collection."""
        rows, counted = [collection.units[unit] for unit in units], cls([False] * len(units))
        for part, batch in collection.flat.parts(rows, ROWS):
            for name, count in algorithm.counts(batch).items():
                counted.counts[name] = count + counted.counts.get(name, 0.0)
            counted.sampled += int(rollouts(batch).sum())
            counted.demonstrated += int(demonstrations(batch).sum())
            ends = np.cumsum([len(rows[place]) for place in part])
            for place, signal in zip(part, np.split(algorithm.has_signal(batch).numpy(), ends[:-1]), strict=True):
                counted.carries[place] = bool(signal.any())
        return counted
