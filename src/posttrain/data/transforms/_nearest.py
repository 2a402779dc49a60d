"""The texts of what is trained on that are most like another one, by BM25 (the package bm25s)."""

from __future__ import annotations

import heapq
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import count
from typing import Any

from posttrain.errors import SetupError
from posttrain.telling import tell

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Found:
    """A text that is looked for by the words of `asked`, and what is shown of it."""

    asked: str
    shown: str


class Nearest:
    """An index of texts. Which are the nearest depends on them as a set, and not on their order.

    Args:
        texts: that may be found, equal ones once.
        at_most: how many are kept, those of the least digests, which is by chance and the same in every process.
        what: they are, in words.

    Raises:
        SetupError: bm25s is not installed.
    """

    def __init__(self, texts: Iterable[Found], *, at_most: int, what: str) -> None:
        try:
            from bm25s import BM25  # pyright: ignore[reportMissingImports]  # an extra
        except ImportError as error:
            raise SetupError(f"data.transforms: {what} are found by BM25: pip install 'posttrain[bm25]'.") from error
        self._kept, seen = _least(texts, at_most)
        if seen > at_most:
            tell(
                "pool", f"data.transforms: of {seen:,} {what} {at_most:,} are kept, by chance (pool), and others never found."
            )
        self._index: Any = BM25()
        if self._kept:
            self._index.index([_words(one.asked) for one in self._kept], show_progress=False)

    def __len__(self) -> int:
        return len(self._kept)

    def of(self, asked: str, number: int, *, but: Collection[str] = (), shown: Collection[str] = ()) -> list[str]:
        """What is shown of the nearest, the nearest first; none of those that are asked as `but`, or show what `shown` has.
        Among equally near ones the order is that of their texts.
        """
        import numpy as np

        words = _words(asked)
        scores = self._index.get_scores(words) if words else np.zeros(len(self._kept))
        return [self._kept[i].shown for i in self._order(scores, number, {*but}, {*shown})]

    def _order(self, scores: Any, number: int, but: set[str], shown: set[str]) -> Iterator[int]:
        found, taken = 0, set[str](shown)
        for i in _downward(scores, number + len(shown) + 1):
            one = self._kept[i]
            if found == number:
                return
            if one.asked in but or one.shown in taken:
                continue
            found, taken = found + 1, taken | {one.shown}
            yield i


def _downward(scores: Any, number: int) -> Iterator[int]:
    """Their places, the highest score first, and among equal ones the first; about `number` will be asked for."""
    import numpy as np

    least = -np.inf
    if number < len(scores):
        least = np.partition(scores, len(scores) - number)[len(scores) - number]
    for places in (np.flatnonzero(scores >= least), np.flatnonzero(scores < least)):
        yield from map(int, places[np.argsort(-scores[places], kind="stable")])


def _least(texts: Iterable[Found], at_most: int) -> tuple[list[Found], int]:
    """Those of the least digests, in the order of their texts, and how many different ones there are, as far as that can be
    known without keeping them.
    """
    kept: list[tuple[int, int, Found]] = []
    inside, seen, number = set[Found](), 0, count()
    for one in texts:
        if one in inside:
            continue
        seen += 1
        digest = -int.from_bytes(sha256(f"{one.asked}\0{one.shown}".encode()).digest()[:8])
        heapq.heappush(kept, (digest, next(number), one))
        inside.add(one)
        if len(kept) > at_most:
            inside.discard(heapq.heappop(kept)[2])
    return sorted((one for _, _, one in kept), key=lambda one: (one.asked, one.shown)), seen


def _words(text: str) -> list[str]:
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
