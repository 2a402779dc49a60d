"""A text as rows: windows over its tokens, in which each of them but the first carries loss once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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

    def ids(self, columns: Mapping[str, Any]) -> tuple[list[int], Notes]:
        """The tokens of a row's whole text.

        Raises:
            BadRow: it is no text, or empty.
        """
        if not isinstance(columns["text"], str):
            raise BadRow(f"text must be text, not {type(columns['text']).__name__}")
        if not columns["text"].strip():
            raise BadRow("text is empty")
        text, encoding, notes = guarded(self._text, self._config, columns["text"])
        said = encoding.ids(text)
        ids = [*self.leading, *said, *([] if said and said[-1] in self._text.ends else [self._end])]
        if not said or len(ids) < 2:
            raise BadRow("no token of its text has one before it")
        return ids, notes

    def over(self, tokens: int) -> Iterator[tuple[int, int, int]]:
        """Of each row where it begins, where its loss begins, and where it ends."""
        first = max(1, len(self.leading))
        if self._length is None:
            yield 0, first, tokens
            return
        begin, done = 0, first
        while done < tokens:
            end = min(begin + self._length, tokens)
            if done < end:
                yield begin, done, end
            begin, done = begin + self._stride, max(done, end)
