"""Rows → the packed inputs of a micro-batch: no padding, and a prompt once for all of its answers.

Rows end at their last token that carries loss, less one, which predicts nothing; a row without such a token is not read.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from posttrain.data.rows import Row
from posttrain.estimator.batch import Batch
from posttrain.model.layout.blocks import Blocks
from posttrain.model.layout.inputs import ModelInputs
from posttrain.model.layout.varlen import Varlen

Ids = NDArray[np.int32]


def packed_inputs(rows: Sequence[Row], batch: Batch, *, share: bool, varlen: bool = False) -> ModelInputs:
    """The inputs of a micro-batch: its rows, and the same rows of the batch, on CPU. With `share` equal prompts stand once.

    Raises:
        ValueError: a token that carries loss has nothing before it.
    """
    scored = [np.flatnonzero(mask) for mask in batch.loss_mask.numpy()]
    if any(len(at) and not at[0] and not len(row.prompt) for row, at in zip(rows, scored, strict=True)):
        raise ValueError("the first token of a row without a prompt cannot carry loss: nothing comes before it")
    read = {i: rows[i].read[: at[-1]] for i, at in enumerate(scored) if len(at)}
    ids, positions = list[Ids](), list[Ids]()
    last: dict[int, int] = {}  # where the token before a row's completion stands
    first: dict[int, int] = {}  # where its completion begins
    end = 0

    def put(tokens: Ids, position: int) -> int:
        nonlocal end
        ids.append(tokens)
        positions.append(np.arange(position, position + len(tokens), dtype=np.int32))
        end += len(tokens)
        return end - len(tokens)

    trunks = _trunks(rows, read, share)
    trunks.sort(key=lambda trunk: (varlen and len(trunk.answers) > 0, len(trunk.tokens)))
    for trunk in trunks:
        start = put(trunk.tokens, 0)
        for i in trunk.rows:
            last[i], first[i] = start + len(rows[i].prompt) - 1, start + len(rows[i].prompt)
    answers = [(number, i) for number, trunk in enumerate(trunks) for i in trunk.answers]
    if not varlen:
        answers.sort(key=lambda answer: (len(trunks[answer[0]].tokens), len(read[answer[1]]), answer))
    for _, i in answers:
        first[i] = put(read[i], len(rows[i].prompt))

    width = batch.loss_mask.shape[1]
    predicted = [np.where(scored[i] > 0, first[i] + scored[i] - 1, last[i]) for i in read]
    lengths = [len(trunk.tokens) for trunk in trunks], [(number, len(read[i])) for number, i in answers]
    return ModelInputs(
        input_ids=_tensor(ids)[None],
        attention_mask=None,
        row=torch.zeros(sum(map(len, predicted)), dtype=torch.int64),
        position=_tensor(predicted),
        index=_tensor([i * width + scored[i] for i in read]),
        target=_tensor([rows[i].completion[scored[i]] for i in read]),
        position_ids=_tensor(positions)[None],
        layout=Varlen.of(*lengths) if varlen else Blocks.of(*lengths),
    )


def packed_micro_batches(
    units: Sequence[Sequence[Row]], *, ranks: int, share: bool, rows: int | None = None, tokens: int | None = None
) -> list[list[list[int]]]:
    """How a step's units are dealt: for each rank its micro-batches, equally many on every rank; some may be empty.

    Units of one prompt stay together as far as a micro-batch and a fair share of the ranks' tokens allow; the parts are given
    to the rank that has least, and fill its micro-batches best-fit, the largest first. The gradient does not depend on it.

    Args:
        units: the rows of each.
        ranks: to deal to.
        share: equal prompts count once.
        rows: units of a micro-batch, at most.
        tokens: of a micro-batch that the model reads, at most.
    """
    together: dict[object, list[int]] = defaultdict(list)
    for number, unit in enumerate(units):
        together[unit[0].prompt.tobytes() if share and len(unit[0].prompt) else number].append(number)
    alone = [packed_tokens(unit, share=share) for unit in units]
    again = sum(len(units[i][0].prompt) for of in together.values() for i in of[1:])
    fair = math.ceil((sum(alone) - again) / ranks)
    parts: list[_Part] = []
    for of in together.values():
        part: _Part | None = None
        for unit in of:
            more = _Part([unit], alone[unit] - (len(units[unit][0].prompt) if part else 0))
            if part is None or not part.takes(more, fair if tokens is None else min(tokens, fair), rows):
                parts.append(part := _Part([], 0))
                more.tokens = alone[unit]
            part.add(more)

    loads, micro = [0] * ranks, [list[_Part]() for _ in range(ranks)]
    for part in sorted(parts, key=lambda part: (-part.tokens, part.units)):
        rank = loads.index(min(loads))
        loads[rank] += part.tokens
        open_ones = [one for one in micro[rank] if one.takes(part, tokens, rows)]
        if not open_ones:
            micro[rank].append(_Part([], 0))
        max(open_ones or micro[rank][-1:], key=lambda one: one.tokens).add(part)
    most = max(map(len, micro))
    return [[one.units for one in dealt] + [[] for _ in range(most - len(dealt))] for dealt in micro]


def packed_tokens(rows: Iterable[Row], *, share: bool) -> int:
    """Tokens that the model reads of these rows, at most."""
    rows = list(rows)
    prompts = {row.prompt.tobytes(): len(row.prompt) for row in rows}
    return sum(len(row.completion) for row in rows) + sum(prompts.values() if share else (len(row.prompt) for row in rows))


@dataclass(frozen=True, slots=True)
class _Trunk:
    """A row's tokens, or the prompt of several rows; the rows that it is a part of, and those whose answers follow it."""

    tokens: Ids
    rows: list[int]
    answers: list[int]


def _trunks(rows: Sequence[Row], read: dict[int, Ids], share: bool) -> list[_Trunk]:
    together: dict[object, list[int]] = defaultdict(list)
    for i in read:
        together[rows[i].prompt.tobytes() if share and len(rows[i].prompt) else i].append(i)
    trunks = list[_Trunk]()
    for of in together.values():
        alone = of if len(of) == 1 else []
        tokens = np.concatenate([rows[of[0]].prompt, *(read[i] for i in alone)])
        trunks.append(_Trunk(tokens, of, [i for i in of if not alone and len(read[i])]))
    idle = np.concatenate([rows[0].prompt, rows[0].completion])[:1]  # where there is no loss, the model runs all the same
    return trunks or [_Trunk(idle, [], [])]


@dataclass(slots=True)
class _Part:
    """Units of a micro-batch, and the tokens that the model reads for them."""

    units: list[int]
    tokens: int

    def takes(self, other: _Part, tokens: int | None, rows: int | None) -> bool:
        """Whether the other still goes in."""
        few = rows is None or len(self.units) + len(other.units) <= rows
        return few and (tokens is None or self.tokens + other.tokens <= tokens)

    def add(self, other: _Part) -> None:
        """Puts it in."""
        self.units += other.units
        self.tokens += other.tokens


def _tensor(parts: Sequence[NDArray[Any]]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([*parts, np.zeros(0, np.int64)]).astype(np.int64))
