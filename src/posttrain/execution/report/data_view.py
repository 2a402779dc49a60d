"""The sets of a recipe as they are read: tokens with their mask, lengths, what repeats, and what training shares with
evaluation.
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from posttrain.data.overlap import Overlap
from posttrain.data.rows import DataReport, Example, Problem, Row
from posttrain.data.rows.together import by_source
from posttrain.environments.task import COLUMN
from posttrain.estimator.needs import SIDES
from posttrain.execution.prepare.data import Sets
from posttrain.execution.report.record import spread

Kind = Literal["given", "learnt", "end", "end not learnt"]
BINS = 12  # of the histogram of lengths
NAMED = 5  # places that are named of what repeats
REASONS = 5  # that are named of what was left out
JOINED = 4  # tokens of one character, at most: bytes of UTF-8


@dataclass(frozen=True)
class Token:
    """What one token says, or several that make one character. given: the model reads it and does not learn it. learnt: it
    carries loss; so does an end. end not learnt: it follows what is learnt.
    """

    text: str
    kind: Kind


@dataclass(frozen=True)
class Shown:
    """One row: where it stands in the data, what it is, and its tokens."""

    where: str
    title: str
    tokens: Sequence[Token]
    length: int
    learnt: int


@dataclass(frozen=True)
class SetView:
    """One set. rows: of the model. lengths: (from, to, count) of a histogram. repeated: rows whose tokens are those of one
    before, and whose task is, where an environment is played. endless: rows whose learnt part has no end token as its last.
    loss_share: of all tokens; None for questions.
    """

    name: str
    rows: int
    shown: Sequence[Shown]
    lengths: Sequence[tuple[int, int, int]]
    shortest: int
    median: int
    longest: int
    repeated: int
    repeated_at: Sequence[str]
    endless: int
    loss_share: float | None
    seen: int
    forms: Mapping[str, int]
    left_out: Mapping[str, int]
    reasons: Sequence[tuple[str, str, str]]
    unread: Mapping[str, int]


@dataclass(frozen=True)
class DataView:
    """All sets of a recipe, and what they share."""

    sets: Sequence[SetView]
    overlaps: Sequence[Overlap]


def view(sets: Sets, tokenizer: Any, ends: Sequence[int], rows: int) -> DataView:
    """Of sets that were read; `rows` are shown of each."""
    named: list[tuple[str, Sequence[Example] | Sequence[Problem]]] = [
        *_by_source("train" if sets.stream is None else f"train, its first {len(sets.train)} rows", sets.train),
        *(_by_source("candidates", sets.candidates) if sets.candidates is not sets.train else []),
        ("demonstrations", sets.demonstrations),
        *sets.held_out.items(),
        *((f"{name}/problems", asked) for name, asked in sets.problems.items()),
    ]
    views = [_view(name, each, sets.reports.get(name), tokenizer, ends, rows) for name, each in named if each]
    return DataView(views, sets.overlaps)


def _by_source(name: str, rows: Sequence[Example] | Sequence[Problem]) -> list[tuple[str, Any]]:
    """A set, or each of the sources that are mixed in it."""
    return [(f"{name}/{own}" if own else name, of) for own, of in by_source(rows).items()]


def _view(
    name: str, items: Sequence[Example | Problem], report: DataReport | None, tokenizer: Any, ends: Sequence[int], rows: int
) -> SetView:
    sizes, hashes, numbers = array("q"), array("q"), array("q")  # of millions of rows, too
    learnt, endless, answers = 0, 0, 0
    for number, one in enumerate(items):
        for _, row in _rows(one):
            sizes.append(len(row))
            hashes.append(hash(row.prompt.tobytes() + b"|" + row.completion.tobytes() + _task(one)))
            numbers.append(number)
            learnt += int(row.mask.sum())
            answers += len(row.completion) > 0
            endless += len(row.completion) > 0 and not _ends(row, ends)
    lengths, repeated = np.sort(np.frombuffer(sizes, np.int64)), _repeated(np.frombuffer(hashes, np.int64))
    places = [(items[numbers[i]].where, items[numbers[first]].where) for i, first in repeated[:NAMED].tolist()]
    report = report or DataReport(rows=len(items), seen=len(items))
    return SetView(
        name,
        len(sizes),
        [_shown(where, title, row, tokenizer, ends) for one in spread(items, rows) for where, title, row in _placed(one)],
        _histogram(lengths),
        int(lengths[0]),
        int(lengths[len(lengths) // 2]),
        int(lengths[-1]),
        len(repeated),
        [f"{where} is {first}" for where, first in places],
        endless,
        learnt / int(lengths.sum()) if answers else None,
        report.seen,
        report.forms,
        report.counters,
        report.notes,
        report.unread,
    )


def _placed(one: Example | Problem) -> Iterator[tuple[str, str, Row]]:
    for title, row in _rows(one):
        yield one.where, title, row
        if row.inputs is not None:
            yield one.where, "as the model reads it", Row(row.prompt, row.inputs, np.zeros_like(row.mask))
        if row.teacher_prompt is not None:
            yield one.where, f"{title}, as the teacher reads it".removeprefix(", "), row.as_taught


def _rows(one: Example | Problem) -> Iterator[tuple[str, Row]]:
    if isinstance(one, Example):
        yield from zip(_titles(one), one.rows, strict=False)
        return
    answer = np.array(one.demonstration or (), np.int32)
    title = "question with its demonstration" if len(answer) else "question"
    taught: Any = {} if one.teacher_prompt is None else {"teacher_prompt": np.asarray(one.teacher_prompt, np.int32)}
    yield title, Row(np.array(one.prompt, np.int32), answer, np.ones(len(answer), np.bool_), **taught)


def _titles(one: Example) -> Sequence[str]:
    """What each of its rows is."""
    if one.crossed:
        places = range(1, math.isqrt(len(one.rows)) + 1)
        return [f"prompt {i}, completion {j}" for i in places for j in places]
    return SIDES if len(one.rows) > 1 else ("",)


def _shown(where: str, title: str, row: Row, tokenizer: Any, ends: Sequence[int]) -> Shown:
    ids = [*row.prompt.tolist(), *row.completion.tolist()]
    mask = [*([False] * len(row.prompt)), *row.mask.tolist()]
    return Shown(where, title, list(_tokens(ids, mask, tokenizer, set(ends))), len(ids), sum(mask))


def _tokens(ids: Sequence[int], mask: Sequence[bool], tokenizer: Any, ends: set[int]) -> Iterator[Token]:
    place = 0
    while place < len(ids):
        size, text = _character(ids, mask, place, tokenizer)
        kind: Kind = "learnt" if mask[place] else "given"
        if ids[place] in ends and mask[place]:
            kind = "end"
        elif ids[place] in ends and place and mask[place - 1]:
            kind = "end not learnt"
        yield Token(text, kind)
        place += size


def _character(ids: Sequence[int], mask: Sequence[bool], place: int, tokenizer: Any) -> tuple[int, str]:
    """How many tokens from a place on make whole characters, and these; one token where none do."""
    for size in range(1, JOINED + 1):
        text = tokenizer.decode(ids[place : place + size], skip_special_tokens=False)
        if "\N{REPLACEMENT CHARACTER}" not in text:
            return size, text
        if place + size >= len(ids) or mask[place + size] != mask[place]:
            break
    return 1, tokenizer.decode(ids[place : place + 1], skip_special_tokens=False)


def _ends(row: Row, ends: Sequence[int]) -> bool:
    learnt = row.completion[row.mask]
    return len(learnt) > 0 and int(learnt[-1]) in ends


def _task(one: Example | Problem) -> bytes:
    """What an environment is given beside what the model reads first."""
    task = one.columns.get(COLUMN) if isinstance(one, Problem) else None
    return b"" if task is None else json.dumps(task["columns"], sort_keys=True, default=str).encode()


def _repeated(hashes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The places of those that stood there before, each with the place of the first."""
    _, begins, group = np.unique(hashes, return_index=True, return_inverse=True)
    first = begins[group]
    again = np.flatnonzero(first != np.arange(len(hashes)))
    return np.stack([again, first[again]], axis=1)


