"""The fields of a collection's batch without padding: its rows end to end."""

from __future__ import annotations

import dataclasses
import mmap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

from posttrain.estimator.batch import PER_TOKEN, Batch, check_units

NAMED = "rewards_by_name."
HUGE_PAGES_FROM = 2**22  # bytes: numpy asks for them from there on, and one number that is written makes 2 MB resident


@dataclass(frozen=True, slots=True, eq=False)
class Flat:
    """What a `Batch` has, on CPU; n is the tokens of all rows.

    lengths: the tokens of each row, [B].
    fields: by the batch's names. One that is [B, T] there is [n] here, or [B, 1] where all tokens of a row have the same.
        `rewards_by_name` stands here one by one, each under `rewards_by_name.<name>`.
    progress, coefficients, unit: of the batch.
    """

    lengths: NDArray[np.int64]
    fields: Mapping[str, Tensor]
    progress: float = 0.0
    coefficients: Mapping[str, float] | None = None
    unit: int = 1
    _ends: NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_ends", np.cumsum(self.lengths))

    @classmethod
    def of(cls, batch: Batch, lengths: Sequence[int] | NDArray[np.int64]) -> Flat:
        """A padded batch whose rows have so many tokens."""
        lengths = np.asarray(lengths, np.int64)
        fields = {name: unpadded(value, lengths) if name in PER_TOKEN else value for name, value in _fields(batch).items()}
        return cls(lengths, fields, batch.progress, batch.coefficients, batch.unit)

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def width(self) -> int:
        """T of the whole batch."""
        return int(self.lengths.max())

    def span(self, row: int) -> slice:
        """Where a row's tokens stand among all."""
        return slice(int(self._ends[row] - self.lengths[row]), int(self._ends[row]))

    def get(self, name: str) -> Tensor | None:
        """A field."""
        return self.fields.get(name)

    def of_tokens(self, name: str) -> Tensor:
        """A field of each token, [n]."""
        value = self.fields[name]
        return value if value.dim() == 1 else value[:, 0].repeat_interleave(torch.from_numpy(self.lengths))

    def replace(
        self, *, progress: float | None = None, coefficients: Mapping[str, float] | None = None, **fields: Tensor | None
    ) -> Flat:
        """A copy with these fields."""
        changed = {name: value for name, value in {**self.fields, **fields}.items() if value is not None}
        along = self.progress if progress is None else progress
        return Flat(self.lengths, changed, along, self.coefficients if coefficients is None else coefficients, self.unit)

    def changed(self, before: Batch, after: Batch) -> Flat:
        """A copy with what differs in `after`, which was made of this one's whole batch, `before`."""
        old, new = _fields(before), _fields(after)
        fields = {name: value for name, value in self.fields.items() if name in new}
        for name, value in new.items():
            if value is not old.get(name):
                fields[name] = unpadded(value, self.lengths) if name in PER_TOKEN else value
        return Flat(self.lengths, fields, after.progress, after.coefficients, after.unit)

    def any(self, flags: Bool[Tensor, " n"]) -> NDArray[np.bool_]:
        """Of each row, whether a token has the flag, [B]."""
        before = np.concatenate([[0], np.cumsum(flags.numpy())])
        return before[self._ends] > before[self._ends - self.lengths]

    def take(self, rows: Sequence[int]) -> Flat:
        """These rows, in that order, each a unit of its own; one may stand there several times."""
        index = torch.as_tensor(rows, dtype=torch.int64)

        def taken(name: str, value: Tensor) -> Tensor:
            of_tokens = name in PER_TOKEN and value.dim() == 1
            return torch.cat([value[self.span(row)] for row in rows]) if of_tokens else value[index]

        fields = {name: taken(name, value) for name, value in self.fields.items()}
        return Flat(self.lengths[index.numpy()], fields, self.progress, self.coefficients)

    def batch(self, rows: Sequence[int] | None = None, *, width: int | None = None) -> Batch:
        """Some rows, or all, padded to the width of the whole, or another that they fit into.

        Raises:
            ValueError: the rows would cut a unit.
        """
        chosen = range(len(self)) if rows is None else rows
        index, width = torch.as_tensor(chosen, dtype=torch.int64), self.width if width is None else width
        check_units(index, self.unit)
        values = {
            name: self._padded(value, chosen, index, width) if name in PER_TOKEN else value[index]
            for name, value in self.fields.items()
        }
        named = {name.removeprefix(NAMED): values.pop(name) for name in list(values) if name.startswith(NAMED)}
        fields: Any = {**values, "rewards_by_name": named}
        return Batch(**fields, progress=self.progress, coefficients=self.coefficients, unit=self.unit)

    def parts(self, units: Sequence[Sequence[int]], rows: int) -> Iterator[tuple[list[int], Batch]]:
        """All rows of these units in batches of about so many, each no wider than its longest row: what adds up over rows
        is made of them. With each, the numbers of its units.
        """
        longest = [max((int(self.lengths[row]) for row in unit), default=0) for unit in units]
        part, taken = list[int](), list[int]()
        for number in sorted(range(len(units)), key=longest.__getitem__):
            part.append(number)
            taken += units[number]
            if len(taken) >= rows:
                yield part, self.batch(taken, width=longest[number])
                part, taken = [], []
        if part:
            yield part, self.batch(taken, width=longest[part[-1]])

    def _padded(self, value: Tensor, rows: Sequence[int], index: Tensor, width: int) -> Tensor:
        if value.dim() == 2:
            return value[index].expand(-1, width).contiguous()
        flat = value.numpy()
        padded = _zeros(len(rows), width, flat.dtype)
        for place, row in zip(padded, rows, strict=True):
            place[: self.lengths[row]] = flat[self.span(row)]
        return torch.from_numpy(padded)


def _zeros(rows: int, width: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Pages of a large array are there once they are written: most are not, where few rows are long."""
    size = rows * width * dtype.itemsize
    if size < HUGE_PAGES_FROM:
        return np.zeros((rows, width), dtype)
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(pages, dtype).reshape(rows, width)


def _fields(batch: Batch) -> dict[str, Tensor]:
    values = {one.name: getattr(batch, one.name) for one in dataclasses.fields(batch)}
    named = {NAMED + name: value for name, value in batch.rewards_by_name.items()}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)} | named


def unpadded(value: Tensor, lengths: NDArray[np.int64]) -> Tensor:
    """A [B, T] field as `Flat` has it."""
    if value.shape[1] > 1 and not value.stride(1):
        return value[:, :1].clone()  # one number for all tokens of a row, expanded
    return torch.cat([row[:length] for row, length in zip(value, lengths.tolist(), strict=True)])
