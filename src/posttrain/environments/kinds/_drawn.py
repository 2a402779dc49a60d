"""Tasks that an environment makes: each of a split, and the same for the same (split, seed, number)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Any, TypeVar

from posttrain.data.tasks import split_of

T = TypeVar("T")
SPLITS = ("train", "validation", "held_out")
TASK = ("split", "seed", "number")
"""The columns of a row that asks for a task."""
ATTEMPTS = 10_000  # at a task of the split


def drawn(columns: Mapping[str, Any], make: Callable[[Random], T], text: Callable[[T], str] | None = None) -> T:
    """The task that a row asks for, of those that `make` draws.

    Args:
        columns: of the row.
        make: one task.
        text: of a task, by whose hash it belongs to one split, so that splits have no task in common; all have the same tasks
            if it is not given.

    Raises:
        ValueError: the row has no such columns, or the split has no task.
    """
    if lacking := [name for name in TASK if name not in columns]:
        raise ValueError(f"the row has no {lacking[0]}: take data.train: {{environment: {{rows: …}}}}, or give its task")
    draw = Random("/".join(str(columns[name]) for name in TASK))
    for _ in range(ATTEMPTS):
        task = make(draw)
        if text is None or split_of(text(task)) == columns["split"]:
            return task
    raise ValueError(f"no task of the split {columns['split']!r} was found: its splits are {', '.join(SPLITS)}")
