"""Rows of several sources as one sequence, in memory or on disk, and what is asked of all of them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from posttrain.data.rows import Example, Problem, digest
from posttrain.data.rows.by_number import ByNumber
from posttrain.data.rows.on_disk import RowsOnDisk


class Joined(ByNumber):
    """Several sequences end to end.

    Args:
        parts: some of them on disk.
    """

    def __init__(self, parts: Sequence[Sequence[Example]]) -> None:
        self.parts = parts
        self._ends = list(accumulate(map(len, parts)))

    def __len__(self) -> int:
        return self._ends[-1]

    def at(self, place: int) -> Example:
        """See `ByNumber`."""
        number = bisect_right(self._ends, place)
        return self.parts[number][place - (self._ends[number - 1] if number else 0)]


def joined(parts: Sequence[Sequence[Any]]) -> Sequence[Any]:
    """Sequences end to end: a list where all of them are in memory."""
    there = [part for part in parts if len(part)]
    if all(isinstance(part, list) for part in there):
        return [one for part in there for one in part]
    return there[0] if len(there) == 1 else Joined(there)


def pieces(rows: Sequence[Any]) -> Sequence[Sequence[Any]]:
    """What was joined; rows by themselves are one piece."""
    return rows.parts if isinstance(rows, Joined) else [rows]


def in_memory(rows: Sequence[Any]) -> bool:
    """Whether all of them are: each is then the same object whenever it is asked for."""
    return not any(isinstance(piece, RowsOnDisk) for piece in pieces(rows))


def by_source(rows: Sequence[Any]) -> dict[str, Sequence[Any]]:
    """Those of each source, by its name; those of none have an empty one."""
    found: dict[str, Any] = {}
    for piece in pieces(rows):
        if isinstance(piece, RowsOnDisk):
            found[piece.source] = piece
        else:
            for one in piece:
                found.setdefault(one.source, []).append(one)
    return found


def digest_of(rows: Sequence[Any]) -> str:
    """As `digest`, of rows of one source."""
    return rows.measures.digest if isinstance(rows, RowsOnDisk) else digest(rows)


def tokens_of(rows: Sequence[Any]) -> int:
    """That the model reads of all of them; of questions those of the prompts."""
    if isinstance(rows, RowsOnDisk):
        return rows.measures.tokens
    return sum(len(one.prompt) if isinstance(one, Problem) else one.tokens for one in rows)


def longest_of(examples: Sequence[Example]) -> tuple[int, int]:
    """Tokens of the longest row, and of the longest prompt, as student or teacher read them; 0 where there are none."""
    found = [(piece.measures.longest, piece.measures.prompt) for piece in pieces(examples) if isinstance(piece, RowsOnDisk)]
    for piece in pieces(examples):
        if not isinstance(piece, RowsOnDisk):
            read = [row.longest for one in piece for row in one.rows]
            found.append((max(map(len, read), default=0), max((len(row.prompt) for row in read), default=0)))
    return max(longest for longest, _ in found), max(prompt for _, prompt in found)
