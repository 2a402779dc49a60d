"""Calls as Llama 3.2 and 4 write them: a list of Python calls, at the beginning of the turn.

    [calc(expression="3*4"), calc(expression="5*6")]

Llama 4 writes them between `<|python_start|>` and `<|python_end|>`. Arguments are literals; JSON's true, false and null too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from posttrain.rewards.reading.arguments import Call, bounded
from posttrain.rewards.reading.calls._literals import begins, call_at

EXAMPLE = "[NAME(PARAMETER=VALUE)]"
_BEGINNING = re.compile(r"\s*(?:<\|python_(?:start|tag)\|>\s*)?\[\s*")
_COMMA = re.compile(r"\s*,\s*")
_END = re.compile(r"\s*,?\s*\]")


def read(text: str) -> Sequence[Call]:
    """The calls of a turn's text."""
    found = _BEGINNING.match(text)
    return () if found is None or begins(text, found.end()) is None else bounded(_calls(text, found.end()))


def _calls(text: str, at: int) -> Iterator[Call]:
    while True:
        try:
            call, at = call_at(text, at)
        except ValueError as error:
            yield Call(begins(text, at) or "", fault=str(error))
            return
        yield call
        if _END.match(text, at) is not None:
            return
        if (comma := _COMMA.match(text, at)) is None:
            yield Call("", fault="the list of calls is not closed by ]")
            return
        at = comma.end()
