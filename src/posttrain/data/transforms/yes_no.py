"""A class and its description as a question that is answered by yes or no.

Meta-tuning (Adapting Language Models for Zero-shot Learning by Meta-tuning on Dataset and Prompt Collections,
arXiv:2104.04670; from its abstract): a classified text becomes one row for each description of a class, "…?" → Yes or No.
Ours: of the classes that the text is not of so many are asked as `negatives` says, by chance, so that both answers are as
frequent where it is 1.
"""

from __future__ import annotations

from random import Random
from typing import Annotated, Literal

from pydantic import Field

from posttrain.data.rows import BadRow
from posttrain.data.sources.record import Record
from posttrain.data.transforms._transform import Columns, Rows, Transform, TransformConfig, text_of
from posttrain.settings.base import Count


class YesNo(TransformConfig):
    """A text with a class becomes questions of what it is, one for its class, answered by yes, and some for others, by no."""

    name: Literal["yes_no"] = "yes_no"
    questions: Annotated[dict[str, str], Field(min_length=2)]
    """For each class, as the column has it, what is asked: {positive: "Is the review positive?", …}."""
    column: str = "class"
    """The class of a row."""
    text: str = "prompt"
    """The column of what is classified."""
    separator: str = "\n"
    """Between the text and the question."""
    yes: str = "Yes"
    """What is answered where the text is of the class."""
    no: str = "No"
    """What is answered where it is not."""
    negatives: Count = 1
    """Questions of other classes for each text, by chance; all of them where there are not as many."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The text and its class."""
        return (self.text, self.column)

    def build(self, rows: Rows) -> Transform:
        """Asks of the class, and of others."""

        def asked(record: Record, rng: Random) -> list[Columns]:
            text, own = text_of(record.columns, self.text), str(record.columns[self.column])
            if own not in self.questions:
                raise BadRow(f"its {self.column} is {own!r:.40}, and questions has {', '.join(self.questions)}")
            others = [name for name in self.questions if name != own]
            chosen = [own, *rng.sample(others, min(self.negatives, len(others)))]
            taken = (self.text, self.column, "prompt", "completion", "text", "messages")
            rest = {name: value for name, value in record.columns.items() if name not in taken}
            return [
                {
                    **rest,
                    "prompt": f"{text}{self.separator}{self.questions[name]}",
                    "completion": self.yes if name == own else self.no,
                }
                for name in chosen
            ]

        return asked
