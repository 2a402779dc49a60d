"""Records of files, line by line where a file has lines, so that a fault names its own; and which files a path means."""

from __future__ import annotations

import csv
import glob
import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from posttrain.data.sources.record import Record
from posttrain.errors import DataError
from posttrain.telling import tell

BOM = b"\xef\xbb\xbf"
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
SEPARATORS = {".csv": ",", ".tsv": "\t"}
LONGEST_FIELD = 2**31 - 1  # of a CSV file, in characters; its own limit is 2**17
_SPLITS = re.compile(r"(?:^|[-_.])(train|test|val|valid|validation|dev|eval)(?=[-_.]|$)")


def files_of(path: str | Sequence[str]) -> list[Path]:
    """The files that a path, a folder, a pattern with * or ?, or a list of them means, in the order of their names.

    Raises:
        DataError: there are none, or a folder holds files of several splits.
    """
    if not isinstance(path, str):
        return [file for one in path for file in files_of(one)]
    given = Path(path).expanduser()
    if given.is_file():
        return [given]
    if given.is_dir():
        return _in_folder(given)
    found = sorted(Path(name) for name in glob.glob(str(given), recursive=True) if Path(name).is_file())
    if not found:
        raise DataError(f"{path}: no such file (looked for from {Path.cwd()}).")
    return found


def _in_folder(folder: Path) -> list[Path]:
    inside = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    found = [file for file in inside if _kind(file) is not None]
    if not found:
        raise DataError(f"{folder}: no such file in this folder: {ENDINGS}.")
    splits = {match[1] for file in found for match in [_SPLITS.search(file.name)] if match}
    if len(splits) > 1:
        raise DataError(
            f"{folder}: it holds files of several splits ({', '.join(sorted(splits))}). Name those of one by a pattern, such "
            f"as {folder}/*{min(splits)}*."
        )
    if others := [file.name for file in inside if file not in found]:
        tell("files-not-read", f"{folder}: not read, by their endings: {', '.join(others[:5])}{' …' * (len(others) > 5)}")
    return found


def read_file(path: Path) -> Iterator[Record]:
    """The records of one file.

    Raises:
        DataError: it cannot be read at all.
    """
    kind = _kind(path)
    if kind is None:
        raise DataError(f"{path}: files must end in {ENDINGS}.")
    return READERS[kind](path)


def object_of(text: str) -> dict[str, Any]:
    """The JSON object of a text.

    Raises:
        ValueError: it is none, or a key stands twice in it; the message is the reason.
    """
    try:
        found = json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg} at column {error.colno})") from None
    except _Twice as error:
        raise ValueError(str(error)) from None
    except (ValueError, RecursionError) as error:  # a number of over 4300 digits, a thousand brackets
        raise ValueError(f"not JSON that can be read ({error})"[:200]) from None
    if not isinstance(found, dict):
        raise ValueError(f"a JSON object is expected, not {type(found).__name__}")
    return found


class _Twice(ValueError):
    """A key stands twice in an object."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice in it")
    return made


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Its lines by number, from 1, without a byte order mark."""
    with _opened(path) as file:
        for number, line in enumerate(file, 1):
            if number == 1:
                if line.startswith(UTF_16):
                    raise DataError(f"{path}: it is written in UTF-16. Save it as UTF-8.")
                line = line.removeprefix(BOM)
            yield number, line


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        with path.open("rb") as file:
            yield cast(IO[bytes], gzip.GzipFile(fileobj=file)) if path.suffix == ".gz" else file
    except (EOFError, zlib.error, OSError) as error:
        raise DataError(f"{path}: it cannot be read: {str(error) or type(error).__name__}.") from error


def _jsonl(path: Path) -> Iterator[Record]:
    for number, line in _lines(path):
        if line.strip():
            yield _record(f"{path}:{number}", line, first=number == 1)


def _record(where: str, line: bytes, *, first: bool = False) -> Record:
    try:
        return Record(where, object_of(line.decode("utf-8")))
    except UnicodeDecodeError as error:
        return Record(where, {}, f"not UTF-8 ({error.reason} at byte {error.start})")
    except ValueError as error:
        hint = "; a list of rows belongs in a file that ends in .json" if first and line.lstrip().startswith(b"[") else ""
        return Record(where, {}, f"{error}{hint}")


