"""What a recipe says of its evaluations."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from posttrain.settings.base import Config, Count
from posttrain.settings.rollout import Sampled


class Branch(Config):
    """Several turns are tried at each place of an episode, and the environment's own reward chooses among them."""

    n: Annotated[int, Field(ge=1, le=64)]
    """Turns that are tried; 1 is plain play."""
    pick: Literal["environment"] = "environment"
    """What chooses: one that is right, else the one that the environment pays most. It is an oracle."""
    backtracks: Annotated[int, Field(ge=0)] = 0
    """How often an episode that ends wrong goes on with a turn that was left, the last and best first."""


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
    branch: Branch | None = None
    """Episodes are played with branches, where the environment can be brought back to a state; in a run's own evaluations."""
    metric: str | None = None
    """<set>/<name>: the model with its best value is kept in best/. Lower is better for loss, nll and objectives."""

    @model_validator(mode="after")
    def _can_estimate(self) -> EvalConfig:
        if self.k and max(self.k) > self.samples:
            raise ValueError(f"pass@{max(self.k)} cannot be estimated from samples: {self.samples}")
        return self
