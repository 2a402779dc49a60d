"""Collections of demonstrations or preference pairs: alone, or beside rollouts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from posttrain.data.rows import Example, Row
from posttrain.estimator.batch import Batch, Origin
from posttrain.train.collect.collection import Collection, Collector
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

    def restore(self, state: Mapping[str, Any]) -> None:
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
    width = max(len(row.completion) for row in rows)
    mask, tokens = np.zeros((len(rows), width), np.bool_), np.zeros((len(rows), width), np.int64)
    for i, row in enumerate(rows):
        mask[i, : len(row.mask)] = row.mask
        tokens[i, : len(row.completion)] = row.completion
    paired = len(chosen[0].rows) == 2
    batch = Batch(
        loss_mask=torch.from_numpy(mask),
        tokens=torch.from_numpy(tokens),
        origin=torch.full((len(rows), width), int(Origin.DEMO)),
        group=torch.tensor([u for u, unit in enumerate(units) for _ in unit]),
        chosen=torch.arange(len(rows)) % 2 == 0 if paired else None,
        progress=progress,
    )
    size = per_step or len(units)
    return Collection(
        rows=tuple(rows),
        units=tuple(units),
        steps=tuple(tuple(range(len(units))[k * size : (k + 1) * size]) for k in range(updates)),
        where=tuple(example.where for example in chosen),
        batch=batch,
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

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Collector`."""
        self._rollouts.restore(state)


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
        batch=_joined(rollouts.batch, shown.batch),
    )


def _joined(one: Batch, other: Batch) -> Batch:
    """Rows of rollouts, then of demonstrations: with a reward of 0, wrong, and groups of their own."""
    width = max(one.loss_mask.shape[1], other.loss_mask.shape[1])
    changes: dict[str, Any] = {"group": torch.cat([one.group, other.group + one.group.max() + 1])}
    for field in dataclasses.fields(Batch):
        value, beside = getattr(one, field.name), getattr(other, field.name)
        if not isinstance(value, Tensor) or field.name in changes:
            continue
        if beside is None:
            shape = other.loss_mask.shape if value.dim() == 2 else other.loss_mask.shape[:1]
            beside = torch.full(shape, field.name == "reward_mask", dtype=value.dtype)
        if value.dim() == 2:
            value, beside = (pad(part, (0, width - part.shape[1])) for part in (value, beside))
        changes[field.name] = torch.cat([value, beside])
    unrewarded = torch.zeros(len(other.group), dtype=torch.float64)
    changes["rewards_by_name"] = {name: torch.cat([v, unrewarded.to(v.dtype)]) for name, v in one.rewards_by_name.items()}
    return one.replace(**changes)
