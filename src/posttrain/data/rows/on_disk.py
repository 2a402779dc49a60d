"""Examples that lie on disk: one is read when it is asked for, and what is asked of all of them is kept beside them.

A folder of them has `rows.bin`, their records end to end; `starts.npy`, where each begins; `notes.jsonl`, of their report;
and `about.json`, which is written last. A record has, for each of its rows, how many tokens the prompt, the completion and
the teacher's prompt have (-1: there is none); all these tokens; what is read in the completion's places, where that is
something else; weights; masks; and the place that the example is from. It is read by its bytes and not mapped, so that what
was read once takes none of the process's memory.
"""

from __future__ import annotations

import copy
import json
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from posttrain.data.rows import DataReport, Digest, Example, Note, Row
from posttrain.data.rows.by_number import ByNumber
from posttrain.errors import DataError

ROWS, STARTS, NOTES, ABOUT = "rows.bin", "starts.npy", "notes.jsonl", "about.json"
BUFFER = 2**20  # bytes that are written at a time


@dataclass(frozen=True, slots=True)
class Measures:
    """What is asked of all examples of a set together.

    examples: how many. tokens: that the model reads, of all. longest: tokens of the longest row; prompt: of the longest
    prompt, as student or teacher read them. unit: rows of each. crossed, weighted, corrupted: whether all are so. digest: as
    `digest`.
    """

    examples: int
    tokens: int
    longest: int
    prompt: int
    unit: int
    crossed: bool
    weighted: bool
    digest: str
    corrupted: bool = False  # earlier versions knew of none


