"""Records of a source, each with the place that it came from."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from random import Random
from typing import Any

from posttrain.data.sources import gym
from posttrain.data.sources.files import files_of, read_file, through_datasets
from posttrain.data.sources.formats import shaped
from posttrain.data.sources.record import Record
from posttrain.data.tasks import generate
from posttrain.errors import DataError
from posttrain.settings.data import EnvironmentSource, GymSource, HubSource, PathSource, Source, TaskSource
from posttrain.settings.data.sources import Tasks

__all__ = ["Record", "read", "records_of"]


def read(source: Source) -> Iterator[Record]:
    """The records of a source, in order.

    Raises:
        DataError: it cannot be found or read at all, or a column that the recipe names is in none of its rows.
    """
    if isinstance(source, TaskSource):
        return _task(source)
    if isinstance(source, GymSource):
        return gym.records(source)
    if isinstance(source, EnvironmentSource):
        return _tasks(source.environment)
    raw = _path(source) if isinstance(source, PathSource) else _hub(source)
    return (shaped(record, source.format) for record in _mapped(itertools.islice(raw, source.limit), source))


def records_of(rows: Iterable[Mapping[str, Any]]) -> Iterator[Record]:
    """The same of rows that are in memory."""
    return (shaped(Record(f"row {number}", dict(columns)), None) for number, columns in enumerate(rows, 1))


def _mapped(records: Iterable[Record], source: PathSource | HubSource) -> Iterator[Record]:
    """Under our names.

    Raises:
        DataError: at the end, if a column that the recipe names is in no row: what it is for would be left out in silence.
    """
    lacking, first = dict(source.columns), None
    for record in records:
        if record.fault is None:
            first = first or record
            lacking = {ours: theirs for ours, theirs in lacking.items() if theirs not in record.columns}
        yield _renamed(record, source)
    if first is not None and lacking:
        ours, theirs = next(iter(lacking.items()))
        raise DataError(
            f"{first.where}: columns looks for {ours} in {theirs}, which no row has; this one has {', '.join(first.columns)}."
        )


def _renamed(record: Record, source: PathSource | HubSource) -> Record:
    if record.fault is not None or not (source.columns or source.unused):
        return record
    kept = {name: value for name, value in record.columns.items() if name not in {*source.columns, *source.unused}}
    named = {ours: record.columns[theirs] for ours, theirs in source.columns.items() if theirs in record.columns}
    return Record(record.where, {**kept, **named}, mapped={str(ours): theirs for ours, theirs in source.columns.items()})


def _task(source: TaskSource) -> Iterator[Record]:
    slips = Random(f"slips/{source.seed}")
    try:
        for number, item in enumerate(generate(source.task, source.split, source.rows, source.seed, source.hard), 1):
            slipped = slips.random() < source.wrong
            shown = item.rejected if slipped else item.completion
            columns = {"prompt": item.prompt, "completion": shown, "rejected": item.rejected, "answer": item.answer}
            right = {"chosen": item.completion, "reference": item.completion}
            worth = {"reward": float(not slipped), "value": 1 - source.wrong, "forget": slipped} if source.wrong else {}
            yield Record(
                f"{source.task}/{source.split}:{number}",
                {**columns, **worth, **right},
            )
    except ValueError as error:
        raise DataError(str(error)) from None


def _tasks(asked: Tasks) -> Iterator[Record]:
    """Which tasks are asked for: the environment makes them."""
    for number in range(asked.rows):
        columns = {"split": asked.split, "seed": asked.seed, "number": number}
        yield Record(f"environment/{asked.split}:{number + 1}", columns)


def _path(source: PathSource) -> Iterator[Record]:
    return itertools.chain.from_iterable(map(read_file, files_of(source.path)))


def _hub(source: HubSource) -> Iterator[Record]:
    return through_datasets(source.hub, source.hub, **source.loaded, **({"streaming": True} if source.stream else {}))
