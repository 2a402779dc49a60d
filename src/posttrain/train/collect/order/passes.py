"""Passes over one data set, laid end to end: each is a function of its own (seed, number)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

SOURCE = 48  # bits of a pass's number, above which the source's stands in the key of its chance


class Rule(Protocol):
    """What each pass over a data set reads, and in which order."""

    @property
    def sizes(self) -> Sequence[int]:
        """Rows of one pass after another; after the last it is the first again."""
        ...

    def of(self, draw: np.random.Generator, number: int) -> NDArray[np.int64]:
        """The rows of a pass, in order; `draw` is its own chance."""
        ...


@dataclass(frozen=True, slots=True)
class Shuffled:
    """A pass reads every row once, in random order."""

    examples: int

    @property
    def sizes(self) -> tuple[int]:
        """See `Rule`."""
        return (self.examples,)

    def of(self, draw: np.random.Generator, number: int) -> NDArray[np.int64]:
        """See `Rule`."""
        return draw.permutation(self.examples)


class Passes:
    """Passes, laid end to end for ever; the latest two that were asked for are kept.

    Args:
        rule: what each reads.
        seed: of their chance.
        source: the data set's number, where there are several.
    """

    def __init__(self, rule: Rule, seed: int, source: int = 0) -> None:
        self._rule, self._seed, self._source = rule, seed, source
        self._ends = list(accumulate(rule.sizes))
        self._kept: dict[int, NDArray[np.int64]] = {}

    def at(self, places: range) -> list[tuple[int, int]]:
        """The row at each of these places, with the number of the pass that it is read in."""
        found, place = list[tuple[int, int]](), places.start
        while place < places.stop:
            number, begins = self._pass(place)
            rows = self._of(number)[place - begins : places.stop - begins]
            found += [(row, number) for row in rows.tolist()]
            place += len(rows)
        return found

    def _pass(self, place: int) -> tuple[int, int]:
        """The number of the pass that a place is in, and the place at which it begins."""
        rounds, rest = divmod(place, self._ends[-1])
        index = bisect_right(self._ends, rest)
        return rounds * len(self._ends) + index, place - rest + (self._ends[index - 1] if index else 0)

    def _of(self, number: int) -> NDArray[np.int64]:
        if number not in self._kept:
            key = [self._seed, number + (self._source << SOURCE)]
            latest = list(self._kept.items())[-1:]
            self._kept = dict([*latest, (number, self._rule.of(np.random.Generator(np.random.Philox(key=key)), number))])
        return self._kept[number]
