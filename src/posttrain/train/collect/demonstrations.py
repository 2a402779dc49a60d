"""Collections of demonstrations, or of pairs and larger units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch

from posttrain.data.rows import Example, Row
from posttrain.data.rows.stream import Stream
from posttrain.estimator.batch import Origin
from posttrain.train.collect.collection import NOTHING, Collection
from posttrain.train.collect.flat import Flat
from posttrain.train.collect.order import Order


class DemonstrationCollector:
    """The next rows of a data set, whose order is a pure function of (seed, step).

    Args:
        examples: of the data set.
        order: which of them each optimizer step takes, over all ranks.
        updates: optimizer steps of a collection.
    """

    def __init__(self, examples: Sequence[Example], order: Order, *, updates: int) -> None:
        self._examples, self._order, self._updates = examples, order, updates

    def collect(self, model: Any, step: int, progress: float) -> Collection:
        """See `Collector`; no model is asked."""
        chosen = [self._examples[i] for i in self._order.of(step, self._updates)]
        return collect_demonstrations(chosen, progress=progress, sizes=self._order.sizes(step, self._updates))

    def state(self) -> dict[str, Any]:
        """See `Collector`: nothing."""
        return {}

    def ahead(self, step: int) -> dict[int, Collection]:
        """See `Collector`: nothing."""
        return {}

    def kept(self) -> Collection | None:
        """See `Collector`: nothing."""
        return None

    def restore(
        self, state: Mapping[str, Any], ahead: Mapping[int, Collection] = NOTHING, kept: Collection | None = None
    ) -> None:
        """See `Collector`."""


class StreamCollector(DemonstrationCollector):
    """The next rows of a stream; how far it is read is all that it remembers.

    Args:
        stream: of the source.
        order: how many examples each optimizer step takes, over all ranks; which, the stream says.
        updates: optimizer steps of a collection.
    """

    def __init__(self, stream: Stream, order: Order, *, updates: int) -> None:
        super().__init__(stream.first, order, updates=updates)
        self._stream = stream

    def collect(self, model: Any, step: int, progress: float) -> Collection:
        """See `Collector`; no model is asked."""
        sizes = self._order.sizes(step, self._updates)
        made = collect_demonstrations(self._stream.take(sum(sizes)), progress=progress, sizes=sizes)
        metrics = {f"data/train/{name}": float(number) for name, number in self._stream.counts.items()}
        return replace(made, metrics=metrics)

    def state(self) -> dict[str, Any]:
        """See `Collector`: how far it is."""
        return self._stream.state()

    def restore(
        self, state: Mapping[str, Any], ahead: Mapping[int, Collection] = NOTHING, kept: Collection | None = None
    ) -> None:
        """See `Collector`."""
        self._stream.restore(state)


def collect_demonstrations(chosen: Sequence[Example], *, progress: float, sizes: Sequence[int] | None = None) -> Collection:
    """A collection without rollouts: every token is a demonstration's. `sizes` are how many examples each of its optimizer
    steps takes; it is one step, if they are not told.
    """
    rows: list[Row] = []
    units: list[tuple[int, ...]] = []
    for example in chosen:
        units.append(tuple(range(len(rows), len(rows) + len(example.rows))))
        rows.extend(example.rows)
    unit = len(chosen[0].rows)
    worth = [row.weight for row in rows if row.weight is not None]
    flat = Flat(
        np.array([len(row.completion) for row in rows]),
        {
            "loss_mask": torch.from_numpy(np.concatenate([row.mask for row in rows])),
            "tokens": torch.from_numpy(np.concatenate([row.completion for row in rows]).astype(np.int32, copy=False)),
            "origin": torch.full((len(rows), 1), int(Origin.DEMO), dtype=torch.int8),
            "group": torch.tensor([u for u, unit in enumerate(units) for _ in unit]),
            **({"chosen": torch.arange(len(rows)) % unit == 0} if unit > 1 and not chosen[0].crossed else {}),
            **({"weight": torch.from_numpy(np.concatenate(worth))} if len(worth) == len(rows) else {}),
        },
        progress,
        unit=unit,
    )
    ends = [*accumulate([len(units)] if sizes is None else sizes)]
    return Collection(
        rows=tuple(rows),
        units=tuple(units),
        steps=tuple(tuple(range(begin, end)) for begin, end in pairwise([0, *ends])),
        where=tuple(example.where for example in chosen),
        sources=tuple(example.source for example in chosen),
        flat=flat,
    )
