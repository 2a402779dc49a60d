"""What is said of an answer is learnt, after the question and the answer, which carry no loss.

LaFFi (Leveraging Hybrid Natural Language Feedback for Fine-tuning Language Models, arXiv:2401.00907; from its abstract): the
model learns to predict the feedback that annotators give to an answer. The feedback is a column of the data.
"""

from __future__ import annotations

from random import Random
from typing import Literal

from posttrain.data.columns import names_of
from posttrain.data.sources.record import Record
from posttrain.data.transforms._transform import Columns, Rows, Transform, TransformConfig, filled, text_of
from posttrain.settings.base import Template


class Feedback(TransformConfig):
    """A question with an answer is the prompt, and what is said of the answer the completion."""

    name: Literal["feedback"] = "feedback"
    column: str = "feedback"
    """What is said of the answer."""
    template: Template = "{prompt}\n{completion}\n"
    """The new prompt; its fields are columns."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Those of the template, and the feedback."""
        return (*names_of(self.template), self.column)

    def build(self, rows: Rows) -> Transform:
        """Fills the template."""

        def told(record: Record, rng: Random) -> list[Columns]:
            said, others = text_of(record.columns, self.column), {**record.columns}
            for name in ("messages", "text", self.column):
                others.pop(name, None)
            return [{**others, "prompt": filled(self.template, record.columns), "completion": said}]

        return told
