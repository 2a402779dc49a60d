"""Calls of tools, scored as TL-Training (arXiv:2412.15495) scores them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from posttrain.rewards.base import Group, Judgement
from posttrain.rewards.grading import Verdict
from posttrain.rewards.kinds.tool_call import ToolCallReward
from posttrain.rewards.options import Judged
from posttrain.rewards.values import Refused
from posttrain.settings.data import PathSource

JUDGED = Judged(PathSource(path="unread.jsonl"), 8)
PARAMETERS = {name: {"type": kind} for name, kind in (("city", "string"), ("days", "integer"), ("unit", "string"))}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": PARAMETERS}}},
    {"type": "function", "function": {"name": "time", "parameters": {"type": "object", "properties": {}}}},
]
RIGHT = [{"name": "weather", "arguments": {"city": "Bern", "days": 2}}]
TABLE = [
    ('{"name": "weather", "arguments": {"city": "Bern", "days": 2}}', 1.0),
    ('{"name": "weather", "arguments": {"days": 2.0, "city": " Bern"}}', 1.0),
    ('{"name": "weather", "arguments": {"city": "Bern", "days": 2', -2.0),
    ('{"name": "clock", "arguments": {}}', -2.0),
    ('{"name": "time", "arguments": {}}', -1.5),
    ('{"name": "weather", "arguments": {"country": "CH", "unit": "C", "days": 2}}', -1.8),
    ('{"name": "weather", "arguments": {"country": "CH", "unit": "C", "city": "Bern", "days": 2}}', -1.3),
    ('{"name": "weather", "arguments": {"country": "CH", "days": 2}}', -1.3),
    ('{"name": "weather", "arguments": {"city": "Bern", "unit": "C"}}', -1.0),
    ('{"name": "weather", "arguments": {"city": "Bern", "days": 2, "country": "CH"}}', -0.8),
    ('{"name": "weather", "arguments": {"city": "Bern", "days": 2, "unit": "C"}}', -0.5),
    ('{"name": "weather", "arguments": {"city": "Bern"}}', -0.5),
    ('{"name": "weather", "arguments": {"city": "Basel", "days": 2}}', -0.25),
    ('{"name": "weather", "arguments": {"city": "Bern", "days": "2"}}', -0.25),
    ('{"name": "weather", "arguments": {"city": "Bern", "days": true}}', -0.25),
    ('{"name": "weather", "arguments": {"city": "Bern", "days": 2, "unit": null}}', 1.0),
]


def written(*calls: str) -> str:
    return "".join(f"<tool_call>{call}</tool_call>" for call in calls)


def judged(
    text: str, calls: Any = RIGHT, tools: Any = TOOLS, written_as: Any = "hermes", *, finished: bool = True
) -> Judgement:
    reward = ToolCallReward(format=written_as).build(JUDGED)
    columns = {"prompt": "?", "calls": calls} | ({} if tools is None else {"tools": tools})
    [one] = reward.judge(Group(completions=[text], tokens=[()], finished=[finished], columns=columns))
    assert isinstance(one, Judgement)
    return one


@pytest.mark.parametrize(("call", "score"), TABLE)
def test_a_call_is_worth_what_is_wrong_with_it(call: str, score: float) -> None:
    one = judged(written(call))
    assert (one.score, one.right) == (score, score == 1)


def test_a_turn_without_a_call_that_was_cut_off_or_that_only_thinks_of_one_is_unparsable() -> None:
    right = written(TABLE[0][0])
    assert judged("Bern is nice.").score == -2 == judged(right, finished=False).score == judged(f"<think>{right}").score
    assert judged(f"<think>{written(TABLE[4][0])}</think>{right}").right


@pytest.mark.parametrize(
    ("calls", "score"),
    [
        ([0, 4], 1.0),
        ([4, 0], 1.0),
        ([0], (1 - 2) / 2),
        ([0, 4, 4], (1 + 1 - 1.5) / 3),
        ([0, 4, 3], (1 + 1 - 2) / 3),
        ([12, 4], (-0.25 + 1) / 2),
        ([], -2.0),
    ],
)
def test_of_several_calls_the_order_is_nothing_and_each_that_is_missing_or_too_many_counts(
    calls: list[int], score: float
) -> None:
    one = judged(written(*(TABLE[number][0] for number in calls)), [*RIGHT, {"name": "time", "arguments": {}}])
    assert one.score == pytest.approx(score) and one.right == (score == 1)


def test_where_no_call_is_wanted_any_is_wrong() -> None:
    assert judged("It is two.", []).right
    assert judged(written(TABLE[4][0]), []).score == -1.5


@pytest.mark.parametrize(
    ("written_as", "text"),
    [
        ("hermes", written(TABLE[0][0])),
        ("qwen3_xml", "<function=weather><parameter=city>Bern</parameter><parameter=days>2</parameter></function>"),
        ("pythonic", '[weather(city="Bern", days=2)]'),
        ("react", "Action: weather('Bern', 2)"),
    ],
)
@pytest.mark.parametrize("tools", [TOOLS, None, json.dumps([{"name": "weather", "parameters": {"city": {"type": "str"}}}])])
def test_every_format_is_read_with_tools_and_without(written_as: str, text: str, tools: Any) -> None:
    """The last tools are as xLAM's rows have them, where the schema lacks an argument of the right call."""
    assert judged(text, tools=tools, written_as=written_as).score == 1


def test_a_tag_has_one_argument() -> None:
    right = [{"name": "search", "arguments": {"query": "2"}}]
    assert judged("<search>2</search>", right, None, "tagged").right
    assert judged("<search>3</search>", right, None, "tagged").score == -0.25


@pytest.mark.parametrize(
    "calls",
    [
        json.dumps(RIGHT),
        RIGHT[0],
        [{"type": "function", "function": {"name": "weather", "arguments": '{"city": "Bern", "days": 2}'}}],
        [{"name": "weather", "arguments": {"city": "Bern", "days": 2, "unit": None}}],
    ],
)
def test_rows_write_calls_as_lists_or_json_text_and_tables_fill_them_with_null(calls: Any) -> None:
    assert judged(written(TABLE[0][0]), calls).right


@pytest.mark.parametrize("calls", ["weather(Bern)", 3, [{"arguments": {}}], [{"name": "weather", "arguments": "2"}], ["a"]])
def test_what_is_no_call_is_a_fault_of_the_row(calls: Any) -> None:
    with pytest.raises(Refused, match="the column calls holds"):
        judged("", calls)


def test_the_grader_of_evaluations_finds_the_same_right() -> None:
    grader = ToolCallReward(format="hermes").grader()
    for call, score in TABLE:
        grade = grader.grade(written(call), "?", json.dumps(RIGHT))
        assert (grade.verdict is Verdict.RIGHT) == (score == 1)
    assert grader.equal(written(TABLE[0][0], TABLE[4][0]), written(TABLE[4][0], TABLE[0][0]))
    assert grader.grade("", "?", "no calls").verdict is Verdict.BAD_REFERENCE


def test_tools_may_stand_in_another_column_which_must_be_there() -> None:
    reward = ToolCallReward(format="hermes", tools="offered").build(JUDGED)
    columns = {"prompt": "?", "calls": RIGHT, "offered": TOOLS}
    group = Group(completions=[written(TABLE[4][0])], tokens=[()], finished=[True], columns=columns)
    assert [one.score for one in reward.judge(group)] == [-1.5] and reward.columns == ("calls", "offered")


def test_a_format_is_asked_for() -> None:
    with pytest.raises(ValidationError, match="format"):
        ToolCallReward.model_validate({"name": "tool_call"})
