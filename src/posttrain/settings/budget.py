"""A run that ends when so much has been spent, whatever the number of steps: for comparisons of algorithms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, model_validator

from posttrain.algorithms.options import Config, Positive

TOKENS, SECONDS = SPENT = ("step/tokens", "step/seconds")
"""What metrics.jsonl says that a step has spent; a budget limits one of them."""


class Budget(Config):
    """What a run may spend, in one of these."""

    tokens: Annotated[int, Field(ge=1)] | None = None
    """Of all rows of its steps, prompts included, and those of rows without signal, which are not read in the update."""
    seconds: Positive | None = None
    """Of all its steps, their rollouts included; evaluations and checkpoints are not counted."""

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> Budget:
        if (self.tokens is None) == (self.seconds is None):
            raise ValueError("give either tokens or seconds")
        return self

    def share(self, spent: Mapping[str, float]) -> float:
        """What has been spent, by the names of `SPENT`, as a share of it."""
        if self.tokens is not None:
            return spent[TOKENS] / self.tokens
        assert self.seconds is not None  # _is_of_one_kind
        return spent[SECONDS] / self.seconds
