"""The rows that a run has made before training: kept in its folder, as a source of their own, and read by later rounds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from posttrain.data.sources import Record
from posttrain.data.sources.files import read_file
from posttrain.errors import DataError
from posttrain.train.watch.records import write

FILE = "made.jsonl"


def keep(folder: Path, records: Sequence[Record]) -> Path:
    """Writes the rows that steps have made, without those that are as their source has them.

    Raises:
        CheckpointError: the file cannot be written.
    """
    path = folder / FILE
    write(path, "".join(f"{_said(record, ascii_only=False)}\n" for record in records if record.made))
    return path


def of_rounds(folders: Sequence[str]) -> Iterator[Record]:
    """The rows that earlier rounds have made.

    Raises:
        DataError: those of a round are gone.
    """
    for number, folder in enumerate(folders, 1):
        path = Path(folder) / FILE
        if not path.is_file():
            raise DataError(f"{path}: the rows that round {number} has made are not there, and rounds.data is accumulate.")
        yield from (replace(record, where=f"round {number}: {record.where}", made=True) for record in read_file(path))


def each_once(records: Sequence[Record]) -> list[Record]:
    """The first of those that say the same, where a model has made them."""
    known, kept = set[str](), list[Record]()
    for record in records:
        said = _said(record) if record.made else None
        if said is None or said not in known:
            kept.append(record)
            known |= {said} if said is not None else set()
    return kept


def _said(record: Record, *, ascii_only: bool = True) -> str:
    return json.dumps(record.columns, sort_keys=ascii_only, ensure_ascii=ascii_only, default=str)
