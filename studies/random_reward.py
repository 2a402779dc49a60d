"""A reward that says nothing: a number by chance, whatever was answered. For controls of studies."""

from __future__ import annotations

from random import Random
from typing import Any

_draw = Random(0)


def by_chance(completions: list[str], **_: Any) -> list[float]:
    """A number from 0 to 1 for each completion."""
    return [_draw.random() for _ in completions]
