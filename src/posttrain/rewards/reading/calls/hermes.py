"""Calls as Hermes, Qwen2.5 and Qwen3 write them: JSON between tags, several in a row.

    <tool_call>
    {"name": "calc", "arguments": {"expression": "3*4"}}
    </tool_call>

The last one need not be closed where its JSON is whole, as vLLM's and transformers' readers have it; a `</tool_call>` within
a string of the JSON ends nothing. transformers' `response_template` reads this too, but raises at one broken call, and all
calls of the turn are lost; and most tokenizers have none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from posttrain.rewards.reading.arguments import Call, bounded, read_json

OPEN, CLOSE = "<tool_call>", "</tool_call>"


EXAMPLE = '<tool_call>\n{"name": "NAME", "arguments": {"PARAMETER": VALUE}}\n</tool_call>'


def read(text: str) -> Sequence[Call]:
    """The calls of a turn's text."""
    return bounded(_calls(text))


def _calls(text: str) -> Iterator[Call]:
    at = 0
    while (found := text.find(OPEN, at)) >= 0:
        begin = found + len(OPEN)
        while text[begin : begin + 1].isspace():
            begin += 1
        close = text.find(CLOSE, begin)
        try:
            value, end = read_json(text, begin)
            close = text.find(CLOSE, end)
            if text[end : close if close >= 0 else len(text)].strip():
                raise ValueError("more follows it")
        except ValueError as error:
            yield Call("", fault=f"between its tags is no JSON: {error}")
        else:
            yield _call(value)
        at = close + len(CLOSE) if close >= 0 else len(text)


def _call(value: Any) -> Call:
    name = value.get("name") if isinstance(value, dict) else None
    if not isinstance(name, str) or not name:
        return Call("", fault='it has no "name"')
    arguments = value.get("arguments", {})
    return Call(name, arguments) if isinstance(arguments, dict) else Call(name, fault='its "arguments" are no JSON object')
