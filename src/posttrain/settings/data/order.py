"""In which order rows are read, in place of a random one. No torch here."""

from __future__ import annotations

from typing import Annotated, Literal, Union

from pydantic import Field, model_validator

from posttrain.settings.base import Config

LENGTH = "length"
"""What rows are ordered by that is no column: the tokens that the model reads of a row, or of a question."""

Column = Annotated[str, Field(min_length=1)]


class ByRule(Config):
    """What all orders are asked for."""

    by: Column
    """What is known of each row: length, its tokens; or a column."""

    @property
    def numbers(self) -> tuple[str, ...]:
        """The columns that must be a number in every row."""
        return () if self.by == LENGTH else (self.by,)

    @property
    def categories(self) -> tuple[str, ...]:
        """The column that must be a category in every row, if there is one."""
        return ()

    @property
    def columns(self) -> tuple[str, ...]:
        """All that are read."""
        return (*self.categories, *self.numbers)

    @property
    def passes_differ(self) -> bool:
        """A pass may read a part of the rows."""
        return False

    def __str__(self) -> str:
        return f"by {self.by}, {getattr(self, 'rule', '')}"


class SortedOrder(ByRule):
    """Each pass by a number: a curriculum, from what is easy to what is hard, or back."""

    rule: Literal["ascending", "descending"]
    """The smallest number first, or the largest."""


class CyclicalOrder(ByRule):
    """Passes over a part of the rows, drawn with chances of 1 / by, grow to all of them and shrink again."""

    rule: Literal["cyclical"]
    """By its name."""
    least: Annotated[float, Field(gt=0, le=1)] = 0.25
    """The share of the rows that the smallest pass reads."""
    factor: Annotated[float, Field(gt=1)] = 2.0
    """By which a pass is larger than the one before it, or smaller."""

    @property
    def passes_differ(self) -> bool:
        """See `ByRule`."""
        return self.least < 1


class CategoryOrder(ByRule):
    """Each pass by categories: one after another, or each of them evenly over all of it."""

    rule: Literal["blocked", "interleaved"]
    """One category after another, or all in turn."""
    within: Column | None = None
    """By what rows of one category are ordered, the smallest first: length, or a column; in random order if not set."""

    @property
    def numbers(self) -> tuple[str, ...]:
        """See `ByRule`."""
        return () if self.within in (None, LENGTH) else (self.within,)

    @property
    def categories(self) -> tuple[str, ...]:
        """See `ByRule`."""
        return (self.by,)

    @model_validator(mode="after")
    def _is_by_a_column(self) -> CategoryOrder:
        if self.by == LENGTH:
            raise ValueError(f"by: length is a number, and {self.rule} takes a column of categories: name one")
        if self.within == self.by:
            raise ValueError(f"within: {self.within} is the same in all rows of a category: name another column, or length")
        return self

    def __str__(self) -> str:
        return f"by {self.by}, {self.rule}" + (f", in each by {self.within}, ascending" if self.within else "")


class GrowingOrder(ByRule):
    """Texts in rows that grow: as many lengths as it takes from the least to window.length, each for an equal share of all
    tokens, one after another.
    """

    rule: Literal["growing"]
    """By its name."""
    least: Annotated[int, Field(ge=2)] = 128
    """Tokens of the first rows."""
    factor: Annotated[int, Field(ge=2)] = 2
    """By which rows are longer than those before them; the last are of window.length."""

    @model_validator(mode="after")
    def _is_by_length(self) -> GrowingOrder:
        if self.by != LENGTH:
            raise ValueError(f"by: rows that grow do so by length, and not by {self.by}")
        return self

    def lengths(self, longest: int) -> list[int]:
        """Of rows, up to the longest."""
        found = [self.least]
        while found[-1] * self.factor < longest:
            found.append(found[-1] * self.factor)
        return [*found, longest]


AnyOrder = Annotated[Union[SortedOrder, CyclicalOrder, CategoryOrder, GrowingOrder], Field(discriminator="rule")]  # noqa: UP007
