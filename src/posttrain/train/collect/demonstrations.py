"""Collections of demonstrations or preference pairs: alone, or beside rollouts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from posttrain.data.rows import Example, Row
from posttrain.estimator.batch import PER_TOKEN, Origin
from posttrain.train.collect.collection import NOTHING, Collection, Collector
from posttrain.train.collect.flat import Flat
from posttrain.train.collect.order import Order


class DemonstrationCollector:
    """The next rows of a data set, whose order is a pure function of (seed, step).

    Args:
        examples: of the data set.
        rows: examples of an optimizer step, over all ranks.
        updates: optimizer steps of a collection.
        seed: of the order.
        end: examples that the run reads in all; None: every step is whole.
    """

    def __init__(self, examples: Sequence[Example], *, rows: int, updates: int, seed: int, end: int | None = None) -> None:
        self._examples, self._rows, self._updates = examples, rows, updates
        self._order = Order(len(examples), rows, seed, end)

    def collect(self, model: Any, step: int, progress: float) -> Collection:
        """See `Collector`; no model is asked."""
        chosen = [self._examples[i] for i in self._order.of(step, self._updates)]
        return collect_demonstrations(chosen, progress=progress, per_step=self._rows, updates=self._updates)

    def state(self) -> dict[str, Any]:
        """See `Collector`: nothing."""
        return {}

    def ahead(self, step: int) -> dict[int, Collection]:
        """See `Collector`: nothing."""
        return {}

    def restore(self, state: Mapping[str, Any], ahead: Mapping[int, Collection] = NOTHING) -> None:
        """See `Collector`."""


def collect_demonstrations(
    chosen: Sequence[Example], *, progress: float, per_step: int | None = None, updates: int = 1
) -> Collection:
    """A collection without rollouts: every token is a demonstration's. Each of `updates` steps takes `per_step` examples, or
    all; the last ones what is left.
    """
    rows: list[Row] = []
    units: list[tuple[int, ...]] = []
    for example in chosen:
        units.append(tuple(range(len(rows), len(rows) + len(example.rows))))
        rows.extend(example.rows)
    paired = len(chosen[0].rows) == 2
    worth = [row.weight for row in rows if row.weight is not None]
    flat = Flat(
        np.array([len(row.completion) for row in rows]),
        {
            "loss_mask": torch.from_numpy(np.concatenate([row.mask for row in rows])),
            "tokens": torch.from_numpy(np.concatenate([row.completion for row in rows]).astype(np.int32, copy=False)),
            "origin": torch.full((len(rows), 1), int(Origin.DEMO), dtype=torch.int8),
            "group": torch.tensor([u for u, unit in enumerate(units) for _ in unit]),
            **({"chosen": torch.arange(len(rows)) % 2 == 0} if paired else {}),
            **({"weight": torch.from_numpy(np.concatenate(worth))} if len(worth) == len(rows) else {}),
        },
        progress,
    )
    size = per_step or len(units)
    return Collection(
        rows=tuple(rows),
        units=tuple(units),
        steps=tuple(tuple(range(len(units))[k * size : (k + 1) * size]) for k in range(updates)),
        where=tuple(example.where for example in chosen),
        flat=flat,
    )


class BesideDemonstrations:
    """Rollouts, and in each optimizer step rows of a separate set of demonstrations.

    Args:
        rollouts: the collector of rollouts.
        demonstrations: the collector of as many optimizer steps of demonstrations.
    """

    def __init__(self, rollouts: Collector, demonstrations: Collector) -> None:
        self._rollouts, self._demonstrations = rollouts, demonstrations

    def collect(self, model: Any, step: int, progress: float) -> Collection:
        """See `Collector`."""
        return _beside(self._rollouts.collect(model, step, progress), self._demonstrations.collect(model, step, progress))

    def state(self) -> dict[str, Any]:
        """See `Collector`: the rollouts'."""
        return self._rollouts.state()

    def ahead(self, step: int) -> dict[int, Collection]:
        """See `Collector`: the rollouts'."""
        return self._rollouts.ahead(step)

    def restore(self, state: Mapping[str, Any], ahead: Mapping[int, Collection] = NOTHING) -> None:
        """See `Collector`."""
        self._rollouts.restore(state, ahead)


def _beside(rollouts: Collection, shown: Collection) -> Collection:
    rows, units = len(rollouts.rows), len(rollouts.units)
    later = tuple(tuple(row + rows for row in unit) for unit in shown.units)
    return dataclasses.replace(
        rollouts,
        rows=rollouts.rows + shown.rows,
        units=rollouts.units + later,
        steps=tuple(
            own + tuple(unit + units for unit in theirs) for own, theirs in zip(rollouts.steps, shown.steps, strict=True)
        ),
        where=rollouts.where + shown.where,
        flat=_joined(rollouts.flat, shown.flat),
    )


def _joined(one: Flat, other: Flat) -> Flat:
    """Rows of rollouts, then of demonstrations: with a reward of 0, wrong, and groups of their own."""
    fields = {"group": torch.cat([one.fields["group"], other.fields["group"] + one.fields["group"].max() + 1])}
    for name, value in one.fields.items():
        if name in fields:
            continue
        beside = other.get(name)
        if beside is None:
            size = int(other.lengths.sum()) if name in PER_TOKEN and value.dim() == 1 else len(other)
            beside = torch.full((size, *value.shape[1:]), name == "reward_mask", dtype=value.dtype)
        if value.dim() != beside.dim():
            value, beside = (part.of_tokens(name) for part in (one, other))
        fields[name] = torch.cat([value, beside])
    return Flat(np.concatenate([one.lengths, other.lengths]), fields, one.progress)
