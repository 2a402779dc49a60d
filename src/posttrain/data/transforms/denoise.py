"""UL2's mixture of denoisers (Unifying Language Learning Paradigms, arXiv:2205.05131; settings recalled) for a decoder: what
is left of a text is the prompt, and what was taken out of it the completion.

    R  spans of 3 or 8, 15 % of the text              X  spans of 3 or 8, half of it; of 64, 15 % or half of it
    S  the end of the text, from anywhere on

A row is of one of the seven, all as likely, and begins with the mode's token. Spans and the text between them are parted at
random as in T5 (arXiv:1910.10683): a share of the units is masked, in so many spans that their mean length is the one asked
for. Ours: units are words with the white space before them, or characters, and no tokens, for the text is not encoded yet.
"""

from __future__ import annotations

import re
from itertools import pairwise
from random import Random
from typing import Annotated, Literal

from pydantic import Field, model_validator

from posttrain.data.sources.record import Record
from posttrain.data.transforms._transform import Columns, Rows, Transform, TransformConfig, Unfit, holds, text_of
from posttrain.settings.base import Config, Positive

_WORDS = re.compile(r"\s*\S+|\s+\Z")


class Denoiser(Config):
    """One way to take spans out of a text."""

    mode: str
    """What the prompt begins with."""
    span: Annotated[float, Field(ge=1)] | None = None
    """Their mean length; one span, which is the end of the text from anywhere on, if not set."""
    rate: Annotated[float, Field(gt=0, lt=1)] | None = None
    """The share of the text that they take."""
    weight: Positive = 1.0
    """How likely it is, beside the others."""

    @model_validator(mode="after")
    def _is_whole(self) -> Denoiser:
        if (self.span is None) != (self.rate is None):
            raise ValueError("span and rate belong together; without both the end of the text is taken")
        return self


UL2 = (
    *(Denoiser(mode="[R] ", span=span, rate=0.15) for span in (3, 8)),
    *(Denoiser(mode="[X] ", span=span, rate=rate) for span, rate in ((3, 0.5), (8, 0.5), (64, 0.15), (64, 0.5))),
    Denoiser(mode="[S] "),
)


class Denoise(TransformConfig):
    """Of a text spans are taken out, and to be said: UL2's seven denoisers, or those that are given."""

    name: Literal["denoise"] = "denoise"
    column: str = "text"
    """The text."""
    denoisers: Annotated[list[Denoiser], Field(min_length=1)] | None = None
    """One of them for each row, by its weight; UL2's seven if not set."""
    unit: Literal["words", "characters"] = "words"
    """Of which spans are made: words, parted by white space, or characters, for texts without it."""
    sentinel: Annotated[str, holds("number")] = "<extra_id_{number}>"
    """What stands in place of a span, and before it in the completion; numbers begin at 0."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The text."""
        return (self.column,)

    def build(self, rows: Rows) -> Transform:
        """Draws a denoiser, and its spans."""
        denoisers = self.denoisers or UL2
        weights = [one.weight for one in denoisers]

        def denoised(record: Record, rng: Random) -> list[Columns]:
            text = text_of(record.columns, self.column)
            [denoiser] = rng.choices(denoisers, weights)
            units = [*text] if self.unit == "characters" else _WORDS.findall(text)
            if len(units) < 2:
                raise Unfit(f"its {self.column} is a single one of {self.unit}, of which nothing can be taken")
            spans = _spans(len(units), denoiser, rng)
            marks = [self.sentinel.replace("{number}", str(number)) for number in range(len(spans))]
            if marked := [mark for mark in marks if mark in text]:
                raise Unfit(f"its {self.column} has {marked[0]} itself, which stands for what is taken: set another sentinel")
            left, taken, at = "", "", 0
            for mark, (begin, end) in zip(marks, spans, strict=True):
                left += "".join(units[at:begin]) + mark
                taken += mark + "".join(units[begin:end])
                at = end
            left += "".join(units[at:])
            others = {name: value for name, value in record.columns.items() if name not in (self.column, "messages")}
            return [{**others, "prompt": denoiser.mode + left, "completion": taken}]

        return denoised


def _spans(units: int, denoiser: Denoiser, rng: Random) -> list[tuple[int, int]]:
    """Where spans begin and end; something is left before each."""
    if denoiser.span is None or denoiser.rate is None:
        return [(rng.randrange(1, units), units)]
    masked = min(max(round(units * denoiser.rate), 1), units - 1)
    number = min(max(round(masked / denoiser.span), 1), masked, units - masked)
    spans, at = list[tuple[int, int]](), 0
    for left, taken in zip(_parts(units - masked, number, rng), _parts(masked, number, rng), strict=True):
        spans.append((at + left, at + left + taken))
        at += left + taken
    return spans


def _parts(units: int, number: int, rng: Random) -> list[int]:
    """So many parts of at least one unit, each way to part them as likely."""
    cuts = [0, *sorted(rng.sample(range(1, units), number - 1)), units]
    return [end - begin for begin, end in pairwise(cuts)]
