"""Lists of prompts and completions: each completion stands under each prompt, or the row is refused with its reason."""

from __future__ import annotations

from typing import Any

import pytest

from posttrain.data.reader import Reader
from posttrain.data.rows import Example, Row
from posttrain.data.sources import Record
from posttrain.errors import DataError
from posttrain.model.load import make_tokenizer
from posttrain.settings.data import Encoding
from posttrain.settings.model import CharacterTokenizer

ROW: dict[str, Any] = {"prompts": ["a", "ab"], "completions": ["c", "bb"]}
TOKENIZER: Any = make_tokenizer(CharacterTokenizer(characters="abc\n"))


def read(*rows: dict[str, Any], number: int = 2, **options: Any) -> list[Example]:
    reader = Reader(Encoding.model_validate({"chat_template": False, **options}), TOKENIZER, [1])
    return reader.examples([Record(f"row {i}", dict(row)) for i, row in enumerate(rows, 1)], crossed=number)[0]


def texts(row: Row) -> tuple[str, str]:
    prompt, completion = (TOKENIZER.decode(ids) for ids in (row.prompt, row.completion))
    return prompt, completion.replace(TOKENIZER.eos_token, "$")


def test_each_completion_stands_under_each_prompt_by_prompts() -> None:
    [one] = read(ROW)
    assert one.crossed and one.where == "row 1"
    assert list(map(texts, one.rows)) == [("a", "c$"), ("a", "bb$"), ("ab", "c$"), ("ab", "bb$")]
    assert all(row.mask.all() for row in one.rows)


def test_the_recipes_template_is_around_each_prompt() -> None:
    [one] = read(ROW | {"n": "c"}, prompt_template="{n}{prompt}\n")
    assert [texts(row)[0] for row in one.rows[::2]] == ["ca\n", "cab\n"]


def test_principles_may_be_the_systems_and_the_chat_template_is_around_them() -> None:
    def told(principle: str) -> list[dict[str, str]]:
        return [{"role": "system", "content": principle}, {"role": "user", "content": "c"}]

    talk = {"prompts": [told("a"), told("b")], "completions": ["c", [{"role": "assistant", "content": "bb"}]]}
    [one] = read(talk, chat_template=True)
    rows = list(map(texts, one.rows))
    assert [completion for _, completion in rows] == ["c$", "bb$"] * 2
    assert [prompt for prompt, _ in rows] == [rows[0][0]] * 2 + [rows[0][0].replace("a", "b", 1)] * 2 != [rows[0][0]] * 4


def test_a_completion_is_cut_alike_under_all_prompts() -> None:
    [one] = read({"prompts": ["a", "aab"], "completions": ["c", "bbbbb"]}, max_tokens=6, on_long_completion="cut")
    assert [texts(row)[1] for row in one.rows] == ["c$", "bbb", "c$", "bbb"]
    assert [len(row.mask) for row in one.rows] == [2, 3, 2, 3]


@pytest.mark.parametrize(
    ("changed", "options", "reason"),
    [
        ({"prompts": ["a", "b", "ab"]}, {}, "prompts lists 3, and 2 are asked for"),
        ({"completions": ["a", "b", "ab"]}, {}, "completions lists 3, and 2 are asked for"),
        ({"prompts": ["a"], "completions": ["b"]}, {}, "prompts lists 1, and 2 are asked for"),
        ({"prompts": []}, {}, "prompts lists 0, and 2 are asked for"),
        ({"prompts": "ab"}, {}, "prompts must be a list of 2, each text or a list of messages"),
        ({"completions": None}, {}, "completions must be a list of 2"),
        (
            {"prompts": [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]},
            {},
            "prompts must be a list of 2",
        ),
        ({"prompts": ["a", " "]}, {}, "prompt 2 with completion 1: prompt is empty"),
        ({"completions": ["a", ""]}, {}, "prompt 1 with completion 2: completion is empty"),
        ({"completions": ["a", 3]}, {}, "prompt 1 with completion 2: completion must be text"),
        ({"prompts": ["ab", "ab"]}, {}, "prompts 1 and 2 are equal: nothing tells them apart"),
        ({"completions": ["b", "b"]}, {}, "completions 1 and 2 are equal: nothing tells them apart"),
        (
            {"prompts": ["abbc", "bbc"]},
            {"max_prompt_tokens": 2, "on_long_prompt": "keep_end"},
            "prompts 1 and 2 are equal once they are cut",
        ),
        (
            {"completions": ["bbbbbba", "bbbbbbc"]},
            {"max_tokens": 6, "on_long_completion": "cut"},
            "completions 1 and 2 are equal once they are cut",
        ),
        ({"completions": ["bbbbbbb", "c"]}, {"max_tokens": 6}, "prompt 1 with completion 1: prompt and completion have 9"),
    ],
)
def test_what_makes_no_unit_is_refused(changed: dict[str, Any], options: dict[str, Any], reason: str) -> None:
    with pytest.raises(DataError, match=f"row 2: {reason}"):
        read(ROW, ROW | changed, **{"on_long_completion": "raise", **options})


def test_rows_that_are_written_otherwise_are_told_which_columns_are_read() -> None:
    with pytest.raises(DataError, match=r"the columns prompts \+ completions are needed; the row has prompt, completion"):
        read({"prompt": "a", "completion": "b"})


def test_a_prompt_beside_the_lists_is_not_read() -> None:
    reader = Reader(Encoding(chat_template=False), TOKENIZER, [1])
    _, report = reader.examples([Record("row 1", ROW | {"prompt": "b"})], crossed=2)
    assert dict(report.unread) == {"prompt": 1}
