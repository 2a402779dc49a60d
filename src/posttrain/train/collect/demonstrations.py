"""Rows → tensors: the light `Batch` of a whole collection, and the padded inputs of one micro-batch.

Rows are padded on the right and end at their last token that carries loss, less one, which predicts nothing. Packed rows
and shared prompts, when they come, are other ways to fill `ModelInputs`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from posttrain.data.rows import Example, Row
from posttrain.estimator.batch import Batch, Origin
from posttrain.model.scoring import ModelInputs
from posttrain.train.collect.collection import Collection
from posttrain.train.collect.order import step_indices


class DemonstrationCollector:
    """The next rows of a data set, whose order is a pure function of (seed, step).

    Args:
        examples: of the data set.
        rows: examples of an optimizer step, over all ranks.
        updates: optimizer steps of a collection.
        seed: of the order.
    """

    def __init__(self, examples: Sequence[Example], *, rows: int, updates: int, seed: int) -> None:
        self._examples, self._rows, self._updates, self._seed = examples, rows, updates, seed

    def collect(self, model: Any, step: int, progress: float) -> Collection:
        """See `Collector`; no model is asked."""
        chosen = step_indices(len(self._examples), self._rows, step, self._seed, self._updates)
        return collect_demonstrations([self._examples[i] for i in chosen], progress=progress, updates=self._updates)

    def state(self) -> dict[str, Any]:
        """See `Collector`: nothing."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Collector`."""


def collect_demonstrations(chosen: Sequence[Example], *, progress: float, updates: int = 1) -> Collection:
    """A collection without rollouts: every token is a demonstration's. Each of `updates` steps takes as many examples."""
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
    size = len(units) // updates
    return Collection(
        rows=tuple(rows),
        units=tuple(units),
        steps=tuple(tuple(range(k * size, (k + 1) * size)) for k in range(updates)),
        where=tuple(example.where for example in chosen),
        batch=batch,
    )


def model_inputs(rows: Sequence[Row], batch: Batch, *, pad_id: int) -> ModelInputs:
    """The inputs of a micro-batch: its rows, and the same rows of the batch, on CPU.

    Raises:
        ValueError: a token that carries loss has nothing before it.
    """
    scored = [torch.nonzero(mask)[:, 0].tolist() for mask in batch.loss_mask]
    ends = [len(row.prompt) + at[-1] if at else 1 for row, at in zip(rows, scored, strict=True)]
    ids = np.full((len(rows), max(ends)), pad_id, np.int64)
    attention = np.zeros(ids.shape, np.bool_)
    where: list[tuple[int, int, int, int]] = []
    for i, (row, at, end) in enumerate(zip(rows, scored, ends, strict=True)):
        whole = np.concatenate([row.prompt, row.completion])
        ids[i, :end], attention[i, :end] = whole[:end], True
        start, width = len(row.prompt), batch.loss_mask.shape[1]
        where += [(i, start + t - 1, i * width + t, int(row.completion[t])) for t in at]
    placed = torch.tensor(where, dtype=torch.int64).view(-1, 4).T
    if len(where) and int(placed[1].min()) < 0:
        raise ValueError("the first token of a row without a prompt cannot carry loss: nothing comes before it")
    row_of, position, index, target = placed
    return ModelInputs(torch.from_numpy(ids), torch.from_numpy(attention), row_of, position, index, target)


def micro_batches(
    lengths: Sequence[int], *, ranks: int, rows: int | None = None, tokens: int | None = None
) -> list[list[list[int]]]:
    """How a step's units, of these lengths, are dealt: for each rank its micro-batches, equally many on every rank.

    Units are sorted by length, so that a micro-batch pads little, and dealt in turn, so that ranks have equal work; the
    gradient does not depend on it. `rows` bounds the units of a micro-batch; `tokens`, its padded size. A rank may get
    empty micro-batches.
    """
    order = sorted(range(len(lengths)), key=lambda unit: (-lengths[unit], unit))
    dealt: list[list[list[int]]] = []
    for rank in range(ranks):
        parts: list[list[int]] = []
        for unit in order[rank::ranks]:
            size = len(parts[-1]) + 1 if parts else 0
            full = not parts or (rows is not None and size > rows)
            if full or (tokens is not None and size * lengths[parts[-1][0]] > tokens):
                parts.append([])
            parts[-1].append(unit)
        dealt.append(parts)
    most = max(map(len, dealt))
    return [parts + [[] for _ in range(most - len(parts))] for parts in dealt]
