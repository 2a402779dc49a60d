"""Rows as other tools write them become rows of our columns, whole; what they hold beside text is refused by its name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from posttrain.data.sources import Record, read, records_of
from posttrain.settings.data import PathSource

U, A = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
S = {"role": "system", "content": "s"}
HUMAN, GPT = {"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}
CALL = {"name": "add", "arguments": {"x": 1}}
CALLED = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": CALL}]}


def one(row: dict[str, Any]) -> Record:
    [record] = records_of([row])
    return record


@pytest.mark.parametrize(
    ("row", "columns", "form"),
    [
        ({"messages": [U, A]}, {"messages": [U, A]}, None),
        ({"messages": json.dumps([U, A])}, {"messages": [U, A]}, None),
        ({"messages": [S | {"role": "developer"}, U, A]}, {"messages": [S, U, A]}, None),
        ({"messages": [U | {"content": [{"type": "text", "text": "a"}]}, A]}, {"messages": [U, A]}, None),
        ({"messages": [U | {"content": [{"type": "text", "text": "a"}] * 2}]}, {"messages": [U | {"content": "a\na"}]}, None),
        ({"messages": [U, A | {"weight": 0}]}, {"messages": [U, A | {"weight": 0}]}, None),
        ({"prompt": "a", "completion": "b", "id": 3}, {"prompt": "a", "completion": "b", "id": 3}, None),
        ({"prompt": "a", "chosen": A, "rejected": U}, {"prompt": "a", "chosen": [A], "rejected": [U]}, None),
        ({"conversations": [HUMAN, GPT]}, {"messages": [U, A]}, "sharegpt"),
        ({"conversations": json.dumps([HUMAN, GPT])}, {"messages": [U, A]}, "sharegpt"),
        ({"conversations": [U, A]}, {"messages": [U, A]}, "sharegpt"),
        ({"messages": [HUMAN, GPT]}, {"messages": [U, A]}, "sharegpt"),
        ({"conversations": [HUMAN, GPT | {"weight": 0}]}, {"messages": [U, A | {"weight": 0}]}, "sharegpt"),
        ({"conversations": [HUMAN, GPT], "system": "s", "id": 1}, {"messages": [S, U, A], "id": 1}, "sharegpt"),
        (
            {"conversations": [HUMAN], "chosen": GPT, "rejected": GPT},
            {"prompt": [U], "chosen": [A], "rejected": [A]},
            "sharegpt",
        ),
        (
            {
                "conversations": [
                    HUMAN,
                    {"from": "function_call", "value": json.dumps(CALL)},
                    {"from": "observation", "value": "1"},
                ]
            },
            {"messages": [U, CALLED, {"role": "tool", "content": "1"}]},
            "sharegpt",
        ),
        ({"instruction": "a", "input": "", "output": "b"}, {"prompt": "a", "completion": "b"}, "alpaca"),
        ({"instruction": "a", "input": None, "output": "b"}, {"prompt": "a", "completion": "b"}, "alpaca"),
        ({"instruction": "a", "input": "x", "output": "b"}, {"prompt": "a\nx", "completion": "b"}, "alpaca"),
        ({"instruction": "a", "output": "b", "system": "s"}, {"prompt": [S, U], "completion": "b"}, "alpaca"),
        (
            {"instruction": "a", "output": "b", "history": [["a", "b"]]},
            {"messages": [U, A, U, A]},
            "alpaca",
        ),
        ({"instruction": "a", "chosen": "b", "rejected": "c"}, {"prompt": "a", "chosen": "b", "rejected": "c"}, "alpaca"),
    ],
)
def test_a_row_is_read_by_its_shape(row: dict[str, Any], columns: dict[str, Any], form: str | None) -> None:
    record = one(row)
    assert (record.fault, record.columns, record.form) == (None, columns, form)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": "a talk"}, "messages must be a list of messages, or the JSON text of one"),
        ({"messages": '{"role": "user"}'}, "its JSON text holds dict"),
        ({"messages": [U | {"content": [{"type": "image_url", "image_url": "x"}]}]}, "a part of type image_url"),
        ({"prompt": [U | {"content": [{"type": "input_audio"}]}]}, "a part of type input_audio"),
        ({"messages": [U | {"content": [{"type": "text", "text": None}]}]}, "a part of type text"),
        ({"instruction": "a", "input": ["x"], "output": "b"}, "input must be text, not list"),
        ({"instruction": " ", "output": "b"}, "no instruction"),
        ({"instruction": "a", "output": "b", "history": ["a", "b"]}, "history must be a list of [question, answer]"),
        ({"conversations": [{"from": "function_call", "value": "add"}]}, "function_call must be the JSON text"),
        ({"conversations": None}, "no list conversations"),
    ],
)
def test_what_cannot_be_read_is_a_fault_of_the_row(row: dict[str, Any], reason: str) -> None:
    assert reason in str(one(row).fault)


@pytest.mark.parametrize(
    ("asked", "row", "expected"),
    [
        ("sharegpt", {"messages": [U]}, {"messages": [U]}),
        ("sharegpt", {"prompt": "a"}, "format: sharegpt, and the row has no list conversations"),
        ("alpaca", {"prompt": "a", "completion": "b"}, "format: alpaca, and the row has no instruction"),
        ("messages", {"instruction": "a", "output": "b"}, {"instruction": "a", "output": "b"}),
        ("messages", {"messages": [HUMAN]}, {"messages": [HUMAN]}),
    ],
)
def test_a_format_that_is_named_is_the_one_that_is_read(tmp_path: Path, asked: Any, row: Any, expected: Any) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row))
    [record] = read(PathSource(path=str(path), format=asked))
    assert (record.fault if isinstance(expected, str) else record.columns) == expected
    assert isinstance(expected, str) or record.form == asked


def test_mapped_columns_are_of_the_format(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"talk": [HUMAN, GPT], "score": 3}))
    [record] = read(PathSource(path=str(path), columns={"messages": "talk"}, unused=["score"]))
    assert (
        record.columns["messages"] == [U, A]
        and "score" not in record.columns
        and record.mapped == {"messages": "talk"}
        and record.form == "sharegpt"
    )
