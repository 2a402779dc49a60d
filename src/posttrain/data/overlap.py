"""What is trained on that stands in evaluation sets as well: the same question, or a stretch of its words.

A question is what the user says. It is the same as another, or as one turn of it, where both are, up to case, width and
spaces. Words are runs of letters and digits, without case; a stretch that stands in more than `COMMON` questions of a set is
a phrase and says nothing (as in GPT-3's appendix, of training documents there; recalled).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from posttrain.data.columns import steps_of
from posttrain.data.sources.record import Record

COMMON = 10
NAMED = 5  # places that are named of what is shared
_WORD = re.compile(r"\w+")
_MADE = re.compile(r"(#\d+)+$")
"""What is behind the place of a row of which a transform made several."""
_TRAINED = ("prompt", "prompts", "messages", "text", "completion", "completions", "chosen", "rejected", "reference")
_ASKED = ("prompt", "messages", "text", "prompts", "chosen")
_SHOWN = ("demonstration", "solution")
Met = dict[str, dict[str, list[Any]]]
"""Of each evaluation set by their numbers the questions that are the `same`, and those of which something is shared
(`shares`); and the places of the `rows` of training that share it. Plain data, as JSON has it."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """Of one evaluation set. exact: questions that are in training. ngram: those that share a stretch of `words` words, or
    all of theirs, the exact ones among them. at: where some stand. rows: of training, as its source has them, that share
    something.
    """

    name: str
    questions: int
    words: int
    exact: int
    ngram: int
    at: Sequence[str]
    rows: int


@dataclass(slots=True)
class _Question:
    where: str
    same: bool = False
    shares: bool = False


class Overlaps:
    """Looks for the questions of evaluation sets in what is trained on.

    Args:
        asked: the rows of each set.
        words: of a stretch.
        dropping: the sets whose questions no row that is trained on may share anything with; others are left as they are.
    """

    def __init__(self, asked: Mapping[str, Sequence[Record]], *, words: int, dropping: Iterable[str] = ()) -> None:
        self._words, self._dropping = words, {*dropping}
        self._sets = {name: [_Question(one.where) for one in records] for name, records in asked.items()}
        self._rows = {name: set[str]() for name in asked}
        self._same: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
        self._grams: defaultdict[int, list[tuple[str, int]]] = defaultdict(list)
        for name, records in asked.items():
            self._learn(name, records)
        self._of = {plain: {name for name, _ in hits} for plain, hits in self._same.items()}
        self._met = set[str]()

    def _learn(self, name: str, records: Sequence[Record]) -> None:
        asked = [question(one.columns) for one in records]
        grams = [self._stretches(one) for one in asked]
        often = Counter(gram for of in grams for gram in of)
        for number, (text, of) in enumerate(zip(asked, grams, strict=True)):
            if plain := _plain(text):
                self._same[plain].append((name, number))
            for gram in of:
                if often[gram] <= COMMON:
                    self._grams[gram].append((name, number))

    def through(self, records: Iterable[Record]) -> Iterator[Record]:
        """The same rows, once they are looked at; those that may not stay are `left_out`, with the reason."""
        if not self._sets:
            yield from records
            return
        for record in records:
            plain = {_plain(one) for one in _asked(record.columns)} & self._same.keys()
            grams = {gram for text in _texts(record.columns) for gram in self._stretches(text)} if self._grams else set[int]()
            shared = {hit for gram in grams & self._grams.keys() for hit in self._grams[gram]}
            for name, number in (hit for one in plain - self._met for hit in self._same[one]):
                self._sets[name][number].same = self._sets[name][number].shares = True
            self._met |= plain
            for name, number in shared:
                self._sets[name][number].shares = True
            same = {name for one in plain for name in self._of[one]}
            hit = same | {name for name, _ in shared}
            for name in hit:
                self._rows[name].add(_MADE.sub("", record.where))
            taken = sorted(hit & self._dropping)
            yield replace(record, left_out=self._reason(taken[0], taken[0] in same)) if taken else record

    def take(self) -> Met:
        """What has been met until now, and is forgotten from here on."""
        met: Met = {}
        for name, asked in self._sets.items():
            same = [i for i, one in enumerate(asked) if one.same]
            shares = [i for i, one in enumerate(asked) if one.shares]
            met[name] = {"same": same, "shares": shares, "rows": sorted(self._rows[name])}
            self._sets[name], self._rows[name] = [_Question(one.where) for one in asked], set()
        self._met = set()
        return met

    def add(self, met: Met) -> None:
        """What was taken, beside what has been met since."""
        for name, of in met.items():
            for i in of["same"]:
                self._sets[name][i].same = True
            for i in of["shares"]:
                self._sets[name][i].shares = True
            self._rows[name].update(of["rows"])

    def found(self) -> list[Overlap]:
        """Of every set, after what has gone `through`."""
        return [
            Overlap(
                name,
                len(asked),
                self._words,
                sum(one.same for one in asked),
                sum(one.shares for one in asked),
                [one.where for one in asked if one.shares][:NAMED],
                len(self._rows[name]),
            )
            for name, asked in self._sets.items()
        ]

    def _stretches(self, text: str) -> set[int]:
        words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
        return {hash(tuple(words[i : i + self._words])) for i in range(len(words) - self._words + 1)}

    def _reason(self, name: str, same: bool) -> tuple[str, str]:
        what = "its question stands" if same else f"{self._words} words in a row of it stand"
        return "shared_with_evaluation", f"{what} in data.eval.{name} (data.decontaminate)"


def question(columns: Mapping[str, Any]) -> str:
    """What the user says in a row; of a text all of it."""
    return "\n".join(_turns(columns))


def _asked(columns: Mapping[str, Any]) -> list[str]:
    """What the user says in a row, whole and turn by turn."""
    return [question(columns), *_turns(columns)]


def _turns(columns: Mapping[str, Any]) -> list[str]:
    first = next((value for name in _ASKED if (value := columns.get(name)) is not None), None)
    return [*_said(first)]


def _said(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _said(one)
    elif isinstance(value, Mapping) and value.get("role") == "user":
        yield from _in(value.get("content"))


def _texts(columns: Mapping[str, Any]) -> Iterator[str]:
    for name in _TRAINED:
        yield from _in(columns.get(name))
    for name in _SHOWN:
        steps = columns.get(name)
        whole = "\n".join(steps_of(steps)) if isinstance(steps, (list, tuple)) else ""
        yield from _in(whole or steps)


def _in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _in(one)
    elif isinstance(value, Mapping):
        yield from _in(value.get("content"))
        yield from _in(value.get("text"))


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
