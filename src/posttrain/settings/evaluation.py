"""What a recipe says of its evaluations."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from posttrain.settings.base import Count
from posttrain.settings.rollout import Sampled


class EvalConfig(Sampled):
    """Validation: the loss on every set of data.eval, and sampled answers where `samples` is set."""

    every: Count | None = None
    """Steps between evaluations; there is one before the first step and one after the last in any case."""
    loss: bool = True
    """Measure the loss, where the sets have completions and the algorithm trains on them."""
    samples: Annotated[int, Field(ge=0)] = 0
    """Answers sampled for each problem; 0: none."""
    k: list[Count] = []
    """pass@k, besides pass@1."""
    seed: int = 0
    """Of the sampled answers."""
    limit: Count | None = None
    """Problems of each set that are sampled."""
    metric: str | None = None
    """<set>/<name>: the model with its best value is kept in best/. Lower is better for loss, nll and objectives."""

    @model_validator(mode="after")
    def _can_estimate(self) -> EvalConfig:
        if self.k and max(self.k) > self.samples:
            raise ValueError(f"pass@{max(self.k)} cannot be estimated from samples: {self.samples}")
        return self
