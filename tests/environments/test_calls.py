"""How calls of tools are read: as the model families write them, and of any text."""

from __future__ import annotations

import json
import string
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.environments.base import Call
from posttrain.rewards.reading.arguments import MAX_CALLS, MAX_DEPTH, Written
from posttrain.rewards.reading.calls import FORMATS, AnyFormat, unthought

HERMES = '<tool_call>\n{"name": "calc", "arguments": {"expression": "3*4"}}\n</tool_call>'
XML = "<tool_call>\n<function=calc>\n<parameter=expression>\n3*4\n</parameter>\n</function>\n</tool_call>"
ONE = Call("calc", {"expression": "3*4"})
PLACED = Call("calc", {"0": "3*4"})
TWO = Call("look", {})

READ: list[tuple[str, str, list[Call]]] = [
    ("hermes", HERMES, [ONE]),
    ("hermes", f'First:\n{HERMES}\n<tool_call>\n{{"name": "look"}}\n</tool_call>', [ONE, TWO]),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"x": "</tool_call>"}}', [Call("f", {"x": "</tool_call>"})]),
    ("hermes", HERMES.removesuffix("\n</tool_call>"), [ONE]),
    ("qwen3_xml", XML, [ONE]),
    ("qwen3_xml", f"{XML}\n<tool_call>\n<function=look>\n</function>\n</tool_call>", [ONE, TWO]),
    ("qwen3_xml", "<function=f><parameter=x>\nif a:\n    b\n\n</parameter></function>", [Call("f", {"x": "if a:\n    b\n"})]),
    ("pythonic", '[calc(expression="3*4"), look()]', [ONE, TWO]),
    ("pythonic", "<|python_start|>[calc('3*4')]<|python_end|>", [PLACED]),
    ("pythonic", "[f(a=-1, b=2.5e1, c={'k': (1, null)})]", [Call("f", {"a": -1, "b": 25.0, "c": {"k": [1, None]}})]),
    ("pythonic", r"[f(x='it\'s\n\u00e9', y='''a'b''')]", [Call("f", {"x": "it's\né", "y": "a'b"})]),
    ("react", 'Thought: multiply.\nAction: calc(expression="3*4")', [ONE]),
    ("react", 'Action: calc\nAction Input: {"expression": "3*4"}', [ONE]),
    ("react", "Action: calc\nAction Input: 3*4\n", [PLACED]),
    ("react", "Action 1: calc[3*4]\nObservation 1: 12\nAction 2: look()", [PLACED]),
    ("react", "Action: look\nThought: that shows it", [TWO]),
    ("tagged", "I look.\n<calc>\n3*4\n</calc>", [PLACED]),
    ("tagged", "<think>so</think><answer>3</answer>", []),
]  # fmt: skip

BROKEN = [
    ("hermes", '<tool_call>\n{"name": "calc", "argu'),
    ("hermes", '<tool_call>{"name": "calc", "arguments": [1]}</tool_call>'),
    ("hermes", '<tool_call>{"arguments": {}}</tool_call>'),
    ("hermes", f'<tool_call>{{"name": "f", "arguments": {{"x": {"[" * 10_000}{"]" * 10_000}}}}}</tool_call>'),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"x": NaN}}</tool_call>'),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"x": 1e999}}</tool_call>'),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"x": "\\ud800"}}</tool_call>'),
    ("hermes", f'<tool_call>{{"name": "f", "arguments": {{"x": {"9" * 5000}}}}}</tool_call>'),
    ("qwen3_xml", "<function=calc>\n<parameter=expression>\n3*"),
    ("qwen3_xml", "<function=f><parameter=a>1</parameter><parameter=a>2</parameter></function>"),
    ("pythonic", "[calc(expression='3*"),
    ("pythonic", "[calc(expression=open('x'))]"),
    ("pythonic", f"[f({'[' * 10_000})]"),
    ("pythonic", f"[f({'-' * 10_000}1)]"),
    ("pythonic", "[f(x=1, x=2)]"),
    ("react", 'Action: calc("3*4'),
    ("react", 'Action: calc\nAction Input: {"expression": '),
    ("tagged", "<calc>3*"),
]


