"""The rows of a run, in their order, cut into optimizer steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from posttrain.train.collect.order.mixed import Mixed, MixedRows
from posttrain.train.collect.order.passes import Passes, Rule, Shuffled
from posttrain.train.collect.order.steps import ByRows, ByTokens, Rows, Steps


def examples_of_epochs(epochs: float, examples: int) -> int:
    """How many examples so many passes over a data set read; of a part of one, what is begun. 0.7 of ten are seven."""
    return math.ceil(Fraction(str(epochs)) * examples)


class Order:
    """Which rows each optimizer step takes.

    Args:
        rows: in their order.
        steps: where they are cut.
        end: rows that the run reads in all, so that its last step may be smaller; None: every step is whole.
    """

    def __init__(self, rows: Rows, steps: Steps, end: int | None = None) -> None:
        self._rows, self._steps, self._end = rows, steps, end

    def turns(self, step: int, steps: int = 1) -> list[tuple[int, int]]:
        """Of `steps` steps, from `step` on, each example with the number of the pass that it is read in. Those after the end
        have none.
        """
        return self._rows.at(range(self._begins(step), self._begins(step + steps)))

    def of(self, step: int, steps: int = 1) -> list[int]:
        """The same examples alone."""
        return [example for example, _ in self.turns(step, steps)]

    def sizes(self, step: int, steps: int) -> list[int]:
        """How many examples each of these steps takes."""
        return [self._begins(one + 1) - self._begins(one) for one in range(step, step + steps)]

    def read(self, steps: int) -> int:
        """How many examples the first so many steps take."""
        return self._begins(steps)

    def steps(self, examples: int) -> int:
        """How many steps it takes to read the first so many examples."""
        return self._steps.holding(examples)

    def _begins(self, step: int) -> int:
        begins = self._steps.begins(step)
        return begins if self._end is None else min(begins, self._end)


def order_of(
    examples: int,
    per_step: int,
    seed: int,
    end: int | None = None,
    mixed: Mixed | None = None,
    rule: Rule | None = None,
    *,
    lengths: Sequence[int] | None = None,
) -> Order:
    """Of one data set, in random order or by a rule, or of the sources that are mixed in it.

    Args:
        examples: of the data set.
        per_step: of them in a step; or tokens of one, where `lengths` are given.
        seed: of all chance.
        end: examples that the run reads in all; None: every step is whole.
        mixed: the sources, which are the `examples`.
        rule: of one data set.
        lengths: tokens of each example.
    """
    rows = Passes(rule or Shuffled(examples), seed) if mixed is None else MixedRows(mixed, seed)
    return Order(rows, ByRows(per_step) if lengths is None else ByTokens(per_step, lengths, rows), end)
