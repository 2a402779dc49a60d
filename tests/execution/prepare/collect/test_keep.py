"""Which answers are kept: each rule on a worked table."""

from __future__ import annotations

from typing import Any

import pytest

from posttrain.execution.prepare.collect.answer import Answer, Written
from posttrain.execution.prepare.collect.keep import Keeper, likeness, stretches
from posttrain.settings.data.generate import Generate

ANSWERS = [
    Answer("a b", 3, True, True),
    Answer("a b ", 5, True, True),
    Answer("c", 1, False, True),
    Answer("d", 2, True, False),
    Answer("e", 9, True, None, "timeout"),
    Answer("  ", 4, True, True),
]
WRITTEN = Written("row 1", ANSWERS)


def kept(keep: list[Any] | None, *, verdict: str = "grader", **options: Any) -> str:
    step = Generate.model_validate({"n": 6, "verdict": verdict, "keep": keep, **options})
    return "".join(str(ANSWERS.index(one)) for one in Keeper(step).kept(WRITTEN))


@pytest.mark.parametrize(
    ("keep", "numbers"),
    [
        ([], "01234"),
        (["right"], "012"),
        (["wrong"], "3"),
        (["finished"], "0134"),
        (["unique"], "0234"),
        (None, "01"),
        (["right", {"per_question": 2}], "01"),
        ([{"per_question": 3}, "right", "unique"], "02"),
        ([{"min_tokens": 3}], "014"),
        ([{"max_tokens": 2}], "23"),
        ([{"unlike": 1.0}], "0234"),
    ],
)
def test_each_rule_takes_what_the_one_before_it_left_and_what_is_empty_is_never_kept(keep: Any, numbers: str) -> None:
    assert kept(keep) == numbers


def test_what_is_kept_if_nothing_is_said() -> None:
    assert kept(None, verdict="none") == "0134"
    assert kept(None, **{"as": "rejected"}) == "3"


@pytest.mark.parametrize(("share", "numbers"), [(0.5, "012"), (0.66, "012"), (0.67, ""), (1.0, "")])
def test_a_question_stays_where_the_majority_is_large_enough(share: float, numbers: str) -> None:
    """Four of six answers are the majority's."""
    assert kept(["right", {"min_share": share}], verdict="majority") == numbers


def test_answers_that_are_alike_are_kept_once() -> None:
    """Of the stretches abc, bcd, cde and abc, bcd, cdx two of four are shared."""
    assert likeness(stretches("abcde"), stretches("ABCDX")) == 2 / 4
    table = Written("row", [Answer("abcde", 1, True), Answer("abcdx", 1, True), Answer("vwxyz", 1, True)])
    for most, texts in ((0.5, ["abcde", "vwxyz"]), (0.51, ["abcde", "abcdx", "vwxyz"])):
        step = Generate.model_validate({"keep": [{"unlike": most}]})
        assert [one.text for one in Keeper(step).kept(table)] == texts


def test_new_questions_are_compared_with_those_of_all_rows() -> None:
    step = Generate.model_validate({"keep": ["unique"], "as": "prompt"})
    keeper = Keeper(step, ["old"])
    first = Written("row 1", [Answer(text, 1, True) for text in ("old", "new", "new", "other")])
    again = Written("row 2", [Answer(text, 1, True) for text in ("new", "third")])
    assert [one.text for one in keeper.kept(first)] == ["new", "other"]
    assert [one.text for one in keeper.kept(again)] == ["third"]
    answers = Keeper(Generate.model_validate({"keep": ["unique"]}), ["old"])
    assert [one.text for one in answers.kept(first) + answers.kept(again)] == ["old", "new", "other", "new", "third"]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"keep": ["right"]}, "keep: right asks for a verdict"),
        ({"keep": [{"min_share": 0.5}]}, "keep: min_share asks for a verdict"),
        ({"keep": [{"min_share": 0.5}], "verdict": "grader"}, "min_share is of verdict: majority"),
        ({"keep": ["right", "wrong"], "verdict": "grader"}, "right and wrong keep nothing together"),
        ({"keep": [{"per_question": 1, "min_tokens": 2}]}, "a rule has one of per_question"),
        ({"as": "prompt", "verdict": "majority"}, "new questions have none"),
        ({"temperature": 0, "n": 2}, "2 greedy answers are one"),
        ({"against": "own"}, "against: it is of pairs"),
        ({"as": "chosen", "against": "own"}, "told apart by a verdict"),
        ({"as": "chosen", "verdict": "grader", "keep": []}, "right or wrong says which"),
        ({"writer": {"url": "http://a:1"}, "engine": "vllm"}, "the writer is a server"),
        ({"writer": {}}, "give either name or url"),
    ],
)
def test_settings_that_do_not_fit_together(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Generate.model_validate(values)


def test_the_start_is_another_name_of_the_model_itself() -> None:
    assert Generate.model_validate({"writer": "start"}) == Generate.model_validate({})
