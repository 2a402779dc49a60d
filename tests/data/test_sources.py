"""Records of files, with column mappings and limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from posttrain.data.sources import read
from posttrain.errors import DataError
from posttrain.settings.data import PathSource, TaskSource

ROWS = [{"question": f"q{i}", "reply": f"r{i}"} for i in range(3)]


def jsonl(folder: Path) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)))  # no newline after the last one
    return path


def parquet(folder: Path) -> Path:
    import pyarrow
    from pyarrow.parquet import write_table

    write_table(pyarrow.Table.from_pylist(ROWS), folder / "rows.parquet")
    return folder / "rows.parquet"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.parametrize("make", [jsonl, parquet])
def test_files_are_read_in_order_with_the_place_of_each_row(tmp_path: Path, make: Any) -> None:
    path = make(tmp_path)
    records = list(read(PathSource(path=str(path))))
    assert [record.columns for record in records] == ROWS
    assert [record.where for record in records] == [f"{path}:{n}" for n in (1, 2, 3)]
    assert all(record.fault is None for record in records)


@pytest.mark.parametrize("make", [jsonl, parquet])
def test_columns_are_renamed_and_one_may_serve_twice(tmp_path: Path, make: Any) -> None:
    names: Any = {"prompt": "question", "completion": "reply", "answer": "reply"}
    [record] = read(PathSource(path=str(make(tmp_path)), columns=names, limit=1))
    ours = {name: record.columns[name] for name in names}
    assert ours == {"prompt": "q0", "completion": "r0", "answer": "r0"}


def test_a_mapped_name_never_falls_back_to_the_column_of_that_name(tmp_path: Path) -> None:
    record = next(read(PathSource(path=str(jsonl(tmp_path)), columns={"prompt": "nowhere"})))
    assert "prompt" not in record.columns
    path = tmp_path / "both.jsonl"
    path.write_text('{"prompt": "theirs", "question": "q"}')
    record = next(read(PathSource(path=str(path), columns={"prompt": "absent"})))
    assert "prompt" not in record.columns


@pytest.mark.parametrize("ours", ["tools", "answer", "demonstration"])
def test_a_mapped_column_that_no_row_has_is_refused_by_its_name_though_the_row_could_do_without(
    tmp_path: Path, ours: Any
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "q"}\n{"prompt": "q", "extra": null}')
    assert len(list(read(PathSource(path=str(path), columns={ours: "extra"})))) == 2
    with pytest.raises(
        DataError, match=rf"rows.jsonl:1: columns looks for {ours} in extra, which no row has; .* has prompt\."
    ):
        list(read(PathSource(path=str(path), columns={ours: "extra"}, limit=1)))


@pytest.mark.parametrize("limit", [1, 2, 3, 9])
def test_limit(tmp_path: Path, limit: int) -> None:
    assert len(list(read(PathSource(path=str(jsonl(tmp_path)), limit=limit)))) == min(limit, 3)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("absent.jsonl", None, "no such file"),
        ("rows.xlsx", b"a,b\n", r"must end in \.jsonl, \.json, \.csv"),
        ("rows.parquet", b"not parquet", "cannot be loaded"),
        ("rows.parquet", b"", "cannot be loaded"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: bytes | None, reason: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=reason) as caught:
        list(read(PathSource(path=str(path))))
    assert str(path) in str(caught.value)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(DataError, match="no such file"):
        list(read(PathSource(path=str(tmp_path / "folder.jsonl"))))


def test_a_task_gives_preference_columns_as_well() -> None:
    records = list(read(TaskSource(task="chain", rows=3)))
    assert [record.where for record in records] == ["chain/train:1", "chain/train:2", "chain/train:3"]
    assert all(record.columns["chosen"] == record.columns["completion"] for record in records)


@pytest.mark.system
def test_a_task_with_too_few_questions_says_so() -> None:
    with pytest.raises(DataError, match="fewer than 100000"):
        list(read(TaskSource(task="countdown", split="held_out", rows=100_000)))


def test_a_share_of_the_demonstrations_can_be_wrong() -> None:
    clean = [record.columns for record in read(TaskSource(task="chain", rows=2000))]
    slipped = [record.columns for record in read(TaskSource(task="chain", rows=2000, wrong=0.3))]
    assert all(slip["completion"] in (row["completion"], row["rejected"]) for slip, row in zip(slipped, clean, strict=True))
    assert abs(sum(row["completion"] == row["rejected"] for row in slipped) / 2000 - 0.3) < 0.04
    assert all({**slip, "completion": row["completion"]} == {**slip, **row} for slip, row in zip(slipped, clean, strict=True))
