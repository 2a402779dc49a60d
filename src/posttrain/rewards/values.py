"""What a reward gives, as plain values; or a fault, in words. No torch here: the recipe and the children read it too."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

MAX_SCORE = 1e6  # of either sign: sums and squares of scores stay finite in float32
MAX_WEIGHT = 1e6
LONGEST_FAULT = 300  # characters; an exception may quote all that it was given


class Refused(Exception):
    """A fault that is told as it is written."""


def listed(given: Any) -> list[Any]:
    """One entry for each completion."""
    if isinstance(given, (str, bytes, Mapping, Set)):
        raise Refused(f"gave {type(given).__name__}, not a list with a score for each completion")
    return list(given)


def number(given: Any) -> float:
    """A score."""
    try:
        if not isinstance(given, (str, bytes)):
            return float(given)
    except Exception:
        pass
    raise Refused(f"gave {type(given).__name__} as a score")


def text(given: Any) -> str:
    """What can be written to a file, whatever it was."""
    return str(given).encode(errors="replace").decode()


def as_text(error: BaseException) -> str:
    """An exception in few words."""
    try:
        message = text(error)
    except BaseException:
        message = "its message cannot be read"
    return (message if isinstance(error, Refused) else f"raised {type(error).__name__}: {message}")[:LONGEST_FAULT]
