"""One row of a source, with the place that it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a source: its columns under our names, or the reason why it has none.

    mapped: of our names those that the recipe says where to find, with theirs,
    whether or not this row has it. form: how the row was written, where that was
    named, or in no columns of ours. left_out: why it is not to be read, though it
    could be: what that is counted as, and in words. read: columns that a transform
    has read. made: a model has written some of it.
    """

    where: str
    columns: dict[str, Any]
    fault: str | None = None
    mapped: Mapping[str, str] = field(default_factory=dict[str, str])
    form: str | None = None
    left_out: tuple[str, str] | None = None
    read: frozenset[str] = frozenset()
    made: bool = False
