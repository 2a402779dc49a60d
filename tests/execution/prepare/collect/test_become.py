"""What answers become: the rows of each kind, and what they keep of the row that was asked."""

from __future__ import annotations

from typing import Any

import pytest

from posttrain.data.sources import Record
from posttrain.errors import DataError
from posttrain.execution.prepare.collect.answer import Answer, Written
from posttrain.execution.prepare.collect.become import Asked, rows_of
from posttrain.execution.prepare.collect.keep import Keeper
from posttrain.settings.data.generate import Generate

ROW = {"prompt": "q", "completion": "gold", "answer": "7", "label": True, "weight": 2.0, "topic": "sums"}
WRITTEN = Written(
    "row 1",
    [Answer("r1", 2, True, True), Answer("w1", 2, True, False), Answer("r2", 2, True, True), Answer("r3", 2, True, True)],
)
OTHERS = {"answer": "7", "topic": "sums"}


def rows(columns: Any = ROW, written: Any = WRITTEN, **given: Any) -> list[Record]:
    step, record = Generate.model_validate({"keep": ["right"], "verdict": "grader", **given}), Record("row 1", columns)
    keeper = Keeper(step)
    return rows_of(step, Asked(record, columns), written, keeper.kept(written), keeper.others(written))


def made(columns: Any = ROW, **options: Any) -> list[dict[str, Any]]:
    return [record.columns for record in rows(columns, **options)]


def test_a_completion_is_a_row_of_the_prompt_and_it_and_worth_what_the_verdict_says() -> None:
    assert made(**{"as": "completion"}) == [
        {"prompt": "q", "completion": text, **OTHERS, "reward": 1.0} for text in ("r1", "r2", "r3")
    ]
    every = made(**{"as": "completion", "keep": []})
    assert [(one["completion"], one["reward"]) for one in every] == [("r1", 1), ("w1", 0), ("r2", 1), ("r3", 1)]
    unjudged = Written("row 1", [Answer("r1", 2, True)])
    assert "reward" not in rows(written=unjudged, verdict="none", keep=[])[0].columns


def test_a_column_is_added_to_the_row_that_was_asked() -> None:
    found = rows(**{"as": "column", "column": "draft"})
    assert [one.columns for one in found] == [{**ROW, "draft": text, "reward": 1.0} for text in ("r1", "r2", "r3")]
    assert all(one.made for one in found) and not any(one.made for one in rows(source="keep")[:1])


def test_a_demonstration_and_an_answer_are_columns_of_the_row() -> None:
    assert made(**{"as": "demonstration"}) == [{**ROW, "demonstration": "r1"}]
    assert made(**{"as": "answer"}) == [{**ROW, "answer": "r1"}]


def test_a_new_question_and_a_text_are_rows_without_what_was_known_of_the_old_one() -> None:
    options: dict[str, Any] = {"verdict": "none", "keep": [{"per_question": 1}]}
    assert made(**{"as": "prompt", **options}) == [{"prompt": "r1", "topic": "sums"}]
    assert made(**{"as": "text", **options}) == [{"text": "r1", "topic": "sums", "reward": 1.0}]


def test_right_answers_stand_against_wrong_ones_as_many_as_there_are_of_both() -> None:
    assert made(**{"as": "chosen"}) == [{"prompt": "q", "chosen": "r1", "rejected": "w1", **OTHERS}]
    assert made(**{"as": "rejected", "keep": None}) == made(**{"as": "chosen"})


@pytest.mark.parametrize(
    ("kind", "columns", "pair"),
    [
        ("rejected", {"completion": "gold"}, ("gold", "r1")),
        ("rejected", {"completion": "gold", "chosen": "best"}, ("best", "r1")),
        ("rejected", {"demonstration": ["go", "ld"]}, ("gold", "r1")),
        (
            "rejected",
            {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "gold"}]},
            ("gold", "r1"),
        ),
        ("chosen", {"rejected": "bad", "completion": "gold"}, ("r1", "bad")),
        ("rejected", {"completion": " r1 "}, None),
        ("rejected", {}, None),
    ],
)
def test_an_answer_stands_against_the_datas(kind: str, columns: dict[str, Any], pair: tuple[str, str] | None) -> None:
    """SPIN has the data's completion against the model's own; equal ones, and rows without another side, are no pair."""
    options: dict[str, Any] = {"as": kind, "against": "data", "keep": [{"per_question": 1}]}
    found = made(columns={"prompt": "q", **columns}, **options)
    assert [(one["chosen"], one["rejected"]) for one in found] == ([pair] if pair else [])
    assert all(set(one) <= {"prompt", "chosen", "rejected"} for one in found)


def test_the_majoritys_answer_takes_the_place_of_the_label() -> None:
    voted = Written("row 1", WRITTEN.answers, "5")
    assert [one.columns["answer"] for one in rows(written=voted)] == ["5"] * 3
    assert rows(written=voted, **{"as": "answer", "verdict": "majority"})[0].columns == {**ROW, "answer": "5"}


@pytest.mark.parametrize(
    ("source", "keep", "places"),
    [
        ("leave_out", [{"per_question": 1}], ["row 1"]),
        ("leave_out", [], ["row 1#1", "row 1#2", "row 1#3", "row 1#4"]),
        ("keep", [{"per_question": 1}], ["row 1", "row 1#1"]),
        ("fallback", [{"per_question": 1}], ["row 1"]),
        ("fallback", [{"min_tokens": 9}], ["row 1"]),
        ("leave_out", [{"min_tokens": 9}], []),
    ],
)
def test_the_row_that_was_asked_stays_if_that_is_said_and_every_row_has_a_place_of_its_own(
    source: str, keep: list[Any], places: list[str]
) -> None:
    found = rows(source=source, keep=keep)
    assert [one.where for one in found] == places
    untouched = [one for one in found if one.columns is ROW]
    assert len(untouched) == (source == "keep" or (source == "fallback" and keep == [{"min_tokens": 9}]))


def test_an_answer_to_a_text_is_no_completion() -> None:
    text = {"prompt": "", "text": "a text"}
    with pytest.raises(DataError, match="row 1: as: completion is said of a prompt, and the row has none"):
        rows(columns=text)
    assert rows(columns=text, **{"as": "text"})[0].columns == {"text": "r1", "reward": 1.0}
