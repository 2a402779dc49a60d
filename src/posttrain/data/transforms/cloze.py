"""Gaps in a text that are to be filled: a question of what the text says, without a person who asks it.

After the cloze procedure (Taylor 1953). The row is ours: the prompt is the text with a gap, the completion what stood there,
some words of it by chance, or where a column has the answer to a question, the answer.
"""

from __future__ import annotations

import re
from random import Random
from typing import Annotated, Literal

from pydantic import Field, model_validator

from posttrain.data.sources.record import Record
from posttrain.data.transforms._transform import Columns, Rows, Transform, TransformConfig, Unfit, holds, text_of
from posttrain.settings.base import Count

_WORD = re.compile(r"\w+(?:[.,:/'’-]\w+)*")


class Cloze(TransformConfig):
    """A text with a gap is the prompt, and what stood in the gap the completion."""

    name: Literal["cloze"] = "cloze"
    column: str = "text"
    """The text."""
    answer: str | None = None
    """The column whose text is taken out, where it first stands; words by chance if not set."""
    words: Count = 1
    """That are taken out, in a row."""
    per_text: Count = 1
    """Gaps of a text, each in a row of its own; fewer where it has not as many."""
    gap: Annotated[str, Field(min_length=1)] = "____"
    """What stands in their place."""
    question: Annotated[str, holds("text")] = "{text}"
    """The prompt, with the text and its gap in it."""

    @model_validator(mode="after")
    def _takes_one_thing(self) -> Cloze:
        if self.answer is not None and (self.words, self.per_text) != (1, 1):
            raise ValueError("answer: it is what is taken out: leave words and per_text out")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """The text, and what is taken out of it."""
        return (self.column, *([] if self.answer is None else [self.answer]))

    def build(self, rows: Rows) -> Transform:
        """Takes words out, or the answer."""

        def gapped(record: Record, rng: Random) -> list[Columns]:
            text = text_of(record.columns, self.column)
            if self.gap in text:
                raise Unfit(f"its {self.column} has {self.gap} itself, which stands for a gap: set another gap")
            others = {name: value for name, value in record.columns.items() if name not in (self.column, "messages")}
            return [
                {
                    **others,
                    "prompt": self.question.replace("{text}", text[:begin] + self.gap + text[end:]),
                    "completion": text[begin:end],
                }
                for begin, end in self._gaps(record, text, rng)
            ]

        return gapped

    def _gaps(self, record: Record, text: str, rng: Random) -> list[tuple[int, int]]:
        if self.answer is not None:
            found = re.search(rf"(?<!\w){re.escape(text_of(record.columns, self.answer).strip())}(?!\w)", text)
            if found is None or not found[0]:
                raise Unfit(f"its {self.answer} does not stand in its {self.column}")
            return [found.span()]
        words = [word.span() for word in _WORD.finditer(text)]
        places = range(len(words) - self.words + 1)
        if len(words) <= self.words:
            raise Unfit(
                f"its {self.column} has {len(words)} words, too few for a gap of {self.words} and something beside it"
            )
        chosen = sorted(rng.sample(places, min(self.per_text, len(places))))
        return [(words[at][0], words[at + self.words - 1][1]) for at in chosen]
