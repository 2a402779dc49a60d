"""The layouts: how rows become the inputs of a micro-batch, what the model then reads, and how a step's rows are dealt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from posttrain.data.rows import Row
from posttrain.estimator.batch import Batch
from posttrain.model.layout.inputs import ModelInputs
from posttrain.model.layout.packed import packed_inputs, packed_micro_batches, packed_tokens
from posttrain.model.layout.padded import micro_batches, model_inputs
from posttrain.settings.training import RowLayout


class Rows(Protocol):
    """One way to lay rows out. A unit is some rows that stay in one micro-batch. Where a teacher reads more than the student
    its tokens count.
    """

    def inputs(self, rows: Sequence[Row], batch: Batch) -> ModelInputs:
        """The inputs of a micro-batch: its rows, and the same rows of the batch, on CPU.

        Raises:
            ValueError: a token that carries loss has nothing before it.
        """
        ...

    def tokens(self, rows: Sequence[Row]) -> int:
        """Tokens that the model reads of these rows in one micro-batch, at most."""
        ...

    def deal(
        self, units: Sequence[Sequence[Row]], *, ranks: int, rows: int | None, tokens: int | None
    ) -> list[list[list[int]]]:
        """For each rank its micro-batches, equally many on every rank; some may be empty. The gradient does not depend on it.

        Args:
            units: the rows of each.
            ranks: to deal to.
            rows: units of a micro-batch, at most.
            tokens: of a micro-batch that the model reads, at most.
        """
        ...


@dataclass(frozen=True, slots=True)
class Padded:
    """A row for each completion, filled up to the longest."""

    pad_id: int

    def inputs(self, rows: Sequence[Row], batch: Batch) -> ModelInputs:
        """See `Rows`."""
        return _read_by_both(rows, partial(model_inputs, batch=batch, pad_id=self.pad_id))

    def tokens(self, rows: Sequence[Row]) -> int:
        """See `Rows`."""
        return len(rows) * max((len(row.longest) for row in rows), default=0)

    def deal(
        self, units: Sequence[Sequence[Row]], *, ranks: int, rows: int | None, tokens: int | None
    ) -> list[list[list[int]]]:
        """See `Rows`."""
        return micro_batches([self.tokens(unit) for unit in units], ranks=ranks, rows=rows, tokens=tokens)


@dataclass(frozen=True, slots=True)
class Packed:
    """One row without padding; with `share` a prompt stands once for all of its answers.

    varlen: it is attended to by the kernel for stretches of any length, else block by block.
    """

    share: bool
    varlen: bool = False

    def inputs(self, rows: Sequence[Row], batch: Batch) -> ModelInputs:
        """See `Rows`."""
        return _read_by_both(rows, partial(packed_inputs, batch=batch, share=self.share, varlen=self.varlen))

    def tokens(self, rows: Sequence[Row]) -> int:
        """See `Rows`."""
        return packed_tokens([row.longest for row in rows], share=self.share)

    def deal(
        self, units: Sequence[Sequence[Row]], *, ranks: int, rows: int | None, tokens: int | None
    ) -> list[list[list[int]]]:
        """See `Rows`."""
        read = [[row.longest for row in unit] for unit in units]
        return packed_micro_batches(read, ranks=ranks, share=self.share, rows=rows, tokens=tokens)


def _read_by_both(rows: Sequence[Row], inputs: Callable[[Sequence[Row]], ModelInputs]) -> ModelInputs:
    own = replace(inputs(rows), rows=tuple(rows))
    if all(row.teacher_prompt is None for row in rows):
        return own
    taught = tuple(row.as_taught for row in rows)
    return replace(own, teacher=replace(inputs(taught), rows=taught))


def make_layout(name: RowLayout, *, pad_id: int, varlen: bool = False) -> Rows:
    """The layout of that name."""
    return Padded(pad_id) if name == "padded" else Packed(share=name == "shared", varlen=varlen)
