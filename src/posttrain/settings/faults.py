"""What is wrong with values, as sentences: one for each type of error that pydantic raises."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from posttrain.settings.base import location
from posttrain.settings.other_names import name_hint

SOURCES = ("path", "hub", "task")


@dataclass(frozen=True, slots=True)
class Fault:
    """Where in the input something is wrong, names of union members included, and what."""

    where: tuple[str, ...]
    message: str

    def __str__(self) -> str:
        return ": ".join(
            [*([key] if (key := ".".join(part for part in self.where if " " not in part)) else []), self.message]
        )


def fault(error: Any) -> Fault:
    """One of the errors of a `ValidationError`."""
    return SENTENCES.get(error["type"], _with_value)(error, location(error))


def faults(error: ValidationError) -> list[Fault]:
    """All of them."""
    return [fault(one) for one in error.errors()]


def _missing(error: Any, where: tuple[str, ...]) -> Fault:
    return Fault(where, "is required")


def _no_keys(error: Any, where: tuple[str, ...]) -> Fault:
    return Fault(where, f"keys are expected here, not {error['input']!r:.60}")


def _as_said(error: Any, where: tuple[str, ...]) -> Fault:
    return Fault(where, error["msg"])


def _with_value(error: Any, where: tuple[str, ...]) -> Fault:
    message = error["msg"]
    return Fault(where, f"{message[0].lower()}{message[1:]} (it is {error['input']!r:.80})")


def _own(error: Any, where: tuple[str, ...]) -> Fault:
    """A validator of ours, which names the key in its message where it looks at several."""
    message = re.sub(r"^Value error, ", "", error["msg"])
    named = re.match(r"([a-z0-9_]+(?:\.[a-z0-9_]+)*): (.*)", message, re.DOTALL) if not where else None
    return Fault(tuple(named[1].split(".")), named[2]) if named else Fault(where, message)


def _no_source(error: Any, where: tuple[str, ...]) -> Fault:
    if isinstance(error["input"], list):
        return Fault(where, "one source is expected; several are mix: {NAME: {path: …, weight: 1}}, and path may list files")
    keys = error["input"] if isinstance(error["input"], dict) else ()
    near = [close[0] for key in keys if (close := difflib.get_close_matches(key, SOURCES, n=1))]
    return Fault(where, error["msg"] + (f"; did you mean {near[0]}?" if near else ""))


def _of_these(error: Any, where: tuple[str, ...]) -> Fault:
    if error["loc"][-1] != "[key]":
        return _with_value(error, where)
    return Fault(where, f"unknown key; {_near(str(error['input']), error['ctx']['expected'])}")


def _no_name(error: Any, where: tuple[str, ...]) -> Fault:
    return Fault((*where, _tag(error)), "is required")


def _unknown_name(error: Any, where: tuple[str, ...]) -> Fault:
    context = error["ctx"]
    return Fault((*where, _tag(error)), f"{context['tag']} is unknown; {_near(context['tag'], context['expected_tags'])}")


def _tag(error: Any) -> str:
    """The key by which the member of a union is known."""
    return str(error["ctx"]["discriminator"]).strip("'")


def _near(given: str, expected: str) -> str:
    return name_hint(given, re.findall(r"'([^']+)'", expected))


SENTENCES: dict[str, Callable[[Any, tuple[str, ...]], Fault]] = {
    "missing": _missing,
    "model_type": _no_keys,
    "model_attributes_type": _no_keys,
    "dict_type": _no_keys,
    "source": _no_source,
    "literal_error": _of_these,
    "union_tag_not_found": _no_name,
    "union_tag_invalid": _unknown_name,
    "unknown_key": _as_said,
    "value_error": _own,
}
"""By the type of pydantic's error; any other is pydantic's own message, with the value."""
