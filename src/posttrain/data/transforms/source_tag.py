"""Where a text is from, said after it and learnt: the model can then name its sources.

Source-Aware Training Enables Knowledge Attribution in Language Models (arXiv:2404.01019; from its abstract, the rest
recalled): a document is followed by its identifier, which carries loss like the rest; questions are then trained on with the
answer and the identifier of the document that has it. Copies of a document in which its sentences stand in another order keep
the identifier from being learnt of its last sentence alone. Ours: what stands between text and identifier, and where
sentences end: after . ! or ?, and white space.
"""

from __future__ import annotations

import re
from random import Random
from typing import Annotated, Any, Literal

from posttrain.data.columns import is_number
from posttrain.data.rows import BadRow
from posttrain.data.sources.record import Record
from posttrain.data.transforms._transform import Columns, Rows, Transform, TransformConfig, holds
from posttrain.settings.base import Count

_SENTENCE = re.compile(r"(?<=[.!?])\s+")


class SourceTag(TransformConfig):
    """A text, or a completion, is followed by the name of its source, which is learnt."""

    name: Literal["source_tag"] = "source_tag"
    column: str
    """What the source is called: text or a number."""
    tag: Annotated[str, holds("value")] = " || {value}"
    """What is put behind, with the column's value in it."""
    copies: Count = 1
    """Of each text; those after the first have its sentences in another order."""

    @property
    def columns(self) -> tuple[str, ...]:
        """What the source is called."""
        return (self.column,)

    def build(self, rows: Rows) -> Transform:
        """Puts it behind the text, or else the completion, or else the last turn of the messages."""

        def tagged(record: Record, rng: Random) -> list[Columns]:
            value, columns = record.columns[self.column], record.columns
            if not isinstance(value, str) and not is_number(value):
                raise BadRow(f"{self.column} must be text or a number, not {type(value).__name__}")
            tag = self.tag.replace("{value}", str(value))
            if isinstance(text := columns.get("text"), str):
                texts = [text, *(shuffled(text, rng) for _ in range(self.copies - 1))]
                return [{**columns, "text": one.rstrip() + tag} for one in texts]
            if self.copies > 1:
                raise BadRow("it has no text whose sentences could be put into another order (copies)")
            if isinstance(said := columns.get("completion"), str):
                return [{**columns, "completion": said + tag}]
            return [{**columns, "messages": _behind_last(columns.get("messages"), tag)}]

        return tagged


def shuffled(text: str, rng: Random) -> str:
    """A text with its sentences in another order, where it has two that differ."""
    sentences = _SENTENCE.split(text.strip())
    other = [*sentences]
    while len({*sentences}) > 1 and other == sentences:
        rng.shuffle(other)
    return " ".join(other)


def _behind_last(messages: Any, tag: str) -> list[Any]:
    turns: list[Any] = list(messages) if isinstance(messages, (list, tuple)) else []
    last = turns[-1] if turns else None
    if not isinstance(last, dict) or last.get("role") != "assistant" or not isinstance(last.get("content"), str):
        raise BadRow("it has no text, no completion, and no messages that end in the assistant's, to put a source behind")
    return [*turns[:-1], {**last, "content": last["content"] + tag}]
