"""A run that ends when so much has been spent, whatever the number of steps: for comparisons of algorithms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from posttrain.algorithms.base import Config, Positive


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

    def share(self, steps: Iterable[Mapping[str, Any]]) -> float:
        """What the lines of metrics.jsonl have spent, as a share of it."""
        name, limit = ("step/tokens", self.tokens) if self.tokens is not None else ("step/seconds", self.seconds)
        assert limit is not None
        return sum(step[name] for step in steps) / limit
