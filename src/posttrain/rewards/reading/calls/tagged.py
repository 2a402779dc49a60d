"""Calls as tags around their only argument: the tag's name is the tool's.

    <search>Who wrote the Odyssey?</search>

All tags are calls but those of thinking and of the answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from posttrain.data.answers import ANSWER, THINKING
from posttrain.rewards.reading.arguments import Call, Written, bounded

EXAMPLE = "<NAME>VALUE</NAME>"
_OPEN = re.compile(r"<([A-Za-z_][\w-]{0,63})>")
_NO_TOOLS = frozenset(begin.strip("<>") for begin, _ in (*THINKING, ANSWER))


def read(text: str) -> Sequence[Call]:
    """The calls of a turn's text; the argument of each is `Written`, and called by its place, 0."""
    return bounded(_calls(text))


def _calls(text: str) -> Iterator[Call]:
    at = 0
    while (found := _OPEN.search(text, at)) is not None:
        name, close = found[1], f"</{found[1]}>"
        end = text.find(close, found.end())
        at = len(text) if end < 0 else end + len(close)
        if name in _NO_TOOLS:
            continue
        if end < 0:
            yield Call(name, fault=f"it is cut off: there is no {close}")
        else:
            yield Call(name, {"0": Written(text[found.end() : end].removeprefix("\n").removesuffix("\n"))})