def _json(path: Path) -> Iterator[Record]:
    """Of a list of objects, each with the line that it begins in; or of an object a line, as many name such a file too."""
    text = b"".join(line for _, line in _lines(path))
    if text.lstrip()[:1] != b"[":
        first = text.strip().split(b"\n", 1)[0]
        if text.strip() and _record("", first).fault is not None and b"\n" in text.strip():
            raise DataError(f"{path}: a list of objects is expected, or an object a line.")
        yield from _jsonl(path)
        return
    try:
        yield from _listed(path, text.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = 1 + text.count(b"\n", 0, error.start)
        raise DataError(f"{path}:{line}: not UTF-8 ({error.reason}). Save it as UTF-8.") from None


def _listed(path: Path, text: str) -> Iterator[Record]:
    decoder, space = json.JSONDecoder(object_pairs_hook=_unique), re.compile(r"\s*")

    def after(place: int) -> int:
        match = space.match(text, place)
        assert match is not None
        return match.end()

    place, counted, line, number = after(text.index("[") + 1), 0, 1, 0
    while True:
        line, counted, number = line + text.count("\n", counted, place), place, number + 1
        if number == 1 and text[place : place + 1] == "]":
            break
        where = f"{path}:{line} (row {number})"
        try:
            found, place = decoder.raw_decode(text, place)
        except _Twice as error:
            raise DataError(f"{where}: {error}.") from None
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: not JSON ({getattr(error, 'msg', error)}).") from None
        wrong = None if isinstance(found, dict) else f"a JSON object is expected, not {type(found).__name__}"
        yield Record(where, {} if wrong else found, wrong)
        place = after(place)
        if text[place : place + 1] != ",":
            break
        place = after(place + 1)
    if text[place : place + 1] != "]" or after(place + 1) != len(text):
        line = 1 + text.count("\n", 0, place)
        raise DataError(f"{path}:{line}: not JSON: after row {number} a comma, or the end of the list, is expected.")


def _table(path: Path) -> Iterator[Record]:
    """Of a file of values with a header; an empty cell has no value."""
    csv.field_size_limit(LONGEST_FIELD)
    separator = SEPARATORS[_ending(path)]
    rows = csv.reader(_text_of(path), delimiter=separator, strict=True)
    names: list[str] | None = None
    line = 1
    while True:
        try:
            values = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{path}:{line}: it cannot be read as {_ending(path)}: {error}.") from None
        where, line = f"{path}:{line}", rows.line_num + 1
        if not values:
            continue
        if names is None:
            names = _header(where, values, separator)
        elif len(values) != len(names):
            yield Record(where, {}, f"it has {len(values)} values, and the header names {len(names)}")
        else:
            yield Record(where, {name: value or None for name, value in zip(names, values, strict=True)})


def _header(where: str, names: list[str], separator: str) -> list[str]:
    twice = [name for name in names if names.count(name) > 1]
    if twice or not all(name.strip() for name in names):
        raise DataError(f"{where}: in the header {f'{twice[0]!r} stands twice' if twice else 'a name is empty'}.")
    if len(names) == 1 and (other := next((one for one in ";\t," if one != separator and one in names[0]), None)):
        raise DataError(f"{where}: values are separated by {other!r}, and {separator!r} is expected. Save it so.")
    return names


def _text_of(path: Path) -> Iterable[str]:
    for number, line in _lines(path):
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{path}:{number}: not UTF-8 ({error.reason}). Save the file as UTF-8.") from None


def _parquet(path: Path) -> Iterator[Record]:
    return through_datasets(str(path), "parquet", data_files=str(path), split="train")


def through_datasets(label: str, *arguments: Any, **options: Any) -> Iterator[Record]:
    """Of what the package datasets loads.

    Raises:
        DataError: it cannot.
    """
    for number, columns in enumerate(loaded_by_datasets(label, *arguments, **options), 1):
        yield Record(f"{label}:{number}", dict(columns))


def loaded_by_datasets(label: str, *arguments: Any, **options: Any) -> Any:
    """What `datasets.load_dataset` gives, without its progress bars.

    Raises:
        DataError: it gives nothing.
    """
    import datasets

    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(*arguments, **options)
    except Exception as error:  # the library raises a dozen kinds, with the cause in the text
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(f"{label}: cannot be loaded: {reason[0]}") from error


READERS = {".jsonl": _jsonl, ".json": _json, ".csv": _table, ".tsv": _table, ".parquet": _parquet}
ENDINGS = ".jsonl, .json, .csv or .tsv (each also with .gz), or .parquet"


def _ending(path: Path) -> str:
    return (Path(path.stem).suffix if path.suffix == ".gz" else path.suffix).lower()


def _kind(path: Path) -> str | None:
    ending = _ending(path)
    return ending if ending in READERS and not (ending == ".parquet" and path.suffix == ".gz") else None
