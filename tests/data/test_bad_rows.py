"""Every kind of bad row is reported with its file, line and reason, and skipped or refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from posttrain.data.reader import Reader
from posttrain.data.sources import read
from posttrain.errors import DataError
from posttrain.estimator.needs import SIDES
from posttrain.model.load import make_tokenizer
from posttrain.settings.data import Encoding, PathSource
from posttrain.settings.model import CharacterTokenizer

GOOD = {"prompt": "a", "completion": "b", "chosen": "b", "rejected": "c", "answer": "b"}
TALK = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


def reader(**options: Any) -> Reader:
    return Reader(Encoding.model_validate(options), make_tokenizer(CharacterTokenizer(characters="abc\n")), [1])


def written(folder: Path, *lines: Any) -> PathSource:
    path = folder / "rows.jsonl"
    path.write_bytes(b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines))
    return PathSource(path=str(path))


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in GOOD.items() if key != name}


UNREADABLE = [
    (b'{"prompt": "\xff"}', "not UTF-8"),
    (b'{"prompt": ', "not JSON"),
    (b"[1, 2]", "JSON object"),
    (b'"text"', "JSON object"),
    (b'{"prompt": %s}' % (b"1" * 5000), "not JSON"),
    (b"[" * 100_000, "not JSON"),
]
DEMONSTRATIONS = [
    (without("prompt"), "prompt"),
    (without("completion"), "completion"),
    (GOOD | {"completion": ""}, "completion is empty"),
    (GOOD | {"completion": " \n"}, "completion is empty"),
    (GOOD | {"prompt": ""}, "prompt is empty"),
    (GOOD | {"prompt": 3}, "prompt must be text"),
    (GOOD | {"prompt": []}, "prompt must be text"),
    (GOOD | {"completion": None}, "completion must be text"),
    (GOOD | {"completion": {"text": "b"}}, "completion must be text"),
    (GOOD | {"completion": "é"}, "does not know"),
    (GOOD | {"prompt": "é"}, "does not know"),
    (GOOD | {"completion": "\ud800"}, ""),
    ({"messages": TALK[:1]}, "no turn of the assistant"),
    ({"messages": [{"role": "robot", "content": "b"}]}, "role 'robot'"),
    ({"messages": [{"content": "b"}]}, "role None"),
    ({"messages": [{"role": "user", "content": None}]}, "content: text"),
    ({"messages": ["a"]}, "content: text"),
    ({"messages": [TALK[0], {"role": "assistant", "content": ""}]}, "empty"),
    (GOOD | {"completion": [{"role": "user", "content": "b"}]}, "no turn of the assistant"),
    (GOOD | {"completion": [{"role": "assistant", "content": ""}]}, "empty"),
]
PREFERENCES = [
    (without("chosen"), "chosen"),
    (GOOD | {"rejected": "b"}, "chosen and rejected are equal"),
    (GOOD | {"rejected": ""}, "rejected is empty"),
    (GOOD | {"chosen": 1.5}, "chosen must be text"),
    (without("prompt"), "prompt"),
    ({"chosen": TALK, "rejected": TALK}, "equal"),
    ({"chosen": TALK, "rejected": [{"role": "user", "content": "b"}, TALK[1]]}, "begin with the same messages"),
]
PROBLEMS = [
    (without("answer"), "answer"),
    *(
        (GOOD | {"answer": answer}, f"answer {reason}")
        for answer, reason in [
            (" ", "is empty"),
            (True, "must be text or a number, not True"),
            (math.nan, "must be text or a number, not nan"),
            ({"value": 1}, "must be text or a number"),
            (["1", "2"], "lists 2 values"),
            ([], "lists 0 values"),
        ]
    ),
]
ALL = [
    *((kind, line, reason) for kind in ("demonstration", "preference", "problem") for line, reason in UNREADABLE),
    *(("demonstration", line, reason) for line, reason in DEMONSTRATIONS),
    *(("preference", line, reason) for line, reason in PREFERENCES),
    *(("problem", line, reason) for line, reason in PROBLEMS),
]


def prepare(kind: str, source: PathSource, skip: bool) -> tuple[list[Any], Any]:
    policy = "skip" if skip else "raise"
    if kind == "problem":
        rows, report = reader(on_bad_row=policy).problems(read(source))
        return list(rows), report
    rows, report = reader(on_bad_row=policy).examples(read(source), sides=SIDES[:2] if kind == "preference" else ())
    return list(rows), report


@pytest.mark.parametrize(("kind", "line", "reason"), ALL, ids=[f"{kind}-{str(line)[:60]}" for kind, line, _ in ALL])
def test_a_bad_row_is_named_and_skipped_or_refused(tmp_path: Path, kind: str, line: Any, reason: str) -> None:
    source = written(tmp_path, GOOD, b"", line, GOOD)  # an empty line is no row, and counts as a line
    rows, report = prepare(kind, source, skip=True)
    assert [row.where for row in rows] == [f"{source.path}:1", f"{source.path}:4"]
    assert report.metrics("data") == {"data/rows": 2, "data/bad": 1}
    [(_, where, why)] = report.notes
    assert where == f"{source.path}:3" and reason in why and len(why) < 300
    with pytest.raises(DataError) as caught:
        prepare(kind, source, skip=False)
    assert str(caught.value).startswith(f"{source.path}:3: ") and "on_bad_row: skip" in str(caught.value)


@pytest.mark.parametrize("kind", ["demonstration", "preference", "problem"])
def test_missing_columns_are_named_with_those_that_are_there(tmp_path: Path, kind: str) -> None:
    source = written(tmp_path, {"question": "a", "reply": "b"})
    with pytest.raises(DataError, match=r"rows\.jsonl:1: .*needed; the row has question, reply.*columns: \{"):
        prepare(kind, source, skip=True)


@pytest.mark.parametrize(("lines", "reason"), [([], "source is empty"), ([b"{", b"["], "All 2 were left out; the first: ")])
def test_nothing_usable_is_an_error(tmp_path: Path, lines: list[bytes], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        prepare("demonstration", written(tmp_path, *lines), skip=True)
