"""Where the rows of a run, in their order, are cut into optimizer steps."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

CHUNK = 64  # rows whose lengths are looked at together, until a step has more


class Rows(Protocol):
    """The rows of a run, in their order."""

    def at(self, places: range) -> list[tuple[int, int]]:
        """The row at each of these places, with the number of the pass that it is read in."""
        ...


class Steps(Protocol):
    """Which places of a run an optimizer step takes."""

    def begins(self, step: int) -> int:
        """The place of a step's first row."""
        ...

    def holding(self, places: int) -> int:
        """How many steps have the first so many places."""
        ...


@dataclass(frozen=True, slots=True)
class ByRows:
    """So many rows in each."""

    rows: int

    def begins(self, step: int) -> int:
        """See `Steps`."""
        return step * self.rows

    def holding(self, places: int) -> int:
        """See `Steps`."""
        return -(-places // self.rows)


class ByTokens:
    """As many of the next rows as have no more than so many tokens together; one, where it alone has more. It is a function
    of the rows and their order, and what was found of it is kept.

    Args:
        tokens: of a step.
        lengths: tokens of each example.
        rows: the examples, in their order.
    """

    def __init__(self, tokens: int, lengths: Sequence[int], rows: Rows) -> None:
        self._tokens, self._lengths, self._rows = tokens, np.asarray(lengths, np.int64), rows
        self._begins, self._chunk = array("q", [0]), CHUNK

    def begins(self, step: int) -> int:
        """See `Steps`."""
        while len(self._begins) <= step:
            self._read_on()
        return self._begins[step]

    def holding(self, places: int) -> int:
        """See `Steps`."""
        while self._begins[-1] < places:
            self._read_on()
        return bisect_left(self._begins, places)

    def _read_on(self) -> None:
        """Finds the end of a step more, at least."""
        first = self._begins[-1]
        while True:
            ends = self._lengths[[row for row, _ in self._rows.at(range(first, first + self._chunk))]].cumsum()
            begin, spent = 0, 0
            while (end := max(int(np.searchsorted(ends, spent + self._tokens, "right")), begin + 1)) < self._chunk:
                self._begins.append(first + end)
                begin, spent = end, int(ends[end - 1])
            if begin:
                return
            self._chunk *= 2
