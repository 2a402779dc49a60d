"""What optimizer steps train on, what is counted of it before any row is left out, and who collects it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from posttrain.data.rows import Row
from posttrain.estimator.algorithm import Algorithm
from posttrain.estimator.batch import Batch
from posttrain.estimator.parts.select import demonstrations, rollouts
from posttrain.train.collect.flat import Flat

ROWS = 256  # counted at a time, padded to the longest of them


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Collection:
    """Rows of one or several optimizer steps, over all ranks.

    A unit, which stays in one micro-batch, has the rows `units[u]` and comes from `where[u]`, and where several sources are
    mixed from `sources[u]`, which is empty for rows that are of none; step k trains on the units
    `steps[k]`. `flat` is what is known of the rows' tokens. Rows of `muted` count for advantages, and carry no loss.
    `metrics` are of the collecting; `samples` are completions to be shown. `aside` are the tokens, prompts included, of rows
    that were sampled for it and are of no step.
    """

    rows: tuple[Row, ...]
    units: tuple[tuple[int, ...], ...]
    steps: tuple[tuple[int, ...], ...]
    where: tuple[str, ...]
    sources: tuple[str, ...]
    flat: Flat
    muted: tuple[int, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    samples: Sequence[Mapping[str, Any]] = ()
    aside: int = 0

    @property
    def batch(self) -> Batch:
        """All rows, padded."""
        return self.flat.batch()

    def with_batch(self, batch: Batch) -> Collection:
        """The same rows with what this padded batch says of them."""
        return replace(self, flat=Flat.of(batch, self.flat.lengths))


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


NOTHING: Mapping[int, Collection] = MappingProxyType({})


class Collector(Protocol):
    """Gives the collection that begins at an optimizer step: a function of the step, of the model and of its state."""

    def collect(self, model: Any, step: int, progress: float) -> Collection:
        """Rows for the optimizer steps from `step` on, which is how many are done: as many as the collection has."""
        ...

    def state(self) -> dict[str, Any]:
        """What it remembers over steps, for a checkpoint: plain data, as JSON has it."""
        ...

    def ahead(self, step: int) -> dict[int, Collection]:
        """For a checkpoint: what is collected for `step` and after it already, by the step that each begins at."""
        ...

    def kept(self) -> Collection | None:
        """Rows that it keeps for later collections, if there are any: for a checkpoint, and alike on all ranks."""
        ...

    def restore(
        self, state: Mapping[str, Any], ahead: Mapping[int, Collection] = NOTHING, kept: Collection | None = None
    ) -> None:
        """Goes on from what `state`, `ahead` and `kept` gave."""
        ...
