"""Examples of a source of which nobody knows how long it is: encoded as they come, and gone on with where they were left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from posttrain.data.rows import DataReport, Example
from posttrain.errors import DataError
from posttrain.telling import tell

FIRST = 256
"""Examples that are looked at before a run, for its plan and its proofs."""
Coming = Callable[[int, DataReport], Iterator[list[Example]]]
"""What becomes of each record of a source after the first so many, nothing of one that is left out; the report has its notes
when it comes."""


class Stream:
    """Examples in the order of their source, but for that within each block of so many, which is a permutation of the block's
    own (seed, number). When the source ends it begins again.

    Where it stands is known by its block, the records before that, and how many examples of it are taken; so that to go on
    these records are passed over, and the block is read again.

    Args:
        read: the source.
        block: examples; the record that reaches them ends it.
        longest: tokens of a row, at most.
        seed: of the order.
        label: of the source, for messages.

    Raises:
        DataError: the source gives none, or a record cannot be used.
    """

    def __init__(self, read: Coming, *, block: int, longest: int, seed: int, label: str) -> None:
        self._read, self._seed, self._label, self._told = read, seed, label, set[str]()
        self.block, self.longest, self.first = block, longest, list[Example]()
        self.report = DataReport()
        """Of the first examples."""
        for made in read(0, self.report):
            self.first += made
            if len(self.first) >= FIRST:
                break
        self._tell_notes(self.report)
        if not self.first:
            raise DataError(f"{label}: no row can be used: the source is empty, or all of its rows are left out.")
        self._number, self._begins, self._taken, self._next = -1, 0, 0, 0
        self._counted, self._before = Counter[str](), Counter[str]()  # up to this block's end, and up to its beginning
        self._rows: list[Example] = []
        self._coming: tuple[Iterator[list[Example]], DataReport] | None = None

    def take(self, number: int) -> list[Example]:
        """The next examples.

        Raises:
            DataError: a record cannot be used.
        """
        found = list[Example]()
        while len(found) < number:
            if self._taken == len(self._rows):
                self._begin(self._number + 1, self._next, self._counted)
            more = self._rows[self._taken : self._taken + number - len(found)]
            self._taken += len(more)
            found += more
        return found

    @property
    def counts(self) -> dict[str, int]:
        """Records that were read, of all passes, and those that are left out, or not whole, by reason; up to the end of the
        block.
        """
        return {"records": 0, **self._counted}

    def state(self) -> dict[str, Any]:
        """Where it stands, as JSON has it."""
        place = {"block": self._number, "records": self._begins, "taken": self._taken}
        return {**place, "before": dict(self._before)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from there.

        Raises:
            DataError: the source has no such place any more.
        """
        if state["block"] < 0:
            self._number, self._next, self._rows, self._taken, self._coming = -1, 0, [], 0, None
            self._counted = Counter[str]()
            return
        if (state["block"], state["records"]) != (self._number, self._begins):
            self._coming = None
            self._begin(state["block"], state["records"], Counter(state["before"]))
        if self._begins != state["records"] or state["taken"] > len(self._rows):
            raise DataError(
                f"{self._label}: it is not what it was: a block of {state['taken']} rows or more began after "
                f"{state['records']:,} records."
            )
        self._taken = state["taken"]

    def _begin(self, number: int, begins: int, before: Counter[str]) -> None:
        """Reads a block."""
        report = DataReport()
        iterator, report = self._coming or (self._read(begins, report), report)
        self._coming = None  # if this is interrupted, the block is read anew
        records, found, counted, ended = begins, list[Example](), Counter(before), True
        for made in iterator:
            records += 1
            found += made
            counted["records"] += 1
            counted.update(self._tell_notes(report))
            if len(found) >= self.block:
                ended = False
                break
        if ended:
            tell("stream-ended", f"{self._label}: it ends after {records:,} records, and begins again.")
        if not found and begins:
            self._begin(number, 0, counted)
            return
        if not found:
            raise DataError(f"{self._label}: no row can be used any more.")
        if self.block > 1:
            order = np.random.Generator(np.random.Philox(key=[self._seed, number])).permutation(len(found))
            found = [found[i] for i in order.tolist()]
        self._rows, self._number, self._begins, self._taken = found, number, begins, 0
        self._before, self._counted = before, counted
        self._coming, self._next = (None, 0) if ended else ((iterator, report), records)

    def _tell_notes(self, report: DataReport) -> list[str]:
        """The counters of what was noted since; the first of each is told."""
        noted, report.notes = report.notes, []
        for counter, where, reason in noted:
            if counter not in self._told:
                self._told.add(counter)
                tell("stream-left-out", f"{where}: {reason}; others are counted, as data/train/{counter}.")
        return [counter for counter, _, _ in noted]
