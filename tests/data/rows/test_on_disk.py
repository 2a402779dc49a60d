"""Examples on disk are those that were written, and what is kept of all of them is what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posttrain.data.reader import Reader
from posttrain.data.rows import DataReport, Example, digest
from posttrain.data.rows.on_disk import ROWS, RowsOnDisk, Writer
from posttrain.data.rows.together import Joined, by_source, digest_of, in_memory, joined, longest_of, tokens_of
from posttrain.data.sources import Record
from posttrain.model.load import load
from posttrain.model.pretrained.tokenizer import eos_ids
from posttrain.settings.data import Encoding
from posttrain.settings.model import FromScratch, ModelConfig
from tiny import make_examples

SCRATCH = FromScratch(hidden_size=32, num_attention_heads=1, num_hidden_layers=1)
MODEL, TOKENIZER = load(ModelConfig(from_scratch=SCRATCH, tokenizer="bytes"), seed=0)
KINDS: dict[str, dict[str, Any]] = {
    "demonstrations": {},
    "pairs": {"sides": ("chosen", "rejected")},
    "three sides": {"sides": ("chosen", "rejected", "reference")},
    "crossed": {"crossed": 2},
    "weighted": {"worth": "weight"},
    "labels": {"worth": "label"},
    "taught": {"template": "{prompt} {demonstration}"},
}


def texts(**beside: Any) -> list[Example]:
    reader = Reader(Encoding.model_validate({"window": {"length": 8}}), TOKENIZER, eos_ids(MODEL, TOKENIZER))
    return reader.examples(Record(f"t:{i}", {"text": f"{i} is a text", **beside}) for i in range(12))[0]


TEXTS = {"texts": lambda: texts(), "corrupted": lambda: texts(text_corruption=[0.5, 7])}


def made(kind: str) -> list[Example]:
    return TEXTS[kind]() if kind in TEXTS else make_examples(MODEL, TOKENIZER, rows=12, **KINDS[kind])


def written(folder: Path, rows: list[Example], report: DataReport | None = None) -> RowsOnDisk:
    writer = Writer(folder)
    writer.add(rows[:5], [])
    writer.add(rows[5:], report.notes if report else [])
    writer.close(report or DataReport(rows=len(rows)), {})
    return RowsOnDisk(folder)


def parts(one: Example) -> list[Any]:
    ids = [(row.prompt, row.completion, row.mask, row.weight, row.teacher_prompt, row.inputs) for row in one.rows]
    arrays = [None if part is None else (part.dtype.str, part.tolist()) for row in ids for part in row]
    return [arrays, one.where, one.crossed, one.source, one.tokens]


@pytest.mark.parametrize("kind", [*KINDS, *TEXTS])
def test_rows_on_disk_are_the_rows_in_memory(kind: str, tmp_path: Path) -> None:
    rows = made(kind)
    there = written(tmp_path / "rows", rows)
    assert len(there) == len(rows) and [parts(one) for one in there] == [parts(one) for one in rows]
    assert parts(there[-1]) == parts(rows[-1])
    assert [one.where for one in there[2:7:2]] == [one.where for one in rows[2:7:2]]
    assert digest_of(there) == digest(rows) == digest(there)
    assert tokens_of(there) == tokens_of(rows) and longest_of(there) == longest_of(rows)
    with pytest.raises(IndexError):
        there[len(rows)]


def test_what_is_read_may_be_written_to_without_changing_the_file(tmp_path: Path) -> None:
    there = written(tmp_path / "rows", made("demonstrations"))
    there[0].rows[0].completion[0] += 1
    assert np.array_equal(there[0].rows[0].completion, made("demonstrations")[0].rows[0].completion)


def test_sources_in_memory_and_on_disk_are_one_sequence(tmp_path: Path) -> None:
    first, second = made("demonstrations"), texts()
    there = written(tmp_path / "rows", second).named("texts")
    both = joined([first, [], there])
    assert isinstance(both, Joined) and not in_memory(both) and in_memory(joined([first, second]))
    assert [one.where for one in both] == [one.where for one in [*first, *second]]
    assert [both[i].source for i in (0, len(first) - 1, len(first), -1)] == ["", "", "texts", "texts"]
    assert {name: digest_of(rows) for name, rows in by_source(both).items()} == {"": digest(first), "texts": digest(second)}
    assert longest_of(both) == longest_of([*first, *second])
    assert joined([first, second]) == [*first, *second] and joined([[], there]) is there


def test_a_report_comes_back_with_its_notes(tmp_path: Path) -> None:
    report, rows = DataReport(seen=14), made("demonstrations")
    report.rows = len(rows)
    report.unread.update(["id", "id"])
    report.note("f:1", "it is “bad”\nand long", "cut")
    report.note("f:2", "worse")
    report.note("f:3", "worst")
    again = written(tmp_path / "rows", rows, report).report
    assert (again.rows, again.seen, again.unread, again.counters) == (12, 14, report.unread, report.counters)
    assert list(again.notes) == report.notes and len(again.notes) == 3
    assert (again.notes[0], again.notes[-1], again.notes[:2]) == (report.notes[0], report.notes[-1], report.notes[:2])
    assert again.metrics("x") == report.metrics("x")


def test_rows_of_another_kind_are_not_taken(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "rows")
    writer.add(made("demonstrations"), [])
    with pytest.raises(ValueError, match="before"):
        writer.add(made("weighted"), [])
    writer.abandon()


def test_a_folder_that_is_not_as_it_was_written_is_not_read(tmp_path: Path) -> None:
    there = written(tmp_path / "rows", made("demonstrations"))
    path = there.folder / ROWS
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="not as it was written"):
        RowsOnDisk(there.folder)
