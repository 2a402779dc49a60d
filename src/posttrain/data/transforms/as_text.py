"""A prompt and its completion as one text, all of which is learnt.

Before prompt-based fine-tuning, language modelling over the task's own inputs in the template that they will be asked in
(PCP, Don't Stop Pretraining? Make Prompt-based Fine-tuning Powerful Learner, arXiv:2305.01711; from its abstract), and
instruction data among pre-training texts.
"""

from __future__ import annotations

from random import Random
from typing import Literal

from posttrain.data.columns import names_of
from posttrain.data.sources.record import Record
from posttrain.data.transforms._transform import Columns, Rows, Transform, TransformConfig, filled
from posttrain.settings.base import Template


class AsText(TransformConfig):
    """A prompt and its completion become a text, all of which is learnt."""

    name: Literal["as_text"] = "as_text"
    template: Template = "{prompt}{completion}"
    """What the text is; its fields are columns. data.prompt_template is not in it."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Those of the template."""
        return names_of(self.template)

    def build(self, rows: Rows) -> Transform:
        """Fills the template; what it was filled with is no column of the row any more, and neither are messages."""
        taken = {*self.columns, "prompt", "completion", "messages"}

        def as_text(record: Record, rng: Random) -> list[Columns]:
            others = {name: value for name, value in record.columns.items() if name not in taken}
            return [{**others, "text": filled(self.template, record.columns)}]

        return as_text
