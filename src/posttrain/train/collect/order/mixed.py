"""How the rows of several sources follow one another, by weights and phases."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np

from posttrain.train.collect.order.passes import Passes, Shuffled


@dataclass(frozen=True, slots=True)
class Mixed:
    """How the rows of several sources follow one another.

    names: of the sources. sizes: rows of each; they lie end to end in the data. phases: the place in the run at which each
    ends, and the weight of each source in it, 0 where it is not read; the last goes on where the run does.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    phases: tuple[tuple[int, tuple[int, ...]], ...]

    def reads_all(self, epochs: float) -> bool:
        """Whether so many passes over all the rows are so many over those of each source, give or take a row."""
        counts = self.counts(math.ceil(Fraction(str(epochs)) * sum(self.sizes)))
        return all(abs(count - Fraction(str(epochs)) * size) <= 1 for count, size in zip(counts, self.sizes, strict=True))

    def counts(self, places: int) -> list[int]:
        """How many of the first rows of the run are of each source."""
        counts, begins = [0] * len(self.sizes), 0
        for number, (ends, weights) in enumerate(self.phases):
            last = number == len(self.phases) - 1
            length = places - begins if last else min(places, ends) - begins
            counts = [had + more for had, more in zip(counts, _turns(weights).counts(length), strict=True)]
            if last or places <= ends:
                break
            begins = ends
        return counts


class MixedRows:
    """Rows of several sources by their weights: the next is of the source that Tijdeman's rule says, and the next of that
    source's own passes, each in a random order of its own. Of one source they are that source's.

    Args:
        mixed: the sources.
        seed: of all chance.
    """

    def __init__(self, mixed: Mixed, seed: int) -> None:
        self._mixed = mixed
        self._firsts = [sum(mixed.sizes[:number]) for number in range(len(mixed.sizes))]
        self._passes = [Passes(Shuffled(size), seed, number) for number, size in enumerate(mixed.sizes)]

    def at(self, places: range) -> list[tuple[int, int]]:
        """See `Rows`; the pass is that of the example's own source."""
        found = list[tuple[int, int]]()
        for place in places:
            begins, weights = self._phase(place)
            number, rank = _turns(weights).at(place - begins)
            own = _before(self._mixed, begins)[number] + rank
            [(row, epoch)] = self._passes[number].at(range(own, own + 1))
            found.append((self._firsts[number] + row, epoch))
        return found

    def _phase(self, place: int) -> tuple[int, tuple[int, ...]]:
        begins = 0
        for ends, weights in self._mixed.phases[:-1]:
            if place < ends:
                return begins, weights
            begins = ends
        return begins, self._mixed.phases[-1][1]


class Turns:
    """Whose turn it is, for ever, by whole weights: Tijdeman's rule (The chairman assignment problem, 1980;
    recalled).

    Of k sources, with shares w_s that add up to 1, d = 1 / (2k - 2), and the lag σ_s = n · w_s - c_s(n - 1) of each before
    turn n: among those with σ_s >= d it is the turn of the one with the smallest (1 - d - σ_s) / w_s. Then
    |c_s(n) - n · w_s| <= 1 - d at every n. All in whole numbers. After as many turns as the weights add up to all lags are 0,
    and it begins again.
    """

    def __init__(self, weights: Sequence[int]) -> None:
        divisor = math.gcd(*weights)
        self._weights = [weight // divisor for weight in weights]
        self._period = sum(self._weights)
        self._there = [number for number, weight in enumerate(self._weights) if weight]
        self._counts = [0] * len(self._weights)
        self._whose, self._ranks = array("H"), array("q")

    def at(self, turn: int) -> tuple[int, int]:
        """Whose turn it is, and how many it has had before."""
        whole, rest = divmod(turn, self._period)
        self._reach(rest + 1)
        whose = self._whose[rest]
        return whose, whole * self._weights[whose] + self._ranks[rest]

    def counts(self, turns: int) -> list[int]:
        """How many of the first turns each has."""
        whole, rest = divmod(max(turns, 0), self._period)
        self._reach(rest)
        had = np.bincount(np.frombuffer(self._whose[:rest], np.uint16), minlength=len(self._weights)).tolist()
        return [whole * weight + more for weight, more in zip(self._weights, had, strict=True)]

    def _reach(self, turns: int) -> None:
        weights, counts, period, there = self._weights, self._counts, self._period, self._there
        twice = max(2 * len(there) - 2, 1)  # 1 / d
        for turn in range(len(self._whose) + 1, turns + 1):
            whose, best, of = there[0], 0, 0
            for number in there if len(there) > 1 else ():
                lag = twice * (turn * weights[number] - counts[number] * period)
                urgency = (twice - 1) * period - lag
                if lag >= period and (not of or urgency * of < best * weights[number]):
                    whose, best, of = number, urgency, weights[number]
            self._whose.append(whose)
            self._ranks.append(counts[whose])
            counts[whose] += 1


@lru_cache(maxsize=16)
def _turns(weights: tuple[int, ...]) -> Turns:
    return Turns(weights)


@lru_cache(maxsize=64)
def _before(mixed: Mixed, begins: int) -> list[int]:
    return mixed.counts(begins)
