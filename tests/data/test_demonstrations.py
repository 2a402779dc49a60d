"""Demonstrations that questions bring with them: read, measured, checked by the rewards' verdict, and reported."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import normalizers

from posttrain import Group, Judgement, Weighted
from posttrain.data.columns import DEMONSTRATIONS
from posttrain.data.demonstrations import only_right
from posttrain.data.reader import Reader
from posttrain.data.rows import DataReport, Problem
from posttrain.data.sources import Record
from posttrain.errors import DataError
from posttrain.model.load import CHAT_TEMPLATE, make_tokenizer
from posttrain.rewards.demonstrations import demonstration_faults
from posttrain.settings.data import Encoding

PLAIN = {"chat_template": False}
GOOD = {"prompt": "1+1=", "answer": "2", "demonstration": "two"}


def read(
    *rows: dict[str, Any], max_tokens: int = 8, on_long: Any = "skip", tokenizer: Any = None, **data: Any
) -> tuple[list[Problem], DataReport]:
    tokenizer = tokenizer or make_tokenizer("bytes")
    config = Encoding.model_validate({"on_long_completion": on_long, **(data or PLAIN)})
    if config.chat_template:
        tokenizer.chat_template = CHAT_TEMPLATE
    records = (Record(f"row {i}", row) for i, row in enumerate(rows))
    return Reader(config, tokenizer, [tokenizer.eos_token_id]).problems(records, room=max_tokens, demonstrated=DEMONSTRATIONS)


def text(problem: Problem) -> str:
    tokenizer: Any = make_tokenizer("bytes")
    return tokenizer.decode(problem.demonstration or ())


@pytest.mark.parametrize("data", [PLAIN, {"chat_template": True}], ids=["plain", "chat"])
def test_a_demonstration_answers_the_prompt_token_for_token_and_ends(data: dict[str, Any]) -> None:
    (problem,), report = read(GOOD, max_tokens=32, **data)
    tokenizer: Any = make_tokenizer("bytes")
    assert problem.demonstration is not None
    assert tokenizer.decode(problem.demonstration, skip_special_tokens=True).strip() == "two"
    assert problem.demonstration[-1] == tokenizer.eos_token_id
    assert not report.notes


def test_the_last_message_is_one_if_it_is_the_assistants() -> None:
    talk = [{"role": "user", "content": "1+1"}, {"role": "assistant", "content": "two"}]
    kept, _ = read({"prompt": "1+1=", "answer": "2", "messages": talk}, {**GOOD, "demonstration": None, "messages": talk[:1]})
    assert text(kept[0]).startswith("two") and kept[1].demonstration is None


@pytest.mark.parametrize("data", [PLAIN, {"chat_template": True}], ids=["plain", "chat"])
def test_a_list_is_its_steps_and_where_each_begins_is_known(data: dict[str, Any]) -> None:
    steps = ["1+1", " is", "", " two"]
    rows = [{**GOOD, "demonstration": given} for given in (steps, "".join(steps))]
    (stepped, whole), report = read(*rows, max_tokens=32, **data)
    tokenizer: Any = make_tokenizer("bytes")
    assert stepped.demonstration is not None and stepped.demonstration == whole.demonstration and not report.notes
    begun = [tokenizer.decode(stepped.demonstration[:cut]).lstrip() for cut in stepped.cuts]
    assert begun == ["1+1", "1+1 is"] and not whole.cuts


def test_steps_of_one_that_was_cut_are_those_that_are_left() -> None:
    (kept,), _ = read({**GOOD, "demonstration": ["far", " too", " long", "!"]}, on_long="cut")
    assert kept.cuts == (3, 7) and text(kept) == "far too "


def test_steps_that_cannot_be_found_among_the_tokens_are_reported() -> None:
    tokenizer: Any = make_tokenizer("bytes")
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()  # what it writes is not what it was given
    (kept,), report = read({**GOOD, "demonstration": ["T", "wo"]}, tokenizer=tokenizer)
    assert text(kept).startswith("two") and not kept.cuts and report.counters == {"unplaced_steps": 1}


def test_the_column_is_demonstration_or_completion() -> None:
    both, one = read({**GOOD, "completion": "deux"}, {"prompt": "1+1=", "answer": "2", "completion": "deux"})[0]
    assert text(both).startswith("two") and text(one).startswith("deux")


@pytest.mark.parametrize(
    ("row", "counter", "says"),
    [
        ({"prompt": "1+1=", "answer": "2"}, "no_demonstration", "has no demonstration"),
        ({**GOOD, "demonstration": None}, "no_demonstration", "has no demonstration"),
        ({**GOOD, "demonstration": ""}, "bad_demonstration", "completion is empty"),
        ({**GOOD, "demonstration": 7}, "bad_demonstration", "must be text"),
        ({**GOOD, "demonstration": "far too long"}, "long_demonstration", "it has 13 tokens, over the 8 of an answer"),
    ],
)
def test_a_question_without_one_that_can_be_used_stays_and_is_reported(row: dict[str, Any], counter: str, says: str) -> None:
    kept, report = read(GOOD, row)
    assert [problem.demonstration is None for problem in kept] == [False, True]
    assert dict(report.counters) == {counter: 1} and report.rows == 2
    [(_, where, reason)] = report.notes
    assert where == "row 1" and says in reason


def test_a_long_one_can_be_cut_or_refused() -> None:
    long = {**GOOD, "demonstration": "far too long"}
    kept, report = read(long, on_long="cut")
    assert text(kept[0]) == "far too " and report.counters == {"cut_demonstration": 1}
    with pytest.raises(DataError, match="row 0: the demonstration is too long"):
        read(long, on_long="raise")


def test_no_demonstration_at_all_is_an_error() -> None:
    with pytest.raises(DataError, match=r"no row has a demonstration that can be used.*demonstration: <your column>"):
        read({"prompt": "1+1=", "answer": "2"})


class Verdict:
    """Right is what begins with the answer; `fault` fails."""

    name, columns = "verdict", ("answer",)

    def judge(self, group: Group) -> list[Judgement]:
        (completion,) = group.completions
        if completion == "fault":
            raise RuntimeError("no idea")
        right = completion.startswith(group.columns["answer"])
        return [Judgement(float(right), right)]

    def close(self) -> None:
        pass


def checked(*demonstrations: str, on_wrong: Any = "skip", verdict: bool = True) -> tuple[list[Problem], DataReport]:
    rows = [{**GOOD, "demonstration": demonstration} for demonstration in demonstrations]
    kept, report = read(*rows, max_tokens=32)
    judges = [Weighted(Verdict(), verdict=verdict)]
    return only_right(kept, report, demonstration_faults(judges, make_tokenizer("bytes")), on_wrong=on_wrong), report


def test_one_that_is_not_right_is_not_used_and_reported() -> None:
    kept, report = checked("2", "3", "fault", "2!")
    assert [problem.demonstration is not None for problem in kept] == [True, False, False, True]
    assert report.counters == {"wrong_demonstration": 2}
    assert [(where, reason) for _, where, reason in report.notes] == [
        ("row 1", "its demonstration is not used: it is not right by the rewards' verdict: '3'"),
        ("row 2", "its demonstration is not used: it could not be graded (raised RuntimeError: no idea): 'fault'"),
    ]


def test_wrong_ones_can_be_kept_or_refused() -> None:
    kept, report = checked("2", "3", on_wrong="keep")
    assert all(problem.demonstration is not None for problem in kept) and not report.notes
    with pytest.raises(DataError, match=r"row 1: its demonstration is not right.*'3'.*on_wrong_demonstration: skip"):
        checked("2", "3", on_wrong="raise")


def test_questions_without_one_keep_their_place() -> None:
    kept, report = read({**GOOD, "demonstration": None}, {**GOOD, "demonstration": "3"}, GOOD | {"demonstration": "2"})
    judges = [Weighted(Verdict(), verdict=True)]
    checked = only_right(kept, report, demonstration_faults(judges, make_tokenizer("bytes")), on_wrong="skip")
    assert [problem.where for problem in checked] == ["row 0", "row 1", "row 2"]
    assert [problem.demonstration is not None for problem in checked] == [False, False, True]
    assert [where for counter, where, _ in report.notes if counter == "wrong_demonstration"] == ["row 1"]


def test_without_a_verdict_nothing_is_checked() -> None:
    kept, _ = checked("2", "3", verdict=False)
    assert all(problem.demonstration is not None for problem in kept)


def test_not_one_right_is_an_error() -> None:
    with pytest.raises(DataError, match=r"No demonstration can be used; the last: row 1: .*on_wrong_demonstration: keep"):
        checked("3", "4")
