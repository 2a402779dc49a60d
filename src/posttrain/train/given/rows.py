"""Rows as a user hands them over, prepared or as a data set → examples and questions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from posttrain.data.columns import tell_unread
from posttrain.data.encoding.teacher import Asked
from posttrain.data.reader import Reader
from posttrain.data.rows import Example, Problem
from posttrain.data.sources import records_of
from posttrain.data.weights import Worth
from posttrain.errors import DataError
from posttrain.estimator.needs import Needs
from posttrain.model.load import context_of
from posttrain.model.pretrained.tokenizer import eos_ids
from posttrain.rewards.base import Reward, Wanted, Weighted
from posttrain.rewards.demonstrations import demonstration_faults
from posttrain.settings.data import Encoding


def read_as(needs: Needs, *, held_out: bool = False) -> dict[str, Any]:
    """What an algorithm takes a row of data for, in the words of `as_examples` and of `Reader.examples`. What is to be said
    may be measured of one that forgets.
    """
    unwanted = None if held_out and needs.unwanted else needs.unwanted
    return {"sides": needs.sides, "crossed": needs.crossed, "worth": needs.weight, "unwanted": unwanted}


def as_examples(
    data: Any,
    model: Any,
    tokenizer: Any,
    *,
    sides: tuple[str, ...] = (),
    crossed: int = 0,
    worth: Worth = "none",
    unwanted: bool | None = False,
    teacher: Asked | None = None,
    label: str = "the data",
) -> list[Example]:
    """Prepared examples as they are; a data set with TRL's columns, rendered with the tokenizer's chat template.

    Raises:
        DataError: a column is missing, a row is bad, or a prepared one has no weight, or nothing for its teacher, where the
            algorithm asks for it.
    """
    if len(data) and isinstance(data[0], Example):
        unit = crossed**2 or max(len(sides), 1)
        if odd := {len(example.rows) for example in data} - {unit}:
            raise DataError(f"{label}: prepared examples must have {unit} rows each, and some have {min(odd)}.")
        if teacher is not None:
            _check_taught(
                teacher,
                [(one.where, len(row.as_taught), row.teacher_prompt) for one in data for row in one.rows],
                label,
                "examples",
            )
        if worth != "none" and any(row.weight is None for example in data for row in example.rows):
            raise DataError(f"{label}: prepared rows must have a weight: Reader.examples(…, worth={worth!r}) makes them.")
        return list(data)
    examples, report = _reader(model, tokenizer).examples(
        records_of(data),
        sides=sides,
        crossed=crossed,
        worth=worth,
        unwanted=unwanted,
        teacher=teacher,
        label=label,
    )
    tell_unread(label, [report])
    return examples


def as_problems(
    data: Any,
    model: Any,
    tokenizer: Any,
    *,
    rewards: Iterable[Reward | Weighted],
    max_tokens: int,
    demonstrated: tuple[str, ...] = (),
    teacher: Asked | None = None,
    numbers: tuple[str, ...] = (),
) -> list[Problem]:
    """The same for questions to be answered, with the columns that the rewards read and the algorithm compares them with, and
    with right demonstrations.

    Raises:
        DataError: a column is missing, a row is bad, no demonstration can be used, or a prepared question has nothing for its
            teacher.
    """
    if len(data) and isinstance(data[0], Problem):
        if teacher is not None:
            taught = [(one.where, len(one.teacher_prompt or one.prompt) + max_tokens, one.teacher_prompt) for one in data]
            _check_taught(teacher, taught, "the data", "problems")
        if numbers and any(name not in problem.columns for problem in data for name in numbers):
            raise DataError(f"the data: prepared questions must have the column {numbers[0]}, which the algorithm reads.")
        return list(data)
    judges = weighted(rewards)
    wanted = Wanted.by(judges)
    asked, report = _reader(model, tokenizer).problems(
        records_of(data),
        room=max_tokens,
        needs=wanted.columns,
        numbers=numbers,
        anything=wanted.anything,
        demonstrated=demonstrated,
        faults=None if "rejected" in demonstrated else demonstration_faults(judges, tokenizer),
        teacher=teacher,
    )
    tell_unread("the data", [report])
    return asked


def _check_taught(teacher: Asked, rows: Iterable[tuple[str, int, Any]], label: str, made: str) -> None:
    """That prepared rows have what their teacher is asked, and are no longer for it than it reads, answers whole.

    Raises:
        DataError: one has or is not.
    """
    for where, length, prompt in rows:
        if teacher.template and prompt is None:
            raise DataError(f"{label}: prepared rows must have a teacher_prompt: Reader.{made}(…, teacher=…) makes them.")
        if teacher.context is not None and length > teacher.context:
            raise DataError(
                f"{where}: the teacher would read {length} tokens, and knows {teacher.context}: leave the row out."
            )


def weighted(rewards: Iterable[Reward | Weighted]) -> list[Weighted]:
    """A reward by itself has weight 1."""
    return [reward if isinstance(reward, Weighted) else Weighted(reward) for reward in rewards]


def _reader(model: Any, tokenizer: Any) -> Reader:
    return Reader(encoding_of(tokenizer), tokenizer, eos_ids(model, tokenizer), context_of(model))


def encoding_of(tokenizer: Any) -> Encoding:
    """How the rows of a data set are rendered that is not prepared."""
    return Encoding(chat_template=bool(tokenizer.chat_template))
