"""Rows of large sources on disk: encoded once, for all processes of a machine and for every later start.

The folder of a source is called by a digest of all that its rows depend on. `rows` in it is whole; `fresh` is being written,
by the process that holds `.lock`, and becomes `rows` when all of it is on the disk.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any

from huggingface_hub.constants import HF_HOME

from posttrain.data.overlap import Overlaps
from posttrain.data.reader import Away
from posttrain.data.rows import DataReport, Example
from posttrain.data.rows.on_disk import RowsOnDisk, Writer
from posttrain.errors import DataError
from posttrain.execution.prepare.data.key import digest_of
from posttrain.model.proofs.disk import publish
from posttrain.telling import hearing, tell

IN_MEMORY = 2**28
"""Bytes, as `size` counts them, of the rows that are in memory, of all sources of a start; a source that brings more lies on
disk."""
ROW, TOKEN = 600, 5
"""Bytes that a row takes as objects, and each of its tokens (tracemalloc, rows of 21 to 2,000 tokens, within 2 %)."""
RULE, LOCK, WHOLE, FRESH = "rows-on-disk", ".lock", "rows", "fresh"
MOVES = "HF_DATASETS_CACHE, or HF_HOME, moves it"


def cache() -> Path:
    """Where they lie: beside the data sets that the package datasets keeps."""
    return Path(os.environ.get("HF_DATASETS_CACHE") or os.path.join(HF_HOME, "datasets")) / "posttrain"


def size(example: Example) -> int:
    """Bytes that an example takes in memory, about."""
    return ROW * len(example.rows) + TOKEN * example.tokens


class AlreadyKept(Exception):
    """Another process has written the rows meanwhile."""


class Shelf:
    """Where the rows of a start's sources are kept.

    Args:
        looked: looks for evaluation sets in what is trained on; what it meets in rows is kept with them.
    """

    def __init__(self, looked: Overlaps) -> None:
        self._looked, self._room = looked, IN_MEMORY
        self.told: dict[str, str] = {}
        """Of each source that lies on disk where, how large it is, and whether it was made now."""

    def rows(
        self, label: str, of: Callable[[], Mapping[str, Any]], read: Callable[[Away], tuple[list[Example], DataReport]]
    ) -> tuple[Sequence[Example], DataReport]:
        """The rows of a source, which depend on what `of` gives: as they were kept before, or as they are `read`; then in
        memory, or on disk where they are too many. `of` is asked where rows of any source are kept.

        Raises:
            DataError: as `read`; or they cannot be written.
        """

        @lru_cache
        def folder() -> Path:
            return cache() / digest_of(of())[:32]

        if cache().is_dir() and (found := self._found(folder(), label)) is not None:
            return found
        before = self._looked.take()
        try:
            with Keep(folder, label, self._room) as keep, hearing() as heard:
                rest, report = read(keep)
                met = self._looked.take()
                told = [(one.rule, one.sentence) for one in heard if one.rule != RULE]
                made = keep.finished(rest, report, {"label": label, "told": told, "met": met})
            self._looked.add(met)
        except AlreadyKept:
            self._looked.take()
            if (found := self._found(folder(), label)) is None:
                raise DataError(f"{label}: its rows in {folder()} were deleted while they were waited for.") from None
            return found
        finally:
            self._looked.add(before)
        if made is None:
            self._room -= sum(map(size, rest))
            return rest, report
        self.told[label] = f"made in {made.about['seconds']:,.0f} s: {_place(made)}"
        return made, made.report

    def _found(self, folder: Path, label: str) -> tuple[RowsOnDisk, DataReport] | None:
        rows = opened(folder / WHOLE)
        if rows is None:
            return None
        for rule, sentence in rows.about["told"]:
            tell(rule, sentence)
        self._looked.add(rows.about["met"])
        self.told[label] = f"found, made in {rows.about['seconds']:,.0f} s by an earlier start: {_place(rows)}"
        return rows, rows.report


class Keep:
    """Takes the rows of a source to disk, from where they are too many for memory on. While entered, half of them may lie
    there; of what is not finished nothing stays.

    Args:
        folder: gives that of the source.
        label: of the source, for messages.
        room: bytes that its rows may take in memory.
    """

    def __init__(self, folder: Callable[[], Path], label: str, room: int) -> None:
        self._where, self._label, self._room = folder, label, room
        self._seen, self._began = 0, time.monotonic()
        self._stack = ExitStack()
        self._writer: Writer | None = None

    def __enter__(self) -> Keep:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __call__(self, kept: list[Example], report: DataReport) -> None:
        """See `Away`.

        Raises:
            AlreadyKept: another process has written them.
            DataError: they cannot be written.
        """
        if self._writer is None:
            self._room -= sum(map(size, kept[self._seen :]))
            self._seen = len(kept)
            if self._room >= 0:
                return
            self._folder = self._where()
        with self._writing():
            self._begun().add(kept, report.notes)
        kept.clear()
        report.notes = []

    def finished(self, rest: Sequence[Example], report: DataReport, about: Mapping[str, Any]) -> RowsOnDisk | None:
        """The rows on disk, once `rest` is there too, with what is to be known of them; None where all are in memory.

        Raises:
            DataError: they cannot be written.
        """
        if self._writer is None:
            return None
        with self._writing():
            self._writer.add(rest, report.notes)
            self._writer.close(report, {**about, "seconds": time.monotonic() - self._began})
            publish(self._folder / FRESH, self._folder / WHOLE)
        return RowsOnDisk(self._folder / WHOLE)

    def _begun(self) -> Writer:
        """The writer, once this process has the folder for itself."""
        if self._writer is not None:
            return self._writer
        tell(
            RULE,
            f"{self._label}: its rows are too many for memory, and are encoded to disk, in {self._folder}, where every later "
            f"start finds them that reads the same of the same files; delete the folder when none will ({MOVES}).",
        )
        self._stack.enter_context(alone(self._folder))
        if opened(self._folder / WHOLE) is not None:
            raise AlreadyKept
        for left in (FRESH, WHOLE):  # by a process that was ended, or damaged since
            shutil.rmtree(self._folder / left, ignore_errors=True)
        self._stack.callback(shutil.rmtree, self._folder / FRESH, ignore_errors=True)
        self._writer = Writer(self._folder / FRESH)
        self._stack.callback(self._writer.abandon)
        return self._writer

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DataError(
                f"{self._label}: its rows are too many for memory, and cannot be written to {self._folder}: "
                f"{error.strerror or error}. Make room there, or take another place ({MOVES})."
            ) from error


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """While entered, the folder, made if need be, is this process's; others wait. The lock ends with the process."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def opened(folder: Path) -> RowsOnDisk | None:
    """The rows of a folder, if they are whole."""
    try:
        return RowsOnDisk(folder)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        tell(RULE, f"{folder} cannot be read ({error}): its rows are made anew.")
        return None


def _place(rows: RowsOnDisk) -> str:
    return f"{rows.folder.parent}, {rows.bytes / 1e9:,.2f} GB; delete it when no run needs it"
