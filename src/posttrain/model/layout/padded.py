"""Rows → the padded inputs of a micro-batch, and how a step's rows are dealt into micro-batches.

Rows are padded on the right and end at their last token that carries loss, less one, which predicts nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from posttrain.data.rows import Row
from posttrain.estimator.batch import Batch
from posttrain.model.layout.inputs import ModelInputs


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
        whole = np.concatenate([row.prompt, row.read])
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
