"""A text as rows: windows over its tokens, in which each of them but the first carries loss once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from random import Random
from typing import Any

from posttrain.data.encoding.prompts import Notes, guarded
from posttrain.data.encoding.text import Text
from posttrain.data.rows import BadRow
from posttrain.errors import DataError
from posttrain.settings.data import Encoding


class Windows:
    """What the tokenizer puts before a text, the text, an end token; and where its rows begin and end.

    Args:
        text: the tokenizer.
        end: the token that is put behind a text.
        config: windows and policies.
        limit: the longest row, and whose that is, in words; None: there is none.

    Raises:
        DataError: windows are longer than a row may be, or do not leave a token of context.
    """

    def __init__(self, text: Text, end: int, config: Encoding, limit: tuple[int, str] | None) -> None:
        self._text, self._end, self._config = text, end, config
        self.leading = text.leading
        given = config.window.length
        if given is not None and limit is not None and given > limit[0]:
            raise DataError(f"data.window.length: {given} is over {limit[1]}, {limit[0]}.")
        self._length = given or (None if limit is None else limit[0])
        self._stride = config.window.stride or (self._length or 0) - 1
        if self._length is not None and not 0 < self._stride < self._length:
            raise DataError(
                f"data.window.stride: {self._stride} must be less than a row's length, {self._length}, and more than 0."
            )

    def ids(self, columns: Mapping[str, Any]) -> tuple[list[int], int, Notes]:
        """The tokens of a row's whole text, and how many of them stand before it: the tokenizer's own, and those of its
        `text_prefix`. No token spans the two.

        Raises:
            BadRow: it is no text, or empty.
        """
        before = columns.get("text_prefix") or ""
        for name, value in (("text", columns["text"]), ("text_prefix", before)):
            if not isinstance(value, str):
                raise BadRow(f"{name} must be text, not {type(value).__name__}")
        if not columns["text"].strip():
            raise BadRow("text is empty")
        (before, text), encoding, notes = guarded(self._text, self._config, (before, columns["text"]))
        said, leading = encoding.ids(text), [*self.leading, *(encoding.ids(before) if before else [])]
        ids = [*leading, *said, *([] if said and said[-1] in self._text.ends else [self._end])]
        if not said or len(ids) < 2:
            raise BadRow("no token of its text has one before it")
        return ids, len(leading), notes

    def corrupted(self, columns: Mapping[str, Any], ids: Sequence[int], before: int) -> list[int] | None:
        """What is read in the places of these tokens, where the row has a `text_corruption`: of those behind the first
        `before`, each is with its rate another one, any but the special ones as likely. None: they are read themselves.

        Raises:
            BadRow: the column is not [rate, seed].
        """
        match columns.get("text_corruption"):
            case None:
                return None
            case [int() | float() as rate, int() as seed] if 0 <= rate <= 1:
                rng = Random(seed)
                return [*ids[:before], *(rng.choice(self._others) if rng.random() < rate else one for one in ids[before:])]
            case other:
                raise BadRow(f"text_corruption is what the transform corrupt writes, a rate and a seed, and not {other!r}")

    @cached_property
    def _others(self) -> list[int]:
        return [i for i in range(len(self._text.tokenizer)) if i not in self._text.special and i not in self._text.ends]

    def over(self, tokens: int, before: int) -> Iterator[tuple[int, int, int]]:
        """Of each row where it begins, where its loss begins, and where it ends; the first tokens stand `before` the text."""
        first = max(1, before)
        if self._length is None:
            yield 0, first, tokens
            return
        begin, done = 0, first
        while done < tokens:
            end = min(begin + self._length, tokens)
            if done < end:
                yield begin, done, end
            begin, done = begin + self._stride, max(done, end)
