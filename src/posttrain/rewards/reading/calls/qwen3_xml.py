"""Calls as Qwen3-Coder and Qwen3.5 write them: a tag for the function, and one for each argument, whose value is text.

    <tool_call>
    <function=calc>
    <parameter=expression>
    3*4
    </parameter>
    </function>
    </tool_call>

The outer tags are often left out, and not asked for. One newline at both ends of a value is the format's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from posttrain.rewards.reading.arguments import Call, Written, bounded

EXAMPLE = "<tool_call>\n<function=NAME>\n<parameter=PARAMETER>\nVALUE\n</parameter>\n</function>\n</tool_call>"
_FUNCTION = re.compile(r"<function=([^>\n]{1,200})>")
_PARAMETER = re.compile(r"\s*<parameter=([^>\n]{1,200})>")
_END = re.compile(r"\s*</function>")
_CLOSE = "</parameter>"


def read(text: str) -> Sequence[Call]:
    """The calls of a turn's text; their arguments are `Written`."""
    return bounded(_calls(text))


def _calls(text: str) -> Iterator[Call]:
    at = 0
    while (found := _FUNCTION.search(text, at)) is not None:
        call, at = _call(text, found[1].strip(), found.end())
        yield call


def _call(text: str, name: str, at: int) -> tuple[Call, int]:
    arguments = dict[str, Written]()
    while (found := _PARAMETER.match(text, at)) is not None:
        key, close = found[1].strip(), text.find(_CLOSE, found.end())
        if close < 0:
            return Call(name, fault=f"it is cut off: the parameter {key} has no {_CLOSE}"), len(text)
        if key in arguments:
            return Call(name, fault=f"it has the parameter {key} twice"), close
        arguments[key] = Written(text[found.end() : close].removeprefix("\n").removesuffix("\n"))
        at = close + len(_CLOSE)
    end = _END.match(text, at)
    if end is None:
        return Call(name, fault="after its name and parameters there is no </function>"), at
    return Call(name, arguments), end.end()
