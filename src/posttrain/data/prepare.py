"""The records of a source → examples to train on, or problems to answer, with a report of what was left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from posttrain.data.demonstrations import DemonstrationReader
from posttrain.data.encoder import Encoder
from posttrain.data.rows import BadRow, DataReport, Example, LongRow, Problem
from posttrain.data.sources import Record
from posttrain.errors import DataError

_T = TypeVar("_T")


def examples(
    records: Iterable[Record], encoder: Encoder, *, preference: bool, label: str = "the data", skip_bad_rows: bool = False
) -> tuple[list[Example], DataReport]:
    """Demonstrations, or preference pairs.

    Raises:
        DataError: a column is missing, a row is bad and may not be skipped, or no row is left.
    """

    def encode(record: Record) -> Example:
        if preference:
            return Example(encoder.preference(record.columns), record.where)
        return Example((encoder.demonstration(record.columns),), record.where)

    wanted = [("chosen", "rejected")] if preference else [("messages",), ("prompt", "completion")]
    return _all(records, encode, encoder.take_cuts, wanted, label, skip_bad_rows)


def problems(
    records: Iterable[Record],
    encoder: Encoder,
    *,
    needs: Iterable[str] = ("answer",),
    demonstrations: DemonstrationReader | None = None,
    label: str = "the data",
    skip_bad_rows: bool = False,
) -> tuple[list[Problem], DataReport]:
    """Prompts with the columns that answers are graded by: those that `needs` names, and what else the rows have; and
    with their demonstrations, where a reader for them is given.

    Raises:
        DataError: as for `examples`, or not one row has a demonstration that can be used.
    """
    needs = tuple(needs)

    def encode(record: Record) -> Problem:
        columns = dict(record.columns)
        if "answer" in needs:
            columns["answer"] = _answer(record)
        for name in needs:
            if columns.get(name) is None:
                raise BadRow(f"{name} is missing")
        prompt = encoder.prompt(record.columns)
        return Problem(prompt, columns, record.where, demonstrations and demonstrations.read(columns, prompt))

    def notes() -> list[tuple[str, str]]:
        return [*encoder.take_cuts(), *(demonstrations.take_notes() if demonstrations is not None else ())]

    wanted = [("prompt", *needs)]
    if "answer" in needs:
        wanted.append(("prompt", *("solution" if name == "answer" else name for name in needs)))
    kept, report = _all(records, encode, notes, wanted, label, skip_bad_rows)
    if demonstrations is not None and all(problem.demonstration is None for problem in kept):
        raise DataError(
            f"{label}: no row has a demonstration that can be used; the first: {report.notes[0][1]}: {report.notes[0][2]}. "
            "Name their column in the recipe: columns: {demonstration: <your column>}."
        )
    return kept, report


def _answer(record: Record) -> str:
    reference = record.columns.get("answer", record.columns.get("solution"))
    if not isinstance(reference, str) or not reference.strip():
        raise BadRow(f"answer must be text, not {type(reference).__name__}")
    return reference


def _all(
    records: Iterable[Record],
    encode: Callable[[Record], _T],
    notes: Callable[[], list[tuple[str, str]]],
    wanted: list[tuple[str, ...]],
    label: str,
    skip_bad_rows: bool,
) -> tuple[list[_T], DataReport]:
    report, kept = DataReport(), list[_T]()
    first = True
    for record in records:
        if first and record.fault is None:
            _check_columns(record, wanted)
            first = False
        try:
            if record.fault is not None:
                raise BadRow(record.fault)
            kept.append(encode(record))
            for counter, reason in notes():
                report.note(record.where, reason, counter)
        except LongRow as long:
            if long.refused:
                raise DataError(f"{record.where}: {long}. Raise it, or set data.on_{long.counter}: skip.") from None
            report.note(record.where, str(long), long.counter)
        except BadRow as bad:
            if not skip_bad_rows:
                raise DataError(f"{record.where}: {bad}. Mend it, or set data.on_bad_row: skip.") from None
            report.note(record.where, str(bad))
    report.rows = len(kept)
    if not kept:
        raise DataError(f"{label}: no row can be used. {_why(report)}")
    return kept, report


def _check_columns(record: Record, wanted: list[tuple[str, ...]]) -> None:
    if any(all(name in record.columns for name in names) for names in wanted):
        return
    needed = " or ".join(" + ".join(names) for names in wanted)
    missing = next(name for name in wanted[-1] if name not in record.columns)
    raise DataError(
        f"{record.where}: the columns {needed} are needed; the row has {', '.join(record.columns) or 'none'}. "
        f"Name them in the recipe: columns: {{{missing}: <your column>}}."
    )


def _why(report: DataReport) -> str:
    if not report.notes:
        return "The source is empty."
    _, where, reason = report.notes[0]
    return f"All {len(report.notes)} were left out; the first: {where}: {reason}."
