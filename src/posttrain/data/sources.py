"""Records of a source, each with the place that it came from. JSONL is read line by line, so that a fault names its line."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

from posttrain.data.tasks import generate
from posttrain.errors import DataError
from posttrain.settings.data import HubSource, PathSource, TaskSource


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a source: its columns under our names, or the reason why it has none."""

    where: str
    columns: dict[str, Any]
    fault: str | None = None


def read(source: PathSource | HubSource | TaskSource) -> Iterator[Record]:
    """The records of a source, in order.

    Raises:
        DataError: it cannot be found or read at all.
    """
    if isinstance(source, TaskSource):
        return _task(source)
    raw = _path(Path(source.path)) if isinstance(source, PathSource) else _hub(source)
    return itertools.islice((_renamed(record, source.columns) for record in raw), source.limit)


def _renamed(record: Record, columns: dict[Any, str]) -> Record:
    if record.fault is not None or not columns:
        return record
    kept = {name: value for name, value in record.columns.items() if name not in columns}
    mapped = {ours: record.columns[theirs] for ours, theirs in columns.items() if theirs in record.columns}
    return Record(record.where, {**kept, **mapped})


def _task(source: TaskSource) -> Iterator[Record]:
    slips = Random(f"slips/{source.seed}")
    try:
        for number, item in enumerate(generate(source.task, source.split, source.rows, source.seed, source.hard), 1):
            shown = item.rejected if slips.random() < source.wrong else item.completion
            yield Record(
                f"{source.task}/{source.split}:{number}", {**asdict(item), "completion": shown, "chosen": item.completion}
            )
    except ValueError as error:
        raise DataError(str(error)) from None


def _path(path: Path) -> Iterator[Record]:
    if not path.is_file():
        raise DataError(f"{path}: no such file (looked for from {Path.cwd()}).")
    if path.suffix == ".jsonl":
        return _jsonl(path)
    if path.suffix == ".parquet":
        return _through_datasets(str(path), "parquet", data_files=str(path), split="train")
    raise DataError(f"{path}: files must end in .jsonl or .parquet.")


def _jsonl(path: Path) -> Iterator[Record]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                columns = json.loads(line.decode("utf-8"))
            except UnicodeDecodeError as error:
                yield Record(where, {}, f"not UTF-8 ({error.reason} at byte {error.start})")
            except json.JSONDecodeError as error:
                yield Record(where, {}, f"not JSON ({error.msg} at column {error.colno})")
            except (ValueError, RecursionError) as error:  # a number of over 4300 digits, a thousand brackets
                yield Record(where, {}, f"not JSON that can be read ({error})"[:200])
            else:
                fault = None if isinstance(columns, dict) else f"a JSON object is expected, not {type(columns).__name__}"
                yield Record(where, columns if fault is None else {}, fault)


def _hub(source: HubSource) -> Iterator[Record]:
    options = {"name": source.config, "split": source.split, "revision": source.revision}
    return _through_datasets(source.hub, source.hub, **options)


def _through_datasets(label: str, *arguments: Any, **options: Any) -> Iterator[Record]:
    import datasets

    datasets.disable_progress_bars()
    try:
        rows = datasets.load_dataset(*arguments, **options)
    except Exception as error:  # the library raises a dozen kinds, with the cause in the text
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(f"{label}: cannot be loaded: {reason[0]}") from error
    for number, columns in enumerate(rows, 1):
        yield Record(f"{label}:{number}", dict(columns))
