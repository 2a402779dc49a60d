"""Which examples a step trains on: a pure function of (seed, position), so that a resumed run needs nothing else."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

SOURCE = 48  # bits of an epoch's number, above which the source's stands in the key of its permutation


def examples_of_epochs(epochs: float, examples: int) -> int:
    """How many examples so many passes over a data set read; of a part of one, what is begun. 0.7 of ten are seven."""
    return math.ceil(Fraction(str(epochs)) * examples)


@dataclass(frozen=True, slots=True)
class Order:
    """Epochs are permutations laid end to end, each of its own (seed, epoch), and cut into steps.

    examples: of the data set. per_step: of an optimizer step. end: examples that the run reads in all, so that its last step
    may be smaller; None: every step is whole.
    """

    examples: int
    per_step: int
    seed: int
    end: int | None = None

    def turns(self, step: int, steps: int = 1) -> list[tuple[int, int]]:
        """Of `steps` steps, from `step` on, each example with the number of the pass that it is read in. Those after the end
        have none.
        """
        return [
            (int(_permutation(self.examples, epoch, self.seed)[place]), epoch)
            for epoch, place in (divmod(position, self.examples) for position in self.positions(step, steps))
        ]

    def of(self, step: int, steps: int = 1) -> list[int]:
        """The same examples alone."""
        return [example for example, _ in self.turns(step, steps)]

    def positions(self, step: int, steps: int) -> range:
        """The places of these steps in the run."""
        positions = range(step * self.per_step, (step + steps) * self.per_step)
        return positions if self.end is None else range(positions.start, min(positions.stop, self.end))


@dataclass(frozen=True, slots=True)
class Mixed:
    """How the rows of several sources follow one another.

    names: of the sources. sizes: rows of each; they lie end to end in the data. phases: the place in the run at which each
    ends, and the weight of each source in it, 0 where it is not read; the last goes on where the run does.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    phases: tuple[tuple[int, tuple[int, ...]], ...]

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


@dataclass(frozen=True, slots=True)
class MixedOrder(Order):
    """Rows of several sources by their weights: the next is of the source that Tijdeman's rule says, and the next of that
    source's own order, which is a permutation of its own (seed, source, epoch) for each of its passes. Of one source it is
    the order of that source.

    mixed: the sources, which are the `examples`.
    """

    mixed: Mixed = field(kw_only=True)

    def turns(self, step: int, steps: int = 1) -> list[tuple[int, int]]:
        """See `Order`; the pass is that of the example's own source."""
        firsts = [sum(self.mixed.sizes[:number]) for number in range(len(self.mixed.sizes))]
        passes: dict[tuple[int, int], NDArray[np.int64]] = {}
        found: list[tuple[int, int]] = []
        for position in self.positions(step, steps):
            begins, weights = self._phase(position)
            number, rank = _turns(weights).at(position - begins)
            epoch, place = divmod(_before(self.mixed, begins)[number] + rank, self.mixed.sizes[number])
            if (number, epoch) not in passes:
                passes[number, epoch] = _passes(self.mixed.sizes[number], number, self.seed).of(epoch)
            found.append((firsts[number] + int(passes[number, epoch][place]), epoch))
        return found

    def _phase(self, position: int) -> tuple[int, tuple[int, ...]]:
        begins = 0
        for ends, weights in self.mixed.phases[:-1]:
            if position < ends:
                return begins, weights
            begins = ends
        return begins, self.mixed.phases[-1][1]


def order_of(examples: int, per_step: int, seed: int, end: int | None, mixed: Mixed | None) -> Order:
    """Of one data set, or of the sources that are mixed in it."""
    if mixed is None:
        return Order(examples, per_step, seed, end)
    return MixedOrder(examples, per_step, seed, end, mixed=mixed)


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


@lru_cache(maxsize=2)
def _permutation(examples: int, epoch: int, seed: int) -> NDArray[np.int64]:
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(examples)


class Passes:
    """The passes over one source of a mixture; the permutation of the latest that was asked for is kept.

    examples: of it. number: its place among the sources, which stands in the key; the first one's are those of a data set by
    itself.
    """

    def __init__(self, examples: int, number: int, seed: int) -> None:
        self._examples, self._number, self._seed = examples, number, seed
        self._epoch, self._permutation = -1, np.zeros(0, np.int64)

    def of(self, epoch: int) -> NDArray[np.int64]:
        """The order of the pass."""
        if epoch != self._epoch:
            key = epoch + (self._number << SOURCE)
            self._epoch, self._permutation = epoch, _permutation.__wrapped__(self._examples, key, self._seed)
        return self._permutation


@lru_cache(maxsize=64)
def _passes(examples: int, number: int, seed: int) -> Passes:
    return Passes(examples, number, seed)
