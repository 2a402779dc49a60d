"""Of a text that is learnt, what is read has random tokens in it.

Unsupervised LLM Adaptation for Question Answering (arXiv:2402.12170; from its abstract, the rest recalled): documents are
trained on as texts are, and each input token is with some probability a random one, so that what is predicted cannot lean on
the tokens right before it alone; the tokens to be predicted stay what they were. Then questions of another domain are trained
on, with answers. The paper's rate was not found, so that none is given here. Ours: a random token is any of the tokenizer's
but the special ones, the same one for all windows of a text; what stands before the text is not changed.
"""

from __future__ import annotations

from random import Random
from typing import Annotated, Literal

from pydantic import Field

from posttrain.data.sources.record import Record
from posttrain.data.transforms._transform import Columns, Rows, Transform, TransformConfig, text_of


class Corrupt(TransformConfig):
    """Random tokens are read in the places of some of a text's; the text is learnt as it was."""

    name: Literal["corrupt"] = "corrupt"
    rate: Annotated[float, Field(gt=0, le=1)]
    """How likely it is, of each token of the text."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The text."""
        return ("text",)

    def build(self, rows: Rows) -> Transform:
        """Leaves the rate and a seed of the row's own in `text_corruption`, for tokens are not known yet."""

        def corrupted(record: Record, rng: Random) -> list[Columns]:
            text_of(record.columns, "text")
            return [{**record.columns, "text_corruption": [self.rate, rng.getrandbits(32)]}]

        return corrupted