class RowsOnDisk(ByNumber):
    """The examples of a folder that is whole.

    Args:
        folder: where they lie.

    Raises:
        FileNotFoundError, ValueError: they are not there, or not as they were written.
    """

    source = ""
    """What they are of, where several sources are mixed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.about: dict[str, Any] = json.loads((folder / ABOUT).read_text())
        self.measures = Measures(**self.about["measures"])
        self._starts = np.load(folder / STARTS, mmap_mode="r")
        self._file = (folder / ROWS).open("rb", buffering=0)
        written = os.fstat(self._file.fileno()).st_size
        if len(self._starts) != self.measures.examples + 1 or written != int(self._starts[-1]):
            raise ValueError(f"{folder} is not as it was written: {ROWS} has {written} bytes, and not {self._starts[-1]}")

    def named(self, source: str) -> RowsOnDisk:
        """The same of a source of a mixture."""
        other = copy.copy(self)
        other.source = source
        return other

    @property
    def report(self) -> DataReport:
        """What became of the records that they were made of."""
        return report_of(self.about["report"], self.folder / NOTES)

    @property
    def bytes(self) -> int:
        """That they take on disk."""
        return sum(path.stat().st_size for path in self.folder.iterdir())

    def __len__(self) -> int:
        return self.measures.examples

    def at(self, place: int) -> Example:
        """See `ByNumber`."""
        begin, end = map(int, self._starts[place : place + 2])
        record = np.empty(end - begin, np.uint8)
        if os.preadv(self._file.fileno(), [record.data], begin) != len(record):
            raise DataError(f"{self.folder}: {ROWS} cannot be read: it is shorter than it was. Delete the folder.")
        place = 0

        def taken(number: int, kind: type[np.generic]) -> NDArray[Any]:
            nonlocal place
            begins, place = place, place + number * np.dtype(kind).itemsize
            return record[begins:place].view(kind)

        sizes = taken(3 * self.measures.unit, np.int32).reshape(-1, 3).tolist()
        ids = [[None if number < 0 else taken(number, np.int32) for number in of] for of in sizes]
        reads = [taken(completion, np.int32) if self.measures.corrupted else None for _, completion, _ in sizes]
        weights = [taken(completion, np.float32) if self.measures.weighted else None for _, completion, _ in sizes]
        masks = [taken(completion, np.bool_) for _, completion, _ in sizes]
        parts = zip(ids, masks, weights, reads, strict=True)
        rows = tuple(Row(*of[:2], mask, worth, of[2], read) for of, mask, worth, read in parts)  # type: ignore[arg-type]
        return Example(rows, bytes(record[place:]).decode(errors="surrogateescape"), self.measures.crossed, self.source)


class NotesOnDisk(Sequence[Note]):
    """The notes of a report, which are read when they are asked for.

    Args:
        path: of the file, with a line for each.
        number: of them.
    """

    def __init__(self, path: Path, number: int) -> None:
        self._path, self._number = path, number

    def __len__(self) -> int:
        return self._number

    def __iter__(self) -> Iterator[Note]:
        with self._path.open(encoding="utf-8") as file:
            for line in file:
                counter, where, reason = json.loads(line)
                yield counter, where, reason

    @overload
    def __getitem__(self, index: int) -> Note: ...
    @overload
    def __getitem__(self, index: slice) -> list[Note]: ...
    def __getitem__(self, index: int | slice) -> Note | list[Note]:
        chosen = range(self._number)[index]
        wanted = {chosen} if isinstance(chosen, int) else {*chosen}
        found: dict[int, Note] = {}
        for number, note in enumerate(self):
            if len(found) == len(wanted):
                break
            if number in wanted:
                found[number] = note
        return found[chosen] if isinstance(chosen, int) else [found[number] for number in chosen]


class Writer:
    """Writes a folder of examples, which is whole once `close` has returned.

    Args:
        folder: that is made.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._rows = (folder / ROWS).open("wb", buffering=BUFFER)
        self._notes = (folder / NOTES).open("w", encoding="utf-8")
        self._starts, self._digest, self._noted = array("q", [0]), Digest(), 0
        self._tokens = self._longest = self._prompt = 0
        self._alike: tuple[int, bool, bool, bool] | None = None

    def add(self, examples: Sequence[Example], notes: Sequence[Note]) -> None:
        """The next examples, and notes on the records that they are of.

        Raises:
            ValueError: they are not of the kind of those before.
        """
        for one in examples:
            alike = len(one.rows), one.crossed, one.rows[0].weight is not None, one.rows[0].inputs is not None
            if self._alike is None:
                self._alike = alike
            if alike != self._alike or len({(row.weight is None, row.inputs is None) for row in one.rows}) > 1:
                raise ValueError(f"{one.where}: rows, crossed, weighted, corrupted: {alike}, and {self._alike} before")
            self._starts.append(self._starts[-1] + self._rows.write(record_of(one)))
            self._digest.add(one)
            self._tokens += one.tokens
            for row in (row.longest for row in one.rows):
                self._longest, self._prompt = max(self._longest, len(row)), max(self._prompt, len(row.prompt))
        for note in notes:
            self._notes.write(json.dumps(note) + "\n")
        self._noted += len(notes)

    def close(self, report: DataReport, about: Mapping[str, Any]) -> None:
        """The rest, with the report, but for its notes, and what else is to be known."""
        self._rows.close()
        self._notes.close()
        np.save(self._folder / STARTS, np.frombuffer(self._starts, np.int64))
        unit, crossed, weighted, corrupted = self._alike or (1, False, False, False)
        measures = Measures(
            len(self._starts) - 1,
            self._tokens,
            self._longest,
            self._prompt,
            unit,
            crossed,
            weighted,
            self._digest.hexdigest(),
            corrupted,
        )
        told = {name: getattr(report, name) for name in ("rows", "counters", "unread", "forms", "seen")}
        described = {"measures": asdict(measures), "report": {**told, "notes": self._noted}, **about}
        (self._folder / ABOUT).write_text(json.dumps(described, indent=1))

    def abandon(self) -> None:
        """Closes the files of what will not be whole, on a full disk too."""
        for file in (self._rows, self._notes):
            with suppress(OSError):
                file.close()


def record_of(one: Example) -> bytes:
    """An example as it is written."""
    taught = [row.teacher_prompt for row in one.rows]
    sizes = [
        (len(row.prompt), len(row.completion), -1 if told is None else len(told))
        for row, told in zip(one.rows, taught, strict=True)
    ]
    ids = [part for row, told in zip(one.rows, taught, strict=True) for part in (row.prompt, row.completion, told)]
    beside = [part for name in ("inputs", "weight", "mask") for part in (getattr(row, name) for row in one.rows)]
    parts = [np.array(sizes, np.int32), *ids, *beside]
    return b"".join([*(part.tobytes() for part in parts if part is not None), one.where.encode(errors="surrogateescape")])


def report_of(kept: Mapping[str, Any], notes: Path) -> DataReport:
    """A report as `Writer.close` has written it."""
    report = DataReport(rows=kept["rows"], seen=kept["seen"], notes=NotesOnDisk(notes, kept["notes"]))
    for name in ("counters", "unread", "forms"):
        getattr(report, name).update(kept[name])
    return report
