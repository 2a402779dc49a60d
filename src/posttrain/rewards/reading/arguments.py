"""Calls of tools and their arguments, as formats write them: JSON, or text whose type only the tool's schema knows."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

MAX_CALLS = 32
"""Of one turn; of more of them the first are read, and then one that is none."""
MAX_DEPTH = 32
"""Lists and objects within each other."""
_CONSTANTS = {"True": True, "False": False, "None": None}


@dataclass(frozen=True, slots=True)
class Call:
    """A tool that the policy calls with these arguments; or `fault`, why what it wrote is no call."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])
    fault: str | None = None


class Written(str):
    """An argument that its format writes without a type, as the text between two tags: a string, a number or JSON."""

    __slots__ = ()


def by_name(arguments: Mapping[str, Any], schemas: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Arguments by name, also those that came by place; and read, where they came as text.

    Args:
        arguments: of a call.
        schemas: of the tool's parameters, in their order.
    """
    by_place = {str(place): name for place, name in enumerate(schemas) if name not in arguments}
    named = {by_place.get(key, key): value for key, value in arguments.items()}
    return {key: _read(value, schemas.get(key, {})) for key, value in named.items()}


def _read(value: Any, schema: Mapping[str, Any]) -> Any:
    """A `Written` argument as its schema has it: a string where that may be one, else JSON, or a constant of Python."""
    if not isinstance(value, Written):
        return value
    if any(one.get("type", "string") == "string" for one in schema.get("anyOf", (schema,))):
        return str(value)
    text = value.strip()
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    try:
        read, end = read_json(text)
    except ValueError:
        return str(value)
    return read if end == len(text) else str(value)


def bounded(calls: Iterator[Call]) -> tuple[Call, ...]:
    """The first MAX_CALLS of them; more are one call with a fault."""
    first = tuple(islice(calls, MAX_CALLS))
    more = next(calls, None)
    return first if more is None else (*first, Call("", fault=f"there are more than {MAX_CALLS} calls in the turn"))


def read_json(text: str, at: int = 0) -> tuple[Any, int]:
    """The JSON value that begins at a place, and where it ends.

    Raises:
        ValueError: there is none; or it has numbers that are none, half a surrogate pair, or is nested deeper than MAX_DEPTH.
    """
    try:
        value, end = _DECODER.raw_decode(text, at)
    except RecursionError:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH}") from None
    check(value)
    return value, end


def check(value: Any) -> None:
    """Refuses what could not be written down again.

    Raises:
        ValueError: see `read_json`.
    """
    level, depth = [value], 0
    while level:
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested deeper than {MAX_DEPTH}")
        for one in level:
            if isinstance(one, float) and not math.isfinite(one):
                raise ValueError(f"{one} is no number of JSON")
            if isinstance(one, str) and any("\ud800" <= sign <= "\udfff" for sign in one):
                raise ValueError("a string has half a surrogate pair")
        level = [inner for one in level for inner in _inner(one)]
        depth += 1


def _inner(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    return list(value) if isinstance(value, list) else []


def _no_number(constant: str) -> Any:
    raise ValueError(f"{constant} is no number of JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_number)
