"""What data becomes: rows of token ids with a loss mask, and a report of the rows that did not make it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Weigh: TypeAlias = "Callable[[Sequence[int], Collection[int]], NDArray[np.float32]]"
"""What the tokens of a completion are worth, by them and by all tokens that end one."""
Note: TypeAlias = "tuple[str, str, str]"
"""Counter, place and reason."""


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """A prompt and one completion as token ids. `mask` is True where a token of the completion carries loss; `weight` is what
    each of them is worth, where the algorithm asks for that. `teacher_prompt` is what a teacher reads before the completion,
    where that is another prompt. `inputs` are what the model reads in the places of the completion's tokens, where that is
    something else: it is still they that are learnt.
    """

    prompt: NDArray[np.int32]
    completion: NDArray[np.int32]
    mask: NDArray[np.bool_]
    weight: NDArray[np.float32] | None = None
    teacher_prompt: NDArray[np.int32] | None = None
    inputs: NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)

    @property
    def read(self) -> NDArray[np.int32]:
        """What the model reads in the places of the completion's tokens."""
        return self.completion if self.inputs is None else self.inputs

    @property
    def as_taught(self) -> Row:
        """What the teacher reads."""
        return self if self.teacher_prompt is None else Row(self.teacher_prompt, self.completion, self.mask)

    @property
    def longest(self) -> Row:
        """What the student reads, or the teacher, where that is more."""
        return max(self, self.as_taught, key=len)


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One row of a data set: a demonstration, or several rows that stay together: a chosen and a rejected completion, or
    where they are `crossed`, each of some completions under each of as many prompts, by prompts. `source` is what it is of,
    where several are mixed; `ordered_by` are the columns of `data.order`, in its order of them.
    """

    rows: tuple[Row, ...]
    where: str
    crossed: bool = False
    source: str = ""
    ordered_by: tuple[str | float, ...] = ()

    @property
    def tokens(self) -> int:
        """Tokens that the model reads for it."""
        return sum(len(row) for row in self.rows)


@dataclass(frozen=True, slots=True)
class Problem:
    """A prompt to be answered, the columns that its answers are graded by, a demonstration's tokens, its end included, and
    what a teacher reads in place of the prompt, where that is another one; without what is sampled, where it is shown that.

    `cuts`: after how many tokens of the demonstration a step of it ends and another begins, where the data have its steps.
    `source` is what it is of, where several are mixed; `ordered_by` are the columns of `data.order`, in its order of them.
    """

    prompt: Sequence[int]
    columns: Mapping[str, Any]
    where: str
    demonstration: Sequence[int] | None = None
    teacher_prompt: Sequence[int] | None = None
    cuts: Sequence[int] = ()
    source: str = ""
    ordered_by: tuple[str | float, ...] = ()

    @property
    def tokens(self) -> int:
        """Tokens that the model reads before it answers."""
        return len(self.prompt)

    @property
    def longest(self) -> Sequence[int]:
        """The prompt that the student reads, or the teacher, where that is more."""
        return max(self.prompt, self.teacher_prompt or (), key=len)


class Digest:
    """SHA-256 of all that a run reads of rows, which come one after another."""

    def __init__(self) -> None:
        self._known = hashlib.sha256()

    def add(self, one: Example | Problem) -> None:
        """The next of them."""
        import numpy as np

        if isinstance(one, Problem):
            columns = json.dumps(one.columns, sort_keys=True, default=str)
            read = [one.prompt, one.demonstration or (), *([] if one.teacher_prompt is None else [one.teacher_prompt])]
            parts = [np.array(ids, np.int32) for ids in (*read, *([one.cuts] if one.cuts else []))]
        else:
            columns = json.dumps(one.ordered_by) if one.ordered_by else ""
            parts = [part for row in one.rows for part in _read(row)]
        for part in (columns.encode(), *(part.tobytes() for part in parts)):
            self._known.update(len(part).to_bytes(8, "little") + part)

    def hexdigest(self) -> str:
        """Of those until now."""
        return self._known.hexdigest()


def digest(rows: Iterable[Example | Problem]) -> str:
    """The same of rows that are there."""
    known = Digest()
    for one in rows:
        known.add(one)
    return known.hexdigest()


def _read(row: Row) -> list[NDArray[Any]]:
    return [
        row.prompt,
        row.completion,
        row.mask,
        *(one for one in (row.weight, row.teacher_prompt, row.inputs) if one is not None),
    ]


class BadRow(ValueError):
    """A record that cannot be used; the message is the reason."""


class LongRow(BadRow):
    """A record over a length limit; `counter` names the limit. It is left out, or `refused` where the policy is to stop."""

    def __init__(self, counter: str, reason: str, *, refused: bool) -> None:
        super().__init__(reason)
        self.counter, self.refused = counter, refused


@dataclass(slots=True)
class DataReport:
    """How many records of a source became rows, which were cut, and why the others did not."""

    rows: int = 0
    counters: Counter[str] = field(default_factory=Counter[str])
    notes: Sequence[Note] = field(default_factory=list[Note])
    """Of each that is not used, or not whole; on disk, where the rows are."""
    unread: Counter[str] = field(default_factory=Counter[str])
    """Columns that nothing reads, with the number of records that have a value there."""
    forms: Counter[str] = field(default_factory=Counter[str])
    """How records were written that were in no columns of ours."""
    seen: int = 0
    """Records that could be read."""

    def note(self, where: str, reason: str, counter: str = "bad") -> None:
        """Counts a record that is not used, or not whole."""
        assert isinstance(self.notes, list), "what is on disk is complete"
        self.counters[counter] += 1
        self.notes.append((counter, where, reason))

    def metrics(self, prefix: str) -> dict[str, float]:
        """`<prefix>/rows` and one number for each reason that occurred."""
        return {f"{prefix}/rows": self.rows, **{f"{prefix}/{name}": n for name, n in self.counters.items()}}
