"""One place knows what a column is for: what is read, what nothing reads, and what is refused by its name."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from posttrain.data.columns import DEMONSTRATIONS, Use, tell_unread
from posttrain.data.reader import Reader
from posttrain.data.rows import DataReport
from posttrain.data.sources import Record, read
from posttrain.errors import DataError
from posttrain.estimator.needs import SIDES
from posttrain.model.load import CHAT_TEMPLATE, make_tokenizer
from posttrain.settings.data import Encoding, PathSource
from posttrain.telling import hearing

PAIR = {"prompt": "a", "completion": "b"}
TALK = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
Columns = Mapping[str, Any]


def reader(**data: Any) -> Reader:
    tokenizer: Any = make_tokenizer("bytes")
    tokenizer.chat_template = CHAT_TEMPLATE
    return Reader(Encoding.model_validate(data), tokenizer, [tokenizer.eos_token_id])


def examples(*rows: Columns, sides: tuple[str, ...] = (), **data: Any) -> tuple[list[Any], DataReport]:
    return reader(**data).examples([Record(f"row {i}", dict(row)) for i, row in enumerate(rows)], sides=sides)


def prompt_of(row: Columns, **data: Any) -> str:
    tokenizer: Any = make_tokenizer("bytes")
    [example], _ = examples(row, chat_template=False, **data)
    return tokenizer.decode(example.rows[0].prompt)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (PAIR | {"images": ["x.png"]}, "it has images, and only text is trained on"),
        (PAIR | {"audio": {"path": "x.wav"}}, "it has audio"),
        (PAIR | {"videos": [b"1"]}, "it has videos"),
        (PAIR | {"label": False}, "its label is false"),
        (PAIR | {"label": "False"}, "its label is false"),
        (PAIR | {"kto_tag": False}, "its kto_tag is false"),
        (PAIR | {"messages": TALK}, "it has messages, and a prompt and a completion beside them"),
        (PAIR | {"chat_template_kwargs": {"enable_thinking": False}}, "its chat_template_kwargs are not read"),
        (PAIR | {"instruction": "a", "input": "x"}, "its input, a part of its instruction, is not read"),
    ],
)
def test_what_changes_a_rows_meaning_and_cannot_be_honoured_is_refused_by_its_name(row: Columns, reason: str) -> None:
    with pytest.raises(DataError, match=f"^row 0: {reason}"):
        examples(row)
    kept, report = examples(PAIR, row, on_bad_row="skip")
    assert len(kept) == 1 and reason in report.notes[0][2]


def test_a_label_says_whether_a_row_is_to_be_said_and_each_algorithm_has_its_own() -> None:
    """Of one file, whichever is its column's name; what is only measured may be of both kinds."""
    rows = [PAIR | {name: value} for name in ("label", "kto_tag") for value in (True, False, "True", "FALSE")]
    records = [Record(f"row {i}", dict(row)) for i, row in enumerate(rows)]
    for unwanted, own in ((False, {0, 2, 4, 6}), (True, {1, 3, 5, 7}), (None, {*range(8)})):
        kept, report = reader(on_bad_row="skip").examples(records, unwanted=unwanted)
        assert {int(one.where.removeprefix("row ")) for one in kept} == own, unwanted
        assert unwanted is False or not report.unread
    with pytest.raises(DataError, match="row 0: its label is true: its completion is wanted, and it would be made less"):
        reader().examples(records, unwanted=True)
    named = reader(prompt_template="{prompt} {label}", chat_template=False)
    [kept], _ = named.examples([Record("row 0", PAIR | {"label": "true"})], unwanted=True)
    assert kept.rows


def test_a_row_to_be_forgotten_may_be_labelled_as_unwanted_and_no_other_row() -> None:
    rows = [PAIR | {"label": label, "forget": forget} for label in (True, False) for forget in (True, False)]
    records = [Record(f"row {i}", dict(row)) for i, row in enumerate(rows)]
    kept, report = reader(on_bad_row="skip").examples(records, worth="forget")
    assert [one.where for one in kept] == ["row 1", "row 2"] and not report.unread


@pytest.mark.parametrize(
    "row",
    [
        PAIR | {"images": None, "audio": [], "label": True, "messages": None, "chat_template_kwargs": {}},
        PAIR | {"label": 1, "input": "x"},
        {"messages": TALK, "prompt": "a", "completion": None},
    ],
)
def test_columns_that_say_nothing_or_agree_are_no_reason_to_refuse(row: Columns) -> None:
    assert len(examples(row)[0]) == 1


def test_tools_need_a_template_that_can_show_them() -> None:
    with pytest.raises(DataError, match="its tools need chat_template: true"):
        examples(PAIR | {"tools": [{"name": "add"}]}, chat_template=False)