@pytest.mark.parametrize(("form", "text", "calls"), READ)
def test_calls_are_read_as_models_write_them(form: str, text: str, calls: list[Call]) -> None:
    assert list(FORMATS[form](text)) == calls


@pytest.mark.parametrize(("form", "text"), BROKEN)
def test_a_broken_call_has_a_fault_and_no_arguments(form: str, text: str) -> None:
    (call,) = FORMATS[form](text)
    assert call.fault and not call.arguments


def test_one_broken_call_among_others_costs_the_others_nothing() -> None:
    calls = FORMATS["hermes"](f"<tool_call>{{oh</tool_call>{HERMES}")
    assert [call.fault is None for call in calls] == [False, True] and calls[1] == ONE
    calls = FORMATS["pythonic"]('[calc(expression="3*4"), look(')
    assert calls[0] == ONE and [call.fault is None for call in calls] == [True, False]


@pytest.mark.parametrize("form", FORMATS)
def test_of_very_many_calls_the_first_are_read(form: str) -> None:
    one = {
        "hermes": HERMES,
        "qwen3_xml": XML,
        "pythonic": "look(),",
        "react": "Action: look()\n",
        "tagged": "<a>b</a>",
    }[form]
    calls = FORMATS[form](("[" if form == "pythonic" else "") + one * 10_000)
    assert len(calls) == MAX_CALLS + 1 and calls[-1].fault and all(call.fault is None for call in calls[:-1])


@pytest.mark.parametrize("form", FORMATS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_text_is_read_and_what_is_read_can_be_written_down(form: str, data: st.DataObject) -> None:
    pieces = st.sampled_from(
        ["<tool_call>", "</tool_call>", "<function=f>", "</function>", "<parameter=x>", "</parameter>", "[f(", ")]",
         "Action: ", "f", "(",
         "[", "]", "{", "}", "'", '"', "\\", "\n", ",", "=", "-", ":", "1", "<a>", "</a>", '{"name": "f"',
         "Action Input:"]
    )  # fmt: skip
    text = "".join(data.draw(st.lists(pieces | st.text(string.printable, max_size=3), max_size=30)))
    for call in FORMATS[form](text):
        assert call.fault is not None or call.name
        json.dumps([call.name, dict(call.arguments), call.fault], allow_nan=False).encode()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("text", ["", "The answer is 12.", "3 < 4 > 2", "[1, 2]", "f(x)"])
def test_a_text_without_a_call_has_none(form: str, text: str) -> None:
    assert FORMATS[form](text) == ()


def test_values_without_a_type_say_so() -> None:
    (call,) = FORMATS["qwen3_xml"](XML)
    assert isinstance(call.arguments["expression"], Written)
    (call,) = FORMATS["hermes"](HERMES)
    assert not isinstance(call.arguments["expression"], Written)


def test_depth_is_bounded_where_it_says() -> None:
    def deep(levels: int) -> Call:
        (call,) = FORMATS["hermes"](
            f'<tool_call>{{"name": "f", "arguments": {"{" + chr(34) + "x" + chr(34) + ":"}{"[" * levels}{"]" * levels}}}}}'
        )
        return call

    assert deep(MAX_DEPTH - 4).fault is None and deep(MAX_DEPTH + 1).fault


def test_calls_within_thinking_are_not_read() -> None:
    thinking, rest = unthought(f"<think>\n{HERMES}\n</think>\n\nTwelve.")
    assert rest.strip() == "Twelve." and thinking is not None and HERMES in thinking
    assert unthought(f"so\n</think>\n{HERMES}")[1].strip() == HERMES
    assert unthought(f"<think>\n{HERMES}") == (f"<think>\n{HERMES}", "")
    assert unthought("a</think>b<think>c</think>d")[1] == "d"
    assert unthought("Twelve.") == (None, "Twelve.")


def test_every_format_of_a_recipe_has_a_reader() -> None:
    assert set(get_args(AnyFormat)) == {"none", *FORMATS}
