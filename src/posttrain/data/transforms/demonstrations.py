"""Solved rows before the question, the most like it: a model learns to answer with demonstrations in view.

Meta-training with Demonstration Retrieval for Efficient Few-shot Learning (arXiv:2307.00119; from its abstract): before a
question stand rows that are found by it. Ours: they are found by BM25 of the prompts' words, a row is never its own
demonstration, nor is one with the same prompt, and the nearest stands last, right before the question.
"""

from __future__ import annotations

from random import Random
from typing import Literal

from posttrain.data.columns import names_of
from posttrain.data.rows import BadRow
from posttrain.data.sources.record import Record
from posttrain.data.transforms._nearest import Found, Nearest
from posttrain.data.transforms._transform import Columns, Rows, Transform, TransformConfig, filled, text_of, usable
from posttrain.settings.base import Count, Template

POOL = 20_000  # texts


class Demonstrations(TransformConfig):
    """The rows of training whose prompts are most like this one's stand solved before it, the nearest last."""

    package, extra = "bm25s", "bm25"

    name: Literal["demonstrations"] = "demonstrations"
    k: Count = 4
    """How many stand before a prompt."""
    template: Template = "{prompt}\n{completion}"
    """How each is written; its fields are columns of rows that are trained on."""
    separator: str = "\n\n"
    """What stands behind each."""
    pool: Count = POOL
    """Of how many rows, at most, they are chosen; by chance, where there are more."""

    @property
    def columns(self) -> tuple[str, ...]:
        """What is asked: a row of an evaluation set needs no more."""
        return ("prompt",)

    def build(self, rows: Rows) -> Transform:
        """Reads what is trained on, and indexes its prompts."""
        nearest = Nearest(usable(rows, self._solved), at_most=self.pool, what="demonstrations")
        if len(nearest) <= self.k:
            fields = ", ".join({"prompt": None, **dict.fromkeys(names_of(self.template))})
            raise BadRow(
                f"k: {self.k} are to stand before each row, and what is trained on has {len(nearest)} that differ, with a "
                f"value in each of the columns {fields}"
            )

        def demonstrated(record: Record, rng: Random) -> list[Columns]:
            prompt = text_of(record.columns, "prompt")
            found = nearest.of(prompt, self.k, but=[prompt])
            if len(found) < self.k:
                raise BadRow(f"k: {self.k} are to stand before it, and of other prompts there are {len(found)}")
            shown = "".join(one + self.separator for one in reversed(found))
            return [{**record.columns, "prompt": shown + prompt}]

        return demonstrated

    def _solved(self, columns: Columns) -> Found:
        return Found(text_of(columns, "prompt"), filled(self.template, columns))
