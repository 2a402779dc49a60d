"""What a teacher is asked in place of a row's prompt."""

from __future__ import annotations

from typing import Any

import pytest

from posttrain.data.encoding.teacher import Asked
from posttrain.data.reader import Reader
from posttrain.data.rows import Example, Problem, digest
from posttrain.data.sources import Record
from posttrain.errors import DataError
from posttrain.model.load import make_tokenizer
from posttrain.settings.data import Encoding

ASKED = Asked("{prompt} as in {demonstration}")
ROW = {"prompt": "1+1=", "completion": "2", "demonstration": "one and one are 2"}


def read(
    *rows: dict[str, Any], asked: Asked | None = ASKED, questions: bool = True, **data: Any
) -> tuple[list[Problem] | list[Example], Any]:
    tokenizer: Any = make_tokenizer("bytes")
    reader = Reader(Encoding.model_validate(data), tokenizer, [tokenizer.eos_token_id], 200)
    records = [Record(f"x:{i}", row) for i, row in enumerate(rows, 1)]
    if questions:
        return reader.problems(records, room=10, needs=(), teacher=asked)
    return reader.examples(records, teacher=asked)


def asked_as(text: str, **data: Any) -> list[int]:
    [problem], _ = read({"prompt": text}, asked=None, **data)
    assert isinstance(problem, Problem)
    return [*problem.prompt]


@pytest.mark.parametrize("chat", [True, False])
def test_it_is_asked_the_template_as_a_prompt_and_the_student_what_it_was(chat: bool) -> None:
    """By the same chat template and system prompt, in place of prompt_template."""
    data = {"chat_template": chat, "prompt_template": "Q: {prompt}", **({"system_prompt": "Be brief."} if chat else {})}
    plain, wanted = {**data, "prompt_template": "{prompt}"}, "1+1= as in one and one are 2"
    [problem], _ = read(ROW, **data)
    assert isinstance(problem, Problem) and problem.teacher_prompt is not None
    assert [*problem.prompt] == asked_as("Q: 1+1=", **plain) and [*problem.teacher_prompt] == asked_as(wanted, **plain)
    [example], _ = read(ROW, questions=False, **data)
    assert isinstance(example, Example)
    [row] = example.rows
    assert row.teacher_prompt is not None and row.teacher_prompt.tolist() == asked_as(wanted, **plain)
    assert row.prompt.tolist() == [*problem.prompt]
    [in_steps], _ = read({**ROW, "demonstration": ["one and ", "one are 2"]}, **data)
    assert isinstance(in_steps, Problem) and in_steps.teacher_prompt == problem.teacher_prompt
    assert row.as_taught.completion is row.completion and len(row.longest) == len(row.as_taught) > len(row)


def test_of_a_conversation_the_users_last_turn_is_told_more() -> None:
    before = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    talk = [*before, {"role": "user", "content": "1+1="}]
    [problem], _ = read({**ROW, "prompt": talk})
    [told], _ = read({"prompt": [*before, {"role": "user", "content": "1+1= as in one and one are 2"}]}, asked=None)
    assert isinstance(problem, Problem) and isinstance(told, Problem) and problem.teacher_prompt is not None
    assert [*problem.teacher_prompt] == [*told.prompt]
    with pytest.raises(DataError, match="the user's last turn, and the prompt does not end with one"):
        read({**ROW, "prompt": [*talk, {"role": "assistant", "content": "It is"}]})
    with pytest.raises(DataError, match=r"prompt \+ completion \+ demonstration are needed"):
        read({"messages": [*talk, {"role": "assistant", "content": "2"}], "demonstration": "2"}, questions=False)


@pytest.mark.parametrize("questions", [True, False])
def test_a_column_that_is_not_there_is_refused(questions: bool) -> None:
    with pytest.raises(DataError, match=r"x:1: the columns .*hint are needed; the row has .* columns: {hint: <your column>}"):
        read({"prompt": "a", "completion": "b"}, questions=questions, asked=Asked("{prompt}{demonstration}{hint}"))
    bad = (("", "names demonstration, which is empty"), ([1], "demonstration is list"), ([""], "which is empty"))
    for given, says in bad:
        with pytest.raises(DataError, match=f"x:2: .*{says}"):
            read(ROW, {**ROW, "demonstration": given}, questions=questions)
    kept, report = read(ROW, {**ROW, "demonstration": ""}, questions=questions, on_bad_row="skip")
    assert len(kept) == 1 and report.counters == {"bad": 1}
    kept, report = read({**ROW, "more": "x"}, questions=questions)
    assert report.unread == ({"more": 1, "completion": 1} if questions else {"more": 1})


@pytest.mark.parametrize("completion", ["2", [{"role": "assistant", "content": "2"}]])
def test_a_completion_is_a_demonstration_where_there_is_no_other(completion: Any) -> None:
    given = {"prompt": "1+1=", "completion": completion}
    [problem], report = read(given)
    assert isinstance(problem, Problem) and problem.teacher_prompt is not None and not report.unread
    assert [*problem.teacher_prompt] == asked_as("1+1= as in 2")
    [example], _ = read(given, questions=False)
    assert isinstance(example, Example) and example.rows[0].as_taught.prompt.tolist() == asked_as("1+1= as in 2")


@pytest.mark.parametrize("questions", [True, False])
def test_more_than_the_teacher_can_read_is_left_out_or_refused_and_is_not_the_students_limit(questions: bool) -> None:
    """The answer counts; so much of a question as it may have."""
    long = {**ROW, "demonstration": "2" * 300}
    kept, _ = read(long, questions=questions, max_prompt_tokens=60)
    assert len(kept) == 1
    bounded = Asked(ASKED.template, 150)
    kept, report = read(ROW, long, asked=bounded, questions=questions, on_long_prompt="keep_end")
    assert len(kept) == 1 and report.counters == {"long_prompt": 1}
    assert "the teacher would read" in report.notes[0][2] and "knows 150" in report.notes[0][2]
    with pytest.raises(DataError, match=r"x:1: the teacher would read .* set data.on_long_prompt: skip"):
        read(long, asked=bounded, questions=questions, on_long_prompt="raise")


@pytest.mark.parametrize("questions", [True, False])
def test_a_run_that_goes_on_must_ask_its_teacher_the_same(questions: bool) -> None:
    rows = [read(ROW, asked=asked, questions=questions)[0] for asked in (None, ASKED, Asked("{prompt}{demonstration}"))]
    assert len({digest(each) for each in rows}) == 3
