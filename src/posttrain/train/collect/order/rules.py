"""Orders by a number, or by a category, of each row. Rows of which it says the same are in random order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.float64]
"""A number of each example, [examples]."""


@dataclass(frozen=True, slots=True, eq=False)
class Sorted:
    """A pass reads every row once, the smallest number first."""

    keys: Keys

    @property
    def sizes(self) -> tuple[int]:
        """See `Rule`."""
        return (len(self.keys),)

    def of(self, draw: np.random.Generator, number: int) -> NDArray[np.int64]:
        """See `Rule`."""
        return _sorted(draw.permutation(len(self.keys)), self.keys)


@dataclass(frozen=True, slots=True, eq=False)
class Cyclical:
    """Passes grow and shrink again (Cyclical Curriculum Learning, arXiv:2202.05531, as its code has it).

    A pass reads a share of the rows, least · factor, least · factor², … 1, 1 / factor, … least: those that a draw without
    replacement finds, each row with a weight of 1 / key, in random order. It is drawn by a race: the keys' exponential times,
    the first ones win.
    """

    keys: Keys
    sizes: tuple[int, ...]

    @classmethod
    def growing(cls, keys: Keys, *, least: float, factor: float) -> Cyclical:
        """From a least share of the rows on, by a factor from pass to pass; keys are above 0."""
        up, down = [least], list[float]()
        while up[-1] < 1:
            up.append(min(up[-1] * factor, 1.0))
        share = 1 / factor
        while len(up) > 1 and share > least:
            down.append(share)
            share /= factor
        return cls(keys, tuple(max(int(share * len(keys)), 1) for share in (*up, *down)))

    def of(self, draw: np.random.Generator, number: int) -> NDArray[np.int64]:
        """See `Rule`."""
        race = draw.standard_exponential(len(self.keys)) * self.keys
        return draw.permutation(np.argsort(race, kind="stable")[: self.sizes[number % len(self.sizes)]])


@dataclass(frozen=True, slots=True, eq=False)
class _ByCategory:
    """A pass reads every row once.

    categories: of each example, as numbers from 0 on. within: by what the rows of one are ordered, if at all.
    """

    categories: NDArray[np.int64]
    within: Keys | None = None

    @property
    def sizes(self) -> tuple[int]:
        """See `Rule`."""
        return (len(self.categories),)


class Blocked(_ByCategory):
    """One category after another, in random order, or in each the smallest number first."""

    __slots__ = ()

    def of(self, draw: np.random.Generator, number: int) -> NDArray[np.int64]:
        """See `Rule`."""
        turn = draw.permutation(int(self.categories.max()) + 1)
        rows = _within(draw, self.categories, self.within)
        return _sorted(rows, turn[self.categories])


class Interleaved(_ByCategory):
    """Each category evenly over all of the pass: the i-th of its m rows, in random order or by the smallest number, at
    (i - 1/2) / m of it.
    """

    __slots__ = ()

    def of(self, draw: np.random.Generator, number: int) -> NDArray[np.int64]:
        """See `Rule`."""
        rows = _within(draw, self.categories, self.within)
        together = _sorted(rows, self.categories)
        counts = np.bincount(self.categories)
        firsts = np.cumsum(counts) - counts
        own = self.categories[together]
        due = np.empty(len(rows))
        due[together] = (np.arange(len(rows)) - firsts[own] + 0.5) / counts[own]
        return _sorted(rows, due)


def _within(draw: np.random.Generator, categories: NDArray[np.int64], keys: Keys | None) -> NDArray[np.int64]:
    rows = draw.permutation(len(categories))
    return rows if keys is None else _sorted(rows, keys)


def _sorted(rows: NDArray[np.int64], keys: NDArray[np.generic]) -> NDArray[np.int64]:
    """The rows by their keys, the smallest first; those of equal keys stay as they are."""
    return rows[np.argsort(keys[rows], kind="stable")]
