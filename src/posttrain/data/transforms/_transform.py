"""What a transform is: the columns of a row → the columns of none, one or several rows, before anything is encoded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, Field

from posttrain.data.columns import TemplateFields
from posttrain.data.rows import BadRow
from posttrain.data.sources.record import Record
from posttrain.settings.base import Config

T = TypeVar("T")
Columns = dict[str, Any]
Transform = Callable[[Record, Random], Sequence[Columns]]
"""(record, its own random numbers) → the columns of what becomes of it. It raises BadRow where the row cannot be used, and
`Unfit` where it is left out, whatever is to become of bad rows."""
Rows = Callable[[], Iterator[Record]]
"""Reads what is trained on once more, as it is before the transform."""
Side = Literal["train", "eval"]
"""data.train with data.demonstrations, or all sets of data.eval."""


def _once_each(sets: list[Side]) -> list[Side]:
    if len({*sets}) < len(sets):
        raise ValueError(f"{', '.join(sets)}: each is named once")
    return sets


def _shows(name: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if f"{{{name}}}" not in text:
            raise ValueError(f"{{{name}}} must stand in it, in whose place the {name} is put")
        return text

    return check


def holds(name: str) -> Any:
    """That a text has this field, which is filled by `str.replace`: braces around it are braces."""
    return AfterValidator(_shows(name))


class Unfit(ValueError):
    """A row that a transform makes nothing of; the message is the reason."""


class TransformConfig(Config, ABC):
    """The options of one transform."""

    package: ClassVar[str | None] = None
    """Of Python, that it needs beside what this package brings."""
    extra: ClassVar[str] = ""
    """Of this package, that brings it."""

    name: str
    """Which transform; the other keys here are its options."""
    sets: Annotated[list[Side], Field(min_length=1), AfterValidator(_once_each)] = ["train"]
    """train: data.train and data.demonstrations; eval: all sets of data.eval. What changes how questions are asked is seldom
    meant for one of them alone."""

    @property
    def label(self) -> str:
        """What it is called where it is told of."""
        return self.name

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """Those that it reads: a row without a value in one of them is refused."""

    @abstractmethod
    def build(self, rows: Rows) -> Transform:
        """The transform that these options describe. One that needs to know all of what is trained on reads `rows`;
        what is wrong with one of them is told when it is transformed.

        Raises:
            ValueError: it cannot be had.
            BadRow: what is trained on has nothing that it could be made of.
        """


def usable(rows: Rows, read: Callable[[Columns], T]) -> Iterator[T]:
    """What is read of each row, of those of which it can be read."""
    for record in rows():
        try:
            yield read(record.columns)
        except BadRow:  # told when the row is transformed
            continue


def filled(template: str, columns: Mapping[str, Any]) -> str:
    """A template of a transform, with a row's columns in it.

    Raises:
        BadRow: they do not fit.
    """
    try:
        return template.format_map(TemplateFields(columns, "template"))
    except BadRow:
        raise
    except (ValueError, TypeError) as error:
        raise BadRow(f"template does not fit the row: {error}") from None


def text_of(columns: Mapping[str, Any], name: str) -> str:
    """A column that must be text.

    Raises:
        BadRow: it is not.
    """
    value = columns.get(name)
    if not isinstance(value, str):
        raise BadRow(f"{name} must be text, not {type(value).__name__}")
    return value
