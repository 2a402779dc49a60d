"""What is kept of a model's answers → rows: columns of a record, which are encoded like any other's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from posttrain.data.columns import DEMONSTRATIONS, LABELS, WEIGHTS
from posttrain.data.sources import Record
from posttrain.errors import DataError
from posttrain.execution.prepare.collect.answer import Answer, Written
from posttrain.settings.data import Column
from posttrain.settings.data.generate import PAIRED, Generate

Columns = Mapping[str, Any]
WHOLE = ("messages", "text", "completion", *LABELS, *WEIGHTS)
"""What a row is read from in place of its prompt and of a completion that is written now, and what that one was worth."""
OF_THE_QUESTION = get_args(Column)
OTHERS = {
    "chosen": ("rejected", *DEMONSTRATIONS),
    "rejected": ("chosen", *DEMONSTRATIONS, "reference"),
}
"""Where the data have the other side of what is written; of each row the first that is there."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A row as it came to a step, and its columns as a question: a conversation is its prompt, and its last answer."""

    record: Record
    columns: Columns


def rows_of(step: Generate, asked: Asked, written: Written, kept: Sequence[Answer], others: Sequence[Answer]) -> list[Record]:
    """The rows that stand for one that was asked; none where nothing is made of it, and it is not to stay.

    Args:
        step: says what the answers become.
        asked: the row.
        written: all that was written for it.
        kept: of its answers those that are kept.
        others: the other sides of pairs, where they are its own answers.

    Raises:
        DataError: the row has no prompt that the answers could be answers to.
    """
    if kept and step.made not in ("prompt", "text", "column") and not asked.columns.get("prompt"):
        raise DataError(f"{asked.record.where}: as: {step.made} is said of a prompt, and the row has none: take as: text.")
    made = _pairs(step, asked, kept, others) if step.made in PAIRED else _rows(step, asked, kept)
    if written.majority is not None and step.made != "text":
        made = [{**one, "answer": written.majority} for one in made]
    stays = step.source == "keep" or (step.source == "fallback" and not made)
    where = asked.record.where
    fresh = [
        Record(where if len(made) == 1 and not stays else f"{where}#{i}", one, made=True) for i, one in enumerate(made, 1)
    ]
    return [*([asked.record] if stays else []), *fresh]


def _rows(step: Generate, asked: Asked, kept: Sequence[Answer]) -> list[dict[str, Any]]:
    if step.column is not None:
        return [{**asked.record.columns, step.column: one.text, **_worth(one)} for one in kept]
    return MADE[step.made](asked.columns, kept)


def _worth(one: Answer) -> dict[str, float]:
    """What the verdict says, where there is one, as the column that says it elsewhere."""
    return {} if one.right is None else {"reward": float(one.right)}


def _completions(base: Columns, kept: Sequence[Answer]) -> list[dict[str, Any]]:
    return [{**_without(base, WHOLE), "completion": one.text, **_worth(one)} for one in kept]


def _demonstrations(base: Columns, kept: Sequence[Answer]) -> list[dict[str, Any]]:
    return [{**base, "demonstration": one.text} for one in kept[:1]]


def _answers(base: Columns, kept: Sequence[Answer]) -> list[dict[str, Any]]:
    return [{**base, "answer": one.text} for one in kept[:1]]


def _prompts(base: Columns, kept: Sequence[Answer]) -> list[dict[str, Any]]:
    return [{**_without(base, OF_THE_QUESTION), "prompt": one.text} for one in kept]


def _texts(base: Columns, kept: Sequence[Answer]) -> list[dict[str, Any]]:
    return [{**_without(base, OF_THE_QUESTION), "text": one.text, **_worth(one)} for one in kept]


MADE: dict[str, Callable[[Columns, Sequence[Answer]], list[dict[str, Any]]]] = {
    "completion": _completions,
    "demonstration": _demonstrations,
    "answer": _answers,
    "prompt": _prompts,
    "text": _texts,
}
"""By what they become; sides of pairs are `_pairs`, and a column of any name is `_rows`'s own."""


def _pairs(step: Generate, asked: Asked, kept: Sequence[Answer], others: Sequence[Answer]) -> list[dict[str, Any]]:
    """Each answer against one of the others, the first against the first; equal ones are no pair."""
    if step.other_side == "own":
        sides = [(one.text, other.text) for one, other in zip(kept, others, strict=False)]
    else:
        given = asked.record.columns
        said = next((text for name in OTHERS[step.made] if (text := _said(given.get(name))) is not None), None)
        sides = [(one.text, said) for one in kept if said is not None]
    (other,) = {*PAIRED} - {step.made}
    plain = _without(asked.columns, (*WHOLE, "demonstration"))
    return [{**plain, step.made: one, other: text} for one, text in sides if one.strip() != text.strip()]


def _said(value: Any) -> str | None:
    """An answer's text: itself, the steps that it is a list of, or what the assistant says last."""
    if isinstance(value, (list, tuple)) and value:
        if all(isinstance(step, str) for step in value):
            return "".join(value)
        last: Any = value[-1]
        value = last.get("content") if isinstance(last, Mapping) and last.get("role") == "assistant" else None
    return value if isinstance(value, str) and value.strip() else None


def _without(columns: Columns, names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in columns.items() if name not in names}
