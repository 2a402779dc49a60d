"""Tasks that an environment makes: each of a split, and the same for the same (split, seed, number)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Any, TypeVar

T = TypeVar("T")
SPLITS = ("train", "validation", "held_out")
TASK = ("split", "seed", "number")
"""The columns of a row that asks for a task."""


def drawn(columns: Mapping[str, Any], make: Callable[[Random], T]) -> T:
    """The task that a row asks for, of those that `make` draws.

    Raises:
        ValueError: the row has no such columns.
    """
    if lacking := [name for name in TASK if name not in columns]:
        raise ValueError(f"the row has no {lacking[0]}: take data.train: {{environment: {{rows: …}}}}, or give its task")
    return make(Random("/".join(str(columns[name]) for name in TASK)))