def _histogram(sizes: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """Of sizes in order equal stretches of whole numbers, the last one's end included."""
    least, most = int(sizes[0]), int(sizes[-1])
    width = max(1, -(-(most - least + 1) // BINS))
    edges = range(least, most + width + 1, width)
    counts = np.bincount((sizes - least) // width, minlength=len(edges)).tolist()
    return [(low, high - 1, counts[i]) for i, (low, high) in enumerate(pairwise(edges))]


def facts_of(one: SetView) -> Iterator[tuple[str, str, bool]]:
    """What is to be known of a set: name, value, and whether a person should look at it."""
    yield "records read", f"{one.seen:,}", False
    yield "shortest, median, longest", f"{one.shortest:,}, {one.median:,}, {one.longest:,} tokens", False
    if one.loss_share is not None:
        yield "tokens that carry loss", f"{100 * one.loss_share:.1f} %", one.loss_share == 0
    if one.endless:
        yield "learnt part without an end", f"{one.endless:,} rows: the model does not learn to end there", True
    if one.forms:
        yield "how they are written", _counted(one.forms), False
    if one.left_out:
        yield "left out or cut", _counted(one.left_out), True
        for what, where, reason in one.reasons[:REASONS]:
            yield "", f"{what}: {where}: {reason}", True
    if one.repeated:
        yield "the same as a row before", f"{one.repeated:,}: {'; '.join(one.repeated_at)}", True
    if one.unread:
        yield "columns that nothing reads", _counted(one.unread), True


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {count:,}" for name, count in counts.items())
