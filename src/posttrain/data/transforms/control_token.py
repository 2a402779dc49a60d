"""Conditional training: what is said before a row tells what it is like, and is chosen when the model is asked.

Pretraining Language Models with Human Preferences (arXiv:2302.08582, and its code): each segment of text begins with
<|aligned|> where its score is within a threshold, and else with <|misaligned|>; 1 % of them begin with neither; the language
modelling loss is on all of the text, and not on the prefix. Asked after <|aligned|> the model says what is like that.

The same with the name of where a row comes from (Source Prompt, doi:10.1145/3627673.3679835; the domain name of Physics of
Language Models: Part 3.3, arXiv:2404.05405; both from their abstracts). Ours: high scores are good ones; the prefix is
words of the text to the tokenizer, unless it knows a special token of that name and data.special_tokens says tokens; and
the threshold is the median, or where the least score is half of them or more, the least one above it, so that scores of 0
and 1 fall apart.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable
from random import Random
from typing import Annotated, Any, Literal

from pydantic import model_validator

from posttrain.data.columns import is_number, number_of
from posttrain.data.rows import BadRow
from posttrain.data.sources.record import Record
from posttrain.data.transforms._transform import Columns, Rows, Transform, TransformConfig, holds, usable
from posttrain.settings.base import Share
from posttrain.telling import tell

WITHOUT = 0.01  # of the rows, as in the paper
PREFIX = "<|{value}|>"


class ControlToken(TransformConfig):
    """What is said before a prompt or a text tells where the row is from, or whether its score is high; without loss."""

    name: Literal["control_token"] = "control_token"
    column: str | None = None
    """What the prefix depends on: a name, or with `high` and `low` a number."""
    prefix: Annotated[str, holds("value")] = PREFIX
    """What is put before the row, with the column's value in it."""
    high: str | None = None
    """Put before rows whose number is at least the threshold."""
    low: str | None = None
    """Put before the others."""
    threshold: float | None = None
    """Of the numbers: the median of what is trained on if not set, or where half of them or more are the least, the least one
    above it."""
    always: str | None = None
    """Put before every row, in place of what a column says: how evaluation sets are asked."""
    without: Share | None = None
    """The share of rows that nothing is put before: 0.01 if not set, and with `always` 0."""

    @model_validator(mode="after")
    def _says_one_thing(self) -> ControlToken:
        if (self.column is None) == (self.always is None):
            raise ValueError("give either column, what the prefix depends on, or always, the same for all rows")
        if (self.high is None) != (self.low is None):
            raise ValueError("high and low belong together: two prefixes, for the high scores and for the others")
        if self.high is None and self.threshold is not None:
            raise ValueError("threshold: it tells high scores from others: give high and low, the prefix of each")
        if self.always is not None and (self.high is not None or self.prefix != PREFIX):
            raise ValueError("always is the whole prefix: leave prefix, high and low out")
        if self.high is not None and self.prefix != PREFIX:
            raise ValueError("high and low are the whole prefixes: leave prefix out")
        if self.high is not None and self.high == self.low:
            raise ValueError(f"high and low are both {self.high!r}: nothing would tell them apart")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """What the prefix depends on."""
        return () if self.column is None else (self.column,)

    def build(self, rows: Rows) -> Transform:
        """The prefix by a row's value, and nothing in a share of the rows."""
        prefix = self._prefixes(rows)
        without = self.without if self.without is not None else WITHOUT if self.always is None else 0.0

        def controlled(record: Record, rng: Random) -> list[Columns]:
            said = prefix(record.columns)
            return [before(record.columns, said) if rng.random() >= without else record.columns]

        return controlled

    def _prefixes(self, rows: Rows) -> Callable[[Columns], str]:
        column, high, low, always = self.column, self.high, self.low, self.always
        if column is None:
            return lambda columns: str(always)
        if high is None or low is None:
            return lambda columns: self.prefix.replace("{value}", _name(columns[column], column))
        threshold = self.threshold
        if threshold is None:
            threshold = _middle(usable(rows, lambda columns: number_of(columns.get(column), column)), column)
            tell("control-threshold", f"data.transforms: control_token: {column} is high from {threshold:g} on ({high}).")
        return lambda columns: high if number_of(columns[column], column) >= threshold else low


def before(columns: Columns, said: str) -> Columns:
    """The row with something said before its prompt, the first turn of the user in its messages, and its text, each where it
    has one.

    Raises:
        BadRow: it has none of them.
    """
    changed: Columns = {}
    for name in ("prompt", "messages"):
        value = columns.get(name)
        if isinstance(value, str):
            changed[name] = said + value
        elif value is not None:
            changed[name] = _before_first(value, said, name)
    if columns.get("text") is not None:
        changed["text_prefix"] = (columns.get("text_prefix") or "") + said
    if not changed:
        raise BadRow("it has no prompt, messages or text that something could be put before")
    return {**columns, **changed}


def _before_first(messages: Any, said: str, name: str) -> list[Any]:
    turns: list[Any] = list(messages) if isinstance(messages, (list, tuple)) else []
    for i, turn in enumerate(turns):
        if isinstance(turn, dict) and turn.get("role") == "user" and isinstance(turn.get("content"), str):
            return [*turns[:i], {**turn, "content": said + turn["content"]}, *turns[i + 1 :]]
    raise BadRow(f"{name} has no turn of the user whose content is text")


def _name(value: Any, column: str) -> str:
    if not isinstance(value, str) and not is_number(value):
        raise BadRow(f"{column} must be text or a number, not {type(value).__name__}")
    return str(value)


def _middle(scores: Iterable[float], column: str) -> float:
    """The median, the upper of two; or the least number above the least, where that is the median and there is one."""
    found = sorted(array("d", scores))
    if not found:
        raise BadRow(f"no row that is trained on has a number in the column {column}, which tells high from low")
    middle = found[len(found) // 2]
    above = bisect_right(found, found[0])
    return found[above] if middle == found[0] and above < len(found) else middle
