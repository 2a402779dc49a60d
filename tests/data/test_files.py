"""Files as people bring them: what is in them is what is read, in order and with its place; or a sentence says which line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from posttrain.data.sources import read
from posttrain.errors import DataError
from posttrain.settings.data import PathSource
from posttrain.telling import hearing

ROWS = [{"prompt": f"q{i} é", "completion": f'one "{i}",\ntwo'} for i in range(3)]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
LISTED = json.dumps(ROWS, ensure_ascii=False, indent=1)
TABLE = "prompt,completion\r\n" + "".join(
    f'{row["prompt"]},"{row["completion"].replace(chr(34), 2 * chr(34))}"\r\n' for row in ROWS
)
BOM = "\ufeff"


def records(path: Any, **options: Any) -> list[Any]:
    return list(read(PathSource(path=path if isinstance(path, list) else str(path), **options)))


def made(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "lines"),
    [
        ("rows.jsonl", LINES, (1, 2, 3)),
        ("rows.jsonl", BOM + LINES.replace("\n", "\r\n"), (1, 2, 3)),
        ("rows.jsonl", LINES.replace("\n", "\n\n"), (1, 3, 5)),
        ("rows.jsonl.gz", LINES, (1, 2, 3)),
        ("rows.json", LINES, (1, 2, 3)),
        ("rows.json", LISTED, (2, 6, 10)),
        ("rows.json", BOM + LISTED, (2, 6, 10)),
        ("rows.JSON", json.dumps(ROWS), (1, 1, 1)),
        ("rows.json.gz", LISTED, (2, 6, 10)),
        ("rows.csv", TABLE, (2, 4, 6)),
        ("rows.CSV", BOM + TABLE, (2, 4, 6)),
        ("rows.csv", TABLE.replace("\r\n", "\n"), (2, 4, 6)),
        ("rows.csv.gz", TABLE, (2, 4, 6)),
        ("rows.tsv", TABLE.replace(",", "\t", 1).replace(" é,", " é\t"), (2, 4, 6)),
    ],
)
def test_a_file_gives_its_rows_and_the_line_that_each_begins_in(
    tmp_path: Path, name: str, content: str, lines: tuple[int, ...]
) -> None:
    found = records(made(tmp_path, name, content))
    assert [record.fault for record in found] == [None] * 3
    assert [record.columns for record in found] == ROWS
    assert [int(record.where.rpartition(f"{name}:")[2].split()[0]) for record in found] == list(lines)
    assert len({record.where for record in found}) == 3


@pytest.mark.parametrize(
    ("name", "content", "place", "reason"),
    [
        ("a.jsonl", '{"prompt": "a", "prompt": "b"}', ":1", "the key 'prompt' stands twice"),
        ("a.jsonl", '{"m": [{"content": "a", "content": "b"}]}', ":1", "the key 'content' stands twice"),
        ("a.jsonl", '{"prompt": "a"},\n', ":1", "not JSON"),
        ("a.jsonl", "[\n{},\n{}\n]", ":1", "belongs in a file that ends in .json"),
        ("a.jsonl", '{"prompt": "a"}\n{"prompt": "\\ud800', ":2", "not JSON"),
        ("a.jsonl", '{"prompt": "a"}'.encode("utf-16"), "", "UTF-16. Save it as UTF-8"),
        ("a.json", '{\n "data": []\n}', "", "a list of objects is expected, or an object a line"),
        ("a.json", "[\n {},\n {},\n]", ":4", "not JSON"),
        ("a.json", "[\n {}\n {}\n]", ":3", "after row 1 a comma, or the end of the list"),
        ("a.json", '[{"a": 1, "a": 2}]', ":1", "the key 'a' stands twice"),
        ("a.json", "[\n 3]", ":2", "a JSON object is expected, not int"),
        ("a.json", '[\n {"a": 1}', ":2", "end of the list"),
        ("a.json", b'[\n {"a": "\xff"}]', ":2", "not UTF-8"),
        ("a.csv", "prompt,prompt\na,b\n", ":1", "'prompt' stands twice"),
        ("a.csv", "prompt,\na,b\n", ":1", "a name is empty"),
        ("a.csv", "prompt;completion\na;b\n", ":1", "separated by ';'"),
        ("a.csv", "prompt,completion\na,b\nc\n", ":3", "it has 1 values, and the header names 2"),
        ("a.csv", 'prompt,completion\na,"b\nc', ":2", "cannot be read as .csv"),
        ("a.csv", "prompt,completion\na,caf\u00e9\n".encode("latin-1"), ":2", "not UTF-8"),
        ("a.csv", "prompt,completion\na,b\n".encode("utf-16"), "", "UTF-16"),
        ("a.jsonl.gz", None, "", "cannot be read"),
        ("a.parquet.gz", "x", "", "must end in"),
        ("a.txt", "x", "", "must end in"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_its_place(
    tmp_path: Path, name: str, content: str | bytes | None, place: str, reason: str
) -> None:
    path = tmp_path / name
    if content is None:
        path.write_bytes(gzip.compress(LINES.encode())[:-12])
    else:
        made(tmp_path, name, content)
    with pytest.raises(DataError) as caught:
        for record in records(path):
            if record.fault is not None:
                raise DataError(f"{record.where}: {record.fault}")
    assert str(caught.value).startswith(f"{path}{place}") and reason in str(caught.value)


def test_an_empty_cell_has_no_value_and_an_empty_list_no_rows(tmp_path: Path) -> None:
    [record] = records(made(tmp_path, "a.csv", "prompt,hint\na,\n"))
    assert record.columns == {"prompt": "a", "hint": None}
    assert not records(made(tmp_path, "a.json", " [ ] ")) and not records(made(tmp_path, "b.json", ""))
    assert not records(made(tmp_path, "b.csv", "a,b\n"))


def test_a_folder_a_pattern_and_a_list_are_read_in_order(tmp_path: Path) -> None:
    for number in (2, 1):
        made(tmp_path, f"part-{number}.jsonl", json.dumps({"prompt": str(number)}))
    made(tmp_path, "more.csv", "prompt\n3\n")
    made(tmp_path, "README.md", "what this is")
    with hearing() as told:
        assert [record.columns["prompt"] for record in records(tmp_path)] == ["3", "1", "2"]
    assert [one.sentence for one in told] == [f"{tmp_path}: not read, by their endings: README.md"]
    assert [record.columns["prompt"] for record in records(tmp_path / "part-*.jsonl")] == ["1", "2"]
    assert [record.columns["prompt"] for record in records(tmp_path / "part-*.jsonl", limit=1)] == ["1"]
    listed = [str(tmp_path / name) for name in ("part-2.jsonl", "more.csv")]
    assert [record.columns["prompt"] for record in records(listed)] == ["2", "3"]


def test_a_folder_of_several_splits_is_not_joined(tmp_path: Path) -> None:
    for name in ("train-00000-of-00001.jsonl", "test-00000-of-00001.jsonl"):
        made(tmp_path, name, LINES)
    with pytest.raises(DataError, match=r"files of several splits \(test, train\)"):
        records(tmp_path)
    assert len(records(tmp_path / "train-*")) == 3


def test_a_folder_without_a_file_that_can_be_read_and_a_pattern_that_nothing_fits_are_errors(tmp_path: Path) -> None:
    made(tmp_path, "README.md", "what this is")
    for path in (tmp_path, tmp_path / "*.jsonl"):
        with pytest.raises(DataError, match="no such file"):
            records(path)
