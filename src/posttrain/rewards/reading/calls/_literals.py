"""Calls in the form of Python, `f(x=1, y=["a"])`, of literals alone.

Python's own parser is not asked: its depth is the stack's, which is small in a thread, and it warns of unknown escapes.
"""

from __future__ import annotations

import re
from typing import Any

from posttrain.rewards.reading.arguments import MAX_DEPTH, Call, check

_NAME = re.compile(r"([A-Za-z_][\w.-]{0,199})\s*\(")
_KEY = re.compile(r"([A-Za-z_]\w{0,199})\s*=(?!=)\s*")
_SPACE = re.compile(r"\s*")
_STRING = re.compile(
    r"""(?P<mark>'''|\"\"\")(?P<long>(?:[^\\]|\\.)*?)(?P=mark)|'(?P<one>(?:[^'\\]|\\.)*)'|"(?P<two>(?:[^"\\]|\\.)*)\"""",
    re.DOTALL,
)
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.])")
_WORD = re.compile(r"[A-Za-z]{1,5}(?!\w)")
_WORDS = {"True": True, "true": True, "False": False, "false": False, "None": None, "null": None}
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_SIGNS = {"n": "\n", "t": "\t", "r": "\r", "\n": "", "\\": "\\", "'": "'", '"': '"'}
_CLOSES = {"[": "]", "(": ")", "{": "}"}


def begins(text: str, at: int) -> str | None:
    """The name of the call that begins at a place."""
    found = _NAME.match(text, at)
    return None if found is None else found[1]


def call_at(text: str, at: int) -> tuple[Call, int]:
    """The call that begins at a place, and where it ends. Arguments without a name are called by their place, 0 or 1.

    Raises:
        ValueError: it is none, or is cut off.
    """
    found = _NAME.match(text, at)
    if found is None:
        raise ValueError("there is no name before a parenthesis")
    arguments, at = dict[str, Any](), _skip(text, found.end())
    while text[at : at + 1] != ")":
        key = _KEY.match(text, at)
        name = str(len(arguments)) if key is None else key[1]
        if name in arguments:
            raise ValueError(f"it has the argument {name} twice")
        arguments[name], at = _value(text, at if key is None else key.end(), 1)
        at = _next(text, at, ")")
    check(list(arguments.values()))
    return Call(found[1], arguments), at + 1


def _value(text: str, at: int, depth: int) -> tuple[Any, int]:
    if depth > MAX_DEPTH:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH}")
    opening = text[at : at + 1]
    if opening in _CLOSES:
        return _several(text, _skip(text, at + 1), _CLOSES[opening], depth)
    if (found := _STRING.match(text, at)) is not None:
        inside = next(found[kind] for kind in ("long", "one", "two") if found[kind] is not None)
        return _ESCAPE.sub(_sign, inside), found.end()
    if (found := _NUMBER.match(text, at)) is not None:
        whole = found[0].lstrip("+-").isdigit()
        return int(found[0]) if whole else float(found[0]), found.end()
    if (found := _WORD.match(text, at)) is not None and found[0] in _WORDS:
        return _WORDS[found[0]], found.end()
    raise ValueError("it is cut off" if not opening else f"no literal begins with {text[at : at + 20]!r}")


def _several(text: str, at: int, close: str, depth: int) -> tuple[Any, int]:
    """A list or a dictionary; a tuple is a list, but for parentheses around one value."""
    values, keys, comma = list[Any](), list[Any](), False
    while text[at : at + 1] != close:
        value, at = _value(text, at, depth + 1)
        if close == "}":
            at = _skip(text, at)
            if not isinstance(value, str) or text[at : at + 1] != ":":
                raise ValueError("a dictionary has strings as keys, and a colon after each")
            keys.append(value)
            value, at = _value(text, _skip(text, at + 1), depth + 1)
        values.append(value)
        comma = text[(at := _skip(text, at)) : at + 1] == ","
        at = _next(text, at, close)
    if close == "}":
        return dict(zip(keys, values, strict=True)), at + 1
    return values[0] if close == ")" and len(values) == 1 and not comma else values, at + 1


def _next(text: str, at: int, close: str) -> int:
    """Where the next of several begins, or what closes them stands."""
    at = _skip(text, at)
    if text[at : at + 1] == ",":
        return _skip(text, at + 1)
    if text[at : at + 1] != close:
        raise ValueError("it is cut off" if at == len(text) else f"no {close} or comma stands at {text[at : at + 20]!r}")
    return at


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def _sign(found: re.Match[str]) -> str:
    code = found[1] or found[2]
    return chr(int(code, 16)) if code else _SIGNS.get(found[3], found[0])
