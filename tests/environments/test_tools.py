"""Tools: what of a call is checked, and what the policy is told."""

from __future__ import annotations

import asyncio
from typing import Annotated

import pytest
from pydantic import Field, TypeAdapter

from posttrain.environments.base import Call
from posttrain.environments.tools import SHOWN, Failed, Tools
from posttrain.rewards.reading.arguments import Written


def calc(expression: Annotated[str, Field(description="What is worked out.")], digits: int = 2) -> str:
    """Works something out."""
    return f"{expression}, {digits}"


async def total(of: list[int], scale: float | None = None) -> str:
    """Adds up."""
    return str(sum(of) * (scale or 1))


def broken(how: str) -> str:
    """Fails, of itself."""
    return str(TypeAdapter(int).validate_python(how))


def said(*calls: Call) -> list[str]:
    return [message["content"] for message in asyncio.run(Tools(calc, total, broken).answer(calls))]


def test_what_the_template_is_given() -> None:
    (schema,) = Tools(calc).schemas
    parameters = {
        "type": "object",
        "properties": {
            "expression": {"type": "string", "description": "What is worked out."},
            "digits": {"type": "integer", "default": 2},
        },
        "required": ["expression"],
        "additionalProperties": False,
    }
    assert schema == {
        "type": "function",
        "function": {"name": "calc", "description": "Works something out.", "parameters": parameters},
    }


def test_results_come_in_the_order_of_the_calls_one_for_each() -> None:
    calls = [
        Call("total", {"of": [1, 2]}),
        Call("", fault="it is cut off"),
        Call("calc", {"expression": "3"}),
        Call("<|end|>"),
    ]
    messages = asyncio.run(Tools(calc, total).answer(calls))
    assert [(message["role"], message["name"]) for message in messages] == [
        ("tool", "total"),
        ("tool", "unknown"),
        ("tool", "calc"),
        ("tool", "unknown"),
    ]
    assert messages[0]["content"] == "3" and messages[2]["content"] == "3, 2"
    assert [message.get("error", False) for message in messages] == [False, True, False, True]
    assert "cut off" in messages[1]["content"] and "calc, total" in messages[3]["content"]


@pytest.mark.parametrize(
    ("arguments", "faults"),
    [
        ({}, ["expression is missing"]),
        ({"expression": "1", "places": 3}, ["it has no argument 'places'"]),
        ({"expression": 1}, ["expression: Input should be a valid string"]),
        ({"expression": "1", "digits": "3"}, ["digits: Input should be a valid integer"]),
        ({"expression": "1", "digits": True}, ["digits: Input should be a valid integer"]),
        ({"0": "1", "expression": "1"}, ["it has no argument '0'"]),
        ({"digits": None, "x": 1}, ["expression is missing", "digits: ", "it has no argument 'x'"]),
    ],
)
def test_a_wrong_argument_is_an_observation(arguments: dict[str, object], faults: list[str]) -> None:
    (text,) = said(Call("calc", arguments))
    assert text.startswith("calc was not called: ") and all(fault in text for fault in faults)


def test_a_tool_that_says_no_is_an_observation_that_is_marked() -> None:
    def half(of: int) -> str:
        """Halves."""
        return str(of // 2) if of % 2 == 0 else Failed(f"{of} is odd.")

    even, odd, wrong = asyncio.run(
        Tools(half).answer([Call("half", {"of": 4}), Call("half", {"of": 3}), Call("half", {"of": "4"})])
    )
    assert even == {"role": "tool", "name": "half", "content": "2"}
    assert odd == {"role": "tool", "name": "half", "content": "3 is odd.", "error": True}
    assert type(odd["content"]) is str and wrong["error"] is True


def test_arguments_without_a_name_or_a_type_are_read_by_the_schema() -> None:
    assert said(Call("calc", {"0": "1", "1": 4}), Call("calc", {"0": Written("12"), "digits": Written("3")})) == [
        "1, 4",
        "12, 3",
    ]
    assert said(Call("total", {"of": Written("[1, 2]"), "scale": Written("None")})) == ["3"]
    assert "valid list" in said(Call("total", {"of": Written("[1, 2")}))[0]


def test_what_a_tool_raises_is_no_observation() -> None:
    with pytest.raises(ValueError, match="int_parsing"):
        said(Call("broken", {"how": "x"}))


def test_what_is_said_back_is_short() -> None:
    texts = said(Call("x" * 10**5), Call("calc", {"y" * 10**5: 1}))
    assert max(map(len, texts)) < 4 * SHOWN
