"""Which examples a step trains on: a pure function of (seed, position), so that a resumed run needs nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


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
        positions = range(step * self.per_step, (step + steps) * self.per_step)
        within = positions if self.end is None else range(positions.start, min(positions.stop, self.end))
        return [
            (int(_permutation(self.examples, epoch, self.seed)[place]), epoch)
            for epoch, place in (divmod(position, self.examples) for position in within)
        ]

    def of(self, step: int, steps: int = 1) -> list[int]:
        """The same examples alone."""
        return [example for example, _ in self.turns(step, steps)]


@lru_cache(maxsize=2)
def _permutation(examples: int, epoch: int, seed: int) -> NDArray[np.int64]:
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(examples)
