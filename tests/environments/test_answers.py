"""Answers after ####: what is read as one, when it is right, and that no tool writes it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any

import pytest

from gsm8k import real_data
from posttrain.environments.base import Call, Step, Turn
from posttrain.environments.kinds._answering import final, same
from posttrain.environments.kinds.calculator import CalculatorConfig, calc

CONFIG = CalculatorConfig(max_turns=6, format="hermes")


def steps(columns: Mapping[str, Any], *turns: Turn, config: CalculatorConfig = CONFIG) -> list[Step]:
    async def episode() -> list[Step]:
        environment = config.build()()
        await environment.reset(columns, 0)
        return [await environment.step(turn) for turn in turns]

    return asyncio.run(episode())


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so\n#### 12", "12"),
        ("#### 1\n#### 2", "2"),
        ("12", None),
        ("##### 12", None),
        ("<think>\n#### 1\n</think>\n12", None),
        ("<think>\n#### 1", None),
        ("<tool_response>\n#### 12\n</tool_response>", None),
        ("#### 7\n<tool_response>#### 12", "7"),
    ],
)
def test_an_answer_is_what_stands_after_the_last_hashes_of_the_policys_own(text: str, answer: str | None) -> None:
    assert final(text) == answer


@pytest.mark.parametrize(
    ("answer", "right", "is_right"),
    [
        ("$1,200.00 a day", "1200", True),
        ("1 200", "1200", False),
        ("-3", "3", False),
        ("0.50", "0.5", True),
        ("twelve", "12", False),
        ("12", "oslo", False),
        (" 'Oslo'. ", "oslo", True),
        ("", "12", False),
        ("1" * 10_000, "1", False),
        ("it is .5", "1/2", True),
        ("3", "3/4", False),
        ("1/0", "1", True),
    ],
)
def test_answers_are_compared_as_numbers_or_as_words(answer: str, right: str, is_right: bool) -> None:
    assert same(answer, right) is is_right


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("3*4", "12"),
        ("(1+2)*3-4/8", "8.5"),
        ("1/3", "0.333333"),
        ("-2/3", "-0.666667"),
        ("1,234+1=", "1235"),
        ("6 ÷ 4 × 2", "3"),
        ("0.1+0.2", "0.3"),
        ("2/0", "It divides by 0."),
    ],
)
def test_the_calculator_is_exact(expression: str, value: str) -> None:
    assert calc(expression) == value


@pytest.mark.parametrize(
    "expression", ["9**9", "1e999", "__import__('os')", "1j", "True", "x", "(" * 250, "-" * 290, "", "3 4"]
)
def test_what_is_no_arithmetic_is_told_so(expression: str) -> None:
    assert calc(expression).startswith("It is no arithmetic")


def test_what_a_tool_says_is_no_answer_and_with_calls_a_turn_is_not_the_end() -> None:
    row = {"prompt": "How much is 3 times 4?", "answer": "It is <<3*4=12>>12.\n#### 12"}
    first, last = steps(row, Turn("#### 12", calls=[Call("calc", {"expression": "3*4"})]), Turn("So it is."))
    assert not first.done and first.messages == [{"role": "tool", "name": "calc", "content": "12"}]
    assert last.done and last.reward == 0 and last.info == {"correct": False, "answer": ""}
    (right,) = steps(row, Turn("#### 12"))
    assert right.done and right.reward == 1 and right.info == {"correct": True, "answer": "12"}


def test_several_calls_of_a_turn_have_one_result_each() -> None:
    calls = [Call("calc", {"expression": "1+1"}), Call("", fault="it is cut off"), Call("calc", {"expression": "2+2"})]
    (step,) = steps({"prompt": "?", "answer": 1}, Turn("", calls=calls))
    assert [message["content"][:8] for message in step.messages] == ["2", "The call", "4"]


def test_in_plain_text_a_call_is_a_number_or_a_sign_and_none_stands_in_thinking() -> None:
    plain = CalculatorConfig(max_turns=6, words=False)
    texts = ["calc(3*(1+1))", "calc(x)", "calc(", "<think>calc(3)</think>", "calc(2)*2", "so #### 6"]
    said = steps({"prompt": "3*2=", "answer": 6}, *map(Turn, texts), config=plain)
    assert [step.messages[0]["content"] for step in said[:-1]] == ["6", "!", "!", "!", "2"] and said[-1].reward == 1


@pytest.mark.parametrize("row", [{"prompt": [{"role": "user", "content": "?"}], "answer": "1"}, {"prompt": "?"}])
def test_a_row_without_an_answer_is_refused(row: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="its answer in the column answer"):
        steps(row, Turn("#### 1"))


def test_real_questions_are_answered_by_their_own_answers_and_their_own_calls() -> None:
    rows = [json.loads(line) for line in (real_data() / "gsm8k_test.jsonl").read_text().splitlines()]
    calls = [pair for row in rows for pair in re.findall(r"<<([^=<>]+)=([^<>]+)>>", row["answer"])]
    for row in rows[:100]:
        (right,) = steps({"prompt": row["question"], "answer": row["answer"]}, Turn(row["answer"]))
        assert right.info["correct"]
    assert len(calls) == 4282 and [(left, right) for left, right in calls if not same(calc(left), right)] == []
