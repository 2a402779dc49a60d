"""Passages before the question, the right one among them or not: a model learns to answer from what was retrieved.

RAFT (Adapting Language Model to Domain Specific RAG, arXiv:2403.10131; from its abstract, P = 0.8 recalled): with probability
P a question stands behind its own passage (the oracle) and distractors, and else behind distractors alone; its answer, which
the data bring, quotes the oracle. `order: ends` is the reordering of Long-Context LLMs Meet RAG (arXiv:2410.05983; from its
abstract): the best passages stand at both ends, 1st, 3rd, … , 4th, 2nd.
Ours: distractors are the passages of other rows that are nearest to the question by BM25, never one of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from random import Random
from typing import Annotated, Any, Literal

from posttrain.data.rows import BadRow
from posttrain.data.sources.record import Record
from posttrain.data.transforms._nearest import Found, Nearest
from posttrain.data.transforms._transform import Columns, Rows, Transform, TransformConfig, holds, text_of, usable
from posttrain.data.transforms.demonstrations import POOL
from posttrain.settings.base import Count, Share


class Documents(TransformConfig):
    """Passages stand before the prompt: its own with a probability, and others that are like the question."""

    package, extra = "bm25s", "bm25"

    name: Literal["documents"] = "documents"
    column: str = "document"
    """The passages that answer the question: a text, or a list of them."""
    k: Count = 5
    """Passages before a prompt; its own alone, where it has as many."""
    oracle: Share = 0.8
    """The share of rows that have their own among them."""
    order: Literal["shuffled", "ends"] = "shuffled"
    """By chance; or the best at both ends, its own first, then the others as near as they are."""
    passage: Annotated[str, holds("passage")] = "{passage}\n\n"
    """How each is written; {number} is its place, from 1 on."""
    pool: Count = POOL
    """Of how many passages, at most, the others are chosen; by chance, where there are more."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The question, and its passages."""
        return ("prompt", self.column)

    def build(self, rows: Rows) -> Transform:
        """Reads what is trained on, and indexes its passages."""
        passages = chain.from_iterable(usable(rows, lambda columns: passages_of(columns.get(self.column), self.column)))
        nearest = Nearest((Found(one, one) for one in passages), at_most=self.pool, what="documents")
        if not len(nearest):
            raise BadRow(f"no row that is trained on has passages in the column {self.column}")

        def with_documents(record: Record, rng: Random) -> list[Columns]:
            prompt, own = text_of(record.columns, "prompt"), passages_of(record.columns[self.column], self.column)
            shown = own[: self.k] if rng.random() < self.oracle else []
            others = nearest.of(prompt, self.k - len(shown), shown=own)
            if len(shown) + len(others) < self.k:
                raise BadRow(
                    f"k: {self.k} passages are asked for, {len(shown)} of its own stand there, and of others {len(others)}"
                )
            ranked = [*shown, *others]
            if self.order == "shuffled":
                rng.shuffle(ranked)
            else:
                ranked = at_both_ends(ranked)
            written = [
                self.passage.replace("{number}", str(number)).replace("{passage}", one)
                for number, one in enumerate(ranked, 1)
            ]
            return [{**record.columns, "prompt": "".join(written) + prompt}]

        return with_documents


def passages_of(value: Any, column: str) -> list[str]:
    """The passages of a row.

    Raises:
        BadRow: they are neither text nor a list of texts.
    """
    several = list(value) if isinstance(value, (list, tuple)) else [value]
    if not several or not all(isinstance(one, str) and one.strip() for one in several):
        raise BadRow(f"{column} must be a text or a list of texts, none of them empty")
    return several


def at_both_ends(ranked: Sequence[str]) -> list[str]:
    """The first at the beginning, the second at the end, the third behind the first, and so on."""
    return [*ranked[::2], *reversed(ranked[1::2])]