@pytest.mark.parametrize(
    ("options", "completion"),
    [
        ({"columns": {"prompt": "prompt", "completion": "completion"}}, "b"),
        ({"unused": ["messages"]}, "b"),
        ({"unused": ["completion"]}, "d"),
        ({"columns": {"messages": "messages"}}, "d"),
    ],
)
def test_of_messages_and_a_completion_the_recipe_says_which(tmp_path: Path, options: Any, completion: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(PAIR | {"messages": [TALK[0], TALK[1] | {"content": "d"}]}))
    [example], _ = reader().examples(read(PathSource(path=str(path), **options)))
    tokenizer: Any = make_tokenizer("bytes")
    assert completion in tokenizer.decode(example.rows[0].completion[:1])


@pytest.mark.parametrize(
    ("use", "row", "unread"),
    [
        (Use("demonstrations", Encoding()), PAIR | {"id": 1, "note": None}, ["id"]),
        (Use("demonstrations", Encoding()), {"messages": TALK, "prompt": "a"}, ["prompt"]),
        (Use("demonstrations", Encoding(prompt_template="{prompt} {hint}")), PAIR | {"hint": "h", "id": 1}, ["id"]),
        (Use("demonstrations", Encoding()), PAIR | {"tools": [], "rejected": "c"}, ["rejected"]),
        (Use("pairs", Encoding()), {"prompt": "a", "chosen": "b", "rejected": "c", "margin": 1}, ["margin"]),
        (Use("questions", Encoding(), ("answer",)), {"prompt": "a", "answer": "b", "solution": "c"}, ["solution"]),
        (Use("questions", Encoding(), ("answer",)), {"prompt": "a", "solution": "c"}, []),
        (Use("questions", Encoding(), ("nums",)), {"prompt": "a", "nums": [1], "answer": "c"}, ["answer"]),
        (Use("questions", Encoding(), (), DEMONSTRATIONS), PAIR | {"demonstration": "d"}, ["completion"]),
        (Use("questions", Encoding(), (), anything=True), PAIR | {"id": 1}, []),
    ],
)
def test_columns_that_nothing_reads_are_known(use: Use, row: Columns, unread: list[str]) -> None:
    assert use.unread(Record("row", dict(row))) == unread


def test_columns_that_nothing_reads_are_told_once_with_their_rows() -> None:
    _, report = examples(PAIR | {"id": 1}, PAIR | {"id": 2, "hint": "h"}, PAIR | {"id": 3})
    with hearing() as told:
        tell_unread("data.train", [report])
        tell_unread("data.train", [report])
    [one] = told
    assert one.sentence.startswith("data.train: nothing reads the columns id (all rows), hint (1 of 3 rows)")
    with hearing() as told:
        tell_unread("data.train", [report, DataReport()])
    assert not told


@pytest.mark.parametrize(
    ("value", "text"), [("h", "a h"), (None, "a "), (3, "a 3"), (0.5, "a 0.5"), ("{prompt}", "a {prompt}")]
)
def test_a_template_takes_text_and_numbers_and_null_is_empty_text(value: Any, text: str) -> None:
    assert prompt_of(PAIR | {"hint": value}, prompt_template="{prompt} {hint}") == text


@pytest.mark.parametrize("value", [["a", "b"], {"a": 1}, True, math.nan, math.inf])
def test_a_template_refuses_what_is_no_text_or_number(value: Any) -> None:
    with pytest.raises(DataError, match="prompt_template takes text and numbers, and hint is"):
        prompt_of(PAIR | {"hint": value}, prompt_template="{prompt} {hint}")


def test_a_template_refuses_a_column_that_is_not_there() -> None:
    with pytest.raises(DataError, match="prompt_template names the column 'hint', which the row does not have"):
        prompt_of(PAIR, prompt_template="{prompt} {hint}")


@pytest.mark.parametrize(("answer", "text"), [("42", "42"), (42, "42"), (0.5, "0.5"), (["42"], "42"), ([42], "42")])
def test_an_answer_may_be_a_number_or_a_list_of_one(answer: Any, text: str) -> None:
    [problem], _ = reader().problems([Record("row", {"prompt": "a", "answer": answer})])
    assert problem.columns["answer"] == text


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": TALK[1:]}, "it begins with a turn of the assistant"),
        ({"text": 7}, "text must be text, not int"),
    ],
)
def test_sentences_of_rows_that_are_no_demonstrations_are_true(row: Columns, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        examples(row)


def test_a_pair_that_a_limit_makes_equal_is_not_blamed_on_the_row() -> None:
    row = {"prompt": "a", "chosen": "bbbbbbbbc", "rejected": "bbbbbbbbd"}
    with pytest.raises(DataError, match="chosen and rejected are equal once they are cut to max_tokens"):
        examples(row, sides=SIDES[:2], chat_template=False, max_tokens=6, on_long_completion="cut")
    with pytest.raises(DataError, match=r"chosen and rejected are equal\. "):
        examples(row | {"rejected": row["chosen"]}, sides=SIDES[:2], chat_template=False)


def test_a_template_that_rows_of_messages_have_no_place_for_is_told_once() -> None:
    with hearing() as told:
        examples({"messages": TALK}, {"messages": TALK}, prompt_template="{prompt}?")
        examples(PAIR, prompt_template="{prompt}?")
    assert [one.rule for one in told] == ["prompt-template"]
