"""Evaluations of runs at the points that matter, as rows of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posttrain.execution.report.curves import number_of
from posttrain.execution.report.record import Record
from posttrain.train.watch.names import LOWER_IS_BETTER, place_of


@dataclass(frozen=True)
class Results:
    """columns: a run and a point of it each. rows: a metric's name, and its cells."""

    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str]]]


def result_rows(records: Sequence[Record]) -> Results:
    """Of one run its start and what came after; of several the last evaluation of each."""
    columns: list[tuple[str, Mapping[str, Any]]] = []
    for record in records:
        points = list(record.points.items())
        columns += points if len(records) == 1 else [(record.name, points[-1][1])] if points else []
    names = sorted({name for _, metrics in columns for name in metrics if place_of(name) is not None}, key=_key)
    rows = [(_title(name), [_cell(metrics, name) for _, metrics in columns]) for name in names]
    return Results([title for title, _ in columns], rows)


def _key(name: str) -> tuple[str, int, str]:
    return name.split("/")[1], place_of(name) or 0, name


def _title(name: str) -> str:
    _, held_out, metric = name.split("/", 2)
    return f"{held_out}: {metric}" + (" (lower is better)" if LOWER_IS_BETTER.match(metric) and metric != "length" else "")


def _cell(metrics: Mapping[str, Any], name: str) -> str:
    if name not in metrics:
        return ""
    if f"{name}/low" not in metrics:
        return number_of(metrics[name])
    return f"{number_of(metrics[name])} [{number_of(metrics[f'{name}/low'])}, {number_of(metrics[f'{name}/high'])}]"
