"""The records of a set → examples to train on, or problems to answer, with a report of what was left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np

from posttrain.data.answers import is_conversation
from posttrain.data.columns import Use, check_columns, keys_of, number_of
from posttrain.data.demonstrations import Faults, only_right, read_demonstration, reference_of
from posttrain.data.encoding.encoder import Encoder
from posttrain.data.encoding.prompts import Notes, tell_counts
from posttrain.data.encoding.teacher import Asked, TeacherPrompts
from posttrain.data.rows import BadRow, DataReport, Example, LongRow, Problem
from posttrain.data.sources import Record
from posttrain.data.weights import COLUMNS, ONE_OF, Weigher, Worth
from posttrain.errors import DataError
from posttrain.estimator.needs import CROSSED
from posttrain.settings.data import Encoding
from posttrain.settings.data.order import ByRule

T = TypeVar("T")
Away = Callable[[list[Example], DataReport], None]
"""Is handed what was read until now, after each record, and may take it away from the list and from the report's notes."""


class Reader:
    """Reads the sets of a run in one way.

    Args:
        data: templates, limits and policies.
        tokenizer: of transformers.
        ends: every token that ends an answer.
        context: the model's maximal length; None: it has none.
    """

    def __init__(self, data: Encoding, tokenizer: Any, ends: Sequence[int], context: int | None = None) -> None:
        self._data, self._tokenizer, self._ends, self._context = data, tokenizer, ends, context

    def examples(
        self,
        records: Iterable[Record],
        *,
        sides: tuple[str, ...] = (),
        crossed: int = 0,
        worth: Worth = "none",
        unwanted: bool | None = False,
        teacher: Asked | None = None,
        order: ByRule | None = None,
        label: str = "the data",
        away: Away | None = None,
    ) -> tuple[list[Example], DataReport]:
        """Demonstrations, `unwanted` ones (None: or others), with what they are `worth` and what a `teacher` is asked, where
        that is another prompt; or units of the completions in the columns `sides`, or of `crossed` completions under each of
        as many prompts, without those that were taken `away`. `order` says which columns go along.

        Raises:
            DataError: a column is missing, a row is bad and may not be skipped, or no row is left.
        """
        records, way, weigher = self._examples(records, sides, crossed, worth, unwanted, teacher, order)
        kept, report = self._all(records, way, label, away)
        return weigher.settled(kept, label), report

    def stream(self, records: Iterable[Record], report: DataReport, **read_as: Any) -> Iterator[list[Example]]:
        """The same, record by record, of what is `read_as` `examples` is told; notes are in the report when they are due.

        Raises:
            DataError: as for `examples`, when it comes to that.
        """
        shown, way, _ = self._examples(records, **read_as)
        return self._each(shown, way, report)

    def _examples(
        self,
        records: Iterable[Record],
        sides: tuple[str, ...],
        crossed: int,
        worth: Worth,
        unwanted: bool | None,
        teacher: Asked | None,
        order: ByRule | None = None,
    ) -> tuple[Iterable[Record], _Way[Example], Weigher]:
        told = () if teacher is None else teacher.columns
        kind = "pairs" if sides else "crossed" if crossed else "demonstrations"
        ordered = () if order is None else order.columns
        use = Use(kind, self._data, (*COLUMNS[worth], *sides, *told, *ordered), unwanted=unwanted)
        encoder, weigher, taught = self._encoder(teacher), Weigher(worth, self._tokenizer), self._teacher(teacher)

        def encode(record: Record) -> tuple[list[Example], Notes]:
            columns = use.columns(record)
            keys = keys_of(record.columns, order)
            if sides:
                unit, notes = encoder.preference(columns, sides)
                return [Example(unit, record.where, ordered_by=keys)], notes
            if crossed:
                unit, notes = encoder.crossed(columns, crossed)
                return [Example(unit, record.where, crossed=True, ordered_by=keys)], notes
            if columns.get("text") is not None:
                if taught is not None:
                    raise BadRow("it is a text, which has no prompt that the teacher could be asked another of")
                rows, notes = encoder.text(columns, weigher.of(columns))
                return [Example((row,), record.where, ordered_by=keys) for row in rows], notes
            rows, notes = encoder.demonstrations(columns, weigher.of(columns))
            if taught is not None:
                ids, more = taught.ids(columns, answer=max(len(row.completion) for row in rows))
                rows = [replace(row, teacher_prompt=np.array(ids, np.int32)) for row in rows]
                notes = notes + more
            return [Example((row,), record.where, ordered_by=keys) for row in rows], notes

        together = CROSSED if crossed else sides
        wanted = [together] if together else [("messages",), ("text",), ("prompt", "completion")]
        wanted = [("prompt", "completion", *told)] if told else wanted
        wanted = [(*names, more) for more in reversed(ONE_OF[worth]) for names in wanted] or wanted
        if teacher is not None:
            records = (teacher.shown(record, trained=True) for record in records)
        return records, _Way(encode, use, wanted), weigher

    def problems(
        self,
        records: Iterable[Record],
        *,
        room: int = 1,
        context: int | None = None,
        needs: Iterable[str] = ("answer",),
        numbers: tuple[str, ...] = (),
        anything: bool = False,
        demonstrated: tuple[str, ...] = (),
        faults: Faults | None = None,
        teacher: Asked | None = None,
        order: ByRule | None = None,
        label: str = "the data",
    ) -> tuple[list[Problem], DataReport]:
        """Prompts with the columns that answers are graded by: those that `needs` names, and what else the rows have. Of a
        conversation (`messages`) the last turn of the user is asked, and the assistant's after it is the reference.

        Args:
            records: of the set.
            room: tokens that the prompt must leave free for an answer.
            context: of who answers, where it is smaller than the model's.
            needs: columns.
            numbers: others, which must be numbers.
            anything: any other column may be read as well.
            demonstrated: the columns that a question's demonstration may stand in; of the first that is there.
            faults: why demonstrations are not right; None checks nothing.
            teacher: how one is asked, where it is asked something else.
            order: which columns go along, by which the questions are ordered.
            label: of the set, for messages.

        Raises:
            DataError: as for `examples`, or not one row has a demonstration that can be used.
        """
        needs = tuple(dict.fromkeys((*needs, *numbers, *(() if teacher is None else teacher.columns))))
        ordered = () if order is None else order.columns
        use = Use("questions", self._data, (*needs, *ordered), demonstrated, anything)
        asking, answering = self._encoder(teacher, context, room=room), self._encoder(teacher)
        taught = self._teacher(teacher)

        def encode(record: Record) -> tuple[list[Problem], Notes]:
            columns = use.columns(record)
            if "answer" in needs:
                columns["answer"] = reference_of(columns)
            for name in needs:
                if columns.get(name) is None:
                    raise BadRow(f"{name} is missing")
            columns |= {name: number_of(columns[name], name) for name in numbers}
            prompt, notes = asking.prompt(columns)
            told, cuts = (None, Notes()) if taught is None else taught.ids(columns, answer=room)
            keys = keys_of(record.columns, order)
            problem, notes = Problem(prompt, columns, record.where, None, told, ordered_by=keys), notes + cuts
            if not demonstrated:
                return [problem], notes
            on_long = self._data.on_long_completion
            shown, steps, more = read_demonstration(
                answering, columns, prompt, names=demonstrated, max_tokens=room, on_long=on_long
            )
            return [replace(problem, demonstration=shown, cuts=steps)], notes + more

        wanted = [("prompt", *needs)]
        if "answer" in needs:
            others = ("calls", "solution")
            wanted += [("prompt", *(other if name == "answer" else name for name in needs)) for other in others]
        asked = (_asked(one, bool(demonstrated)) for one in records)
        if teacher is not None:
            asked = (teacher.shown(one, trained=bool(demonstrated)) for one in asked)
        kept, report = self._all(asked, _Way(encode, use, wanted), label)
        if not demonstrated:
            return kept, report
        if all(problem.demonstration is None for problem in kept):
            raise DataError(
                f"{label}: no row has a {demonstrated[0]} that can be used; the first: {report.notes[0][1]}: "
                f"{report.notes[0][2]}. Name their column in the recipe: columns: {{{demonstrated[0]}: <your column>}}."
            )
        return only_right(kept, report, faults, on_wrong=self._data.on_wrong_demonstration), report

    def _encoder(self, teacher: Asked | None, context: int | None = None, room: int = 1) -> Encoder:
        """For rows that all who read them have room for, and so many tokens less one after them."""
        read = {"the model": self._context, "the engine": context, "the teacher": None if teacher is None else teacher.bound}
        known = [(limit - room + 1, who) for who, limit in read.items() if limit is not None]
        limit, who = min(known, key=lambda one: one[0], default=(None, ""))
        return Encoder(self._tokenizer, self._data, self._ends, limit, who)

    def _teacher(self, asked: Asked | None) -> TeacherPrompts | None:
        return None if asked is None or not asked.template else TeacherPrompts(asked, self._tokenizer, self._data, self._ends)

    def _all(
        self, records: Iterable[Record], way: _Way[T], label: str, away: Callable[[list[T], DataReport], None] | None = None
    ) -> tuple[list[T], DataReport]:
        report, kept = DataReport(), list[T]()
        for rows in self._each(records, way, report):
            kept += rows
            if away is not None:
                away(kept, report)
        if not report.rows:
            raise DataError(f"{label}: no row can be used. {_why(report)}")
        tell_counts(report, label)
        return kept, report

    def _each(self, records: Iterable[Record], way: _Way[T], report: DataReport) -> Iterator[list[T]]:
        """What becomes of each record."""
        first = True
        for record in records:
            if first and record.fault is None:
                check_columns(record, way.wanted)
                first = False
            rows = list[T]()
            try:
                if record.fault is not None:
                    raise BadRow(record.fault)
                report.seen += 1
                if record.left_out is not None:
                    counter, reason = record.left_out
                    report.note(record.where, reason, counter)
                else:
                    report.forms.update([record.form] if record.form else [])
                    report.unread.update(way.use.unread(record))
                    rows, notes = way.encode(record)
                    report.rows += len(rows)
                    for counter, reason in notes:
                        report.note(record.where, reason, counter)
            except LongRow as long:
                if long.refused:
                    raise DataError(f"{record.where}: {long}. Raise it, or set data.on_{long.counter}: skip.") from None
                report.note(record.where, str(long), long.counter)
            except BadRow as bad:
                if self._data.on_bad_row == "raise":
                    raise DataError(f"{record.where}: {bad}. Mend it, or set data.on_bad_row: skip.") from None
                report.note(record.where, str(bad))
            yield rows


@dataclass(frozen=True, slots=True)
class _Way(Generic[T]):
    """How records are read: what becomes of one, what its columns are for, and of which columns the first must have some."""

    encode: Callable[[Record], tuple[list[T], Notes]]
    use: Use
    wanted: Sequence[tuple[str, ...]]


def _asked(record: Record, demonstrated: bool) -> Record:
    """A conversation as a question: what stands before the assistant's last turn, whose text is then the reference."""
    messages: Any = record.columns.get("messages")
    if "prompt" in record.columns or not is_conversation(messages):
        return record
    *before, last = messages
    others = {name: value for name, value in record.columns.items() if demonstrated or name != "messages"}
    if last.get("role") != "assistant":
        return replace(record, columns={**others, "prompt": messages})
    reference = {} if "solution" in others else {"answer": last.get("content")}
    return replace(record, columns={**reference, **others, "prompt": before})


def _why(report: DataReport) -> str:
    if not report.notes:
        return "The source is empty."
    _, where, reason = report.notes[0]
    return f"All {len(report.notes)} were left out; the first: {where}: {reason}."
