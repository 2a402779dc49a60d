"""Calls as ReAct (arXiv:2210.03629) writes them, and what came of it: `Action: f(x)`, `Action: f[x]`, or two lines.

    Thought: I need the product.
    Action: calc
    Action Input: {"expression": "3*4"}

What follows a line `Observation:` was not observed but imagined, and is not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from posttrain.rewards.reading.arguments import Call, Written, bounded, read_json
from posttrain.rewards.reading.calls._literals import begins, call_at

EXAMPLE = 'Action: NAME\nAction Input: {"PARAMETER": VALUE}'
_IMAGINED = re.compile(r"^[ \t]*Observation(?:[ \t]+\d+)?[ \t]*:", re.MULTILINE)
_ACTION = re.compile(r"^[ \t]*Action(?:[ \t]+\d+)?[ \t]*:[ \t]*", re.MULTILINE)
_BRACKETS = re.compile(r"([A-Za-z_][\w.-]{0,199})[ \t]*[\[(]([^\n]*)[\])]\s*$")
_ALONE = re.compile(r"([A-Za-z_][\w.-]{0,199})[ \t]*(?:\n[ \t]*Action[ \t]+Input(?:[ \t]+\d+)?[ \t]*:(.*))?$", re.DOTALL)
_LATER = re.compile(r"^[ \t]*(?:Thought|Final Answer)(?:[ \t]+\d+)?[ \t]*:", re.MULTILINE)


def read(text: str) -> Sequence[Call]:
    """The calls of a turn's text. An argument without a name is `Written`, and called by its place, 0."""
    imagined = _IMAGINED.search(text)
    return bounded(_calls(text if imagined is None else text[: imagined.start()]))


def _calls(text: str) -> Iterator[Call]:
    found = _ACTION.search(text)
    while found is not None:
        after = _ACTION.search(text, found.end())
        action = text[found.end() : len(text) if after is None else after.start()]
        later = _LATER.search(action)
        yield _call((action if later is None else action[: later.start()]).strip())
        found = after


def _call(action: str) -> Call:
    fault = "its action is neither f(x), f[x] nor a name with Action Input"
    if (name := begins(action, 0)) is not None:
        try:
            return call_at(action, 0)[0]
        except ValueError as error:
            fault = str(error)
    if (found := _BRACKETS.match(action)) is not None and not (name and re.search("[\"'=]", found[2])):
        return Call(found[1], {"0": Written(found[2].strip())})
    if name is None and (found := _ALONE.match(action)) is not None:
        return _with_input(found[1], found[2])
    return Call(name or "", fault=fault)


def _with_input(name: str, text: str | None) -> Call:
    """A JSON object has the arguments; anything else is the only one."""
    if text is None or not text.strip():
        return Call(name)
    text = text.strip()
    if not text.startswith("{"):
        return Call(name, {"0": Written(text)})
    try:
        value, _ = read_json(text)
    except ValueError as error:
        return Call(name, fault=f"its input is no JSON: {error}")
    return Call(name, value)
