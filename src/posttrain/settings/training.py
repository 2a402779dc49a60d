"""What a recipe says of its training that has no kinds: what it may spend, and how the same numbers are made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from posttrain.settings.base import Config, Count, NonNegative, Pattern, Positive

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


class StopWhen(Config):
    """Ends the run, with its final model, once a metric is above or below a value."""

    metric: Annotated[str, Field(min_length=1)]
    """A name of metrics.jsonl, or of eval.jsonl (eval/<set>/…)."""
    above: float | None = None
    """Ends it once the metric is above this."""
    below: float | None = None
    """Ends it once the metric is below this."""
    patience: Count = 1
    """So many measurements in a row."""

    @model_validator(mode="after")
    def _has_one_bound(self) -> StopWhen:
        if (self.above is None) == (self.below is None):
            raise ValueError("give either above or below")
        return self

    def is_met(self, value: float) -> bool:
        """By one measurement."""
        return value > self.above if self.above is not None else value < (self.below or 0.0)

    def __str__(self) -> str:
        return f"{self.metric} above {self.above:g}" if self.above is not None else f"{self.metric} below {self.below:g}"


class MatchedRates(Config):
    """Of the parameters with a name that a pattern is found in."""

    match: Pattern
    """A regular expression, looked for in the whole name: embed_tokens|lm_head, or lora_B."""
    lr: NonNegative | None = None
    """Their learning rate, in place of training.learning_rate; the schedule scales it alike."""
    rate: NonNegative | None = None
    """Or a factor of the learning rate that they have."""
    weight_decay: NonNegative | None = None
    """Theirs, in place of training.weight_decay, for norms and biases too, which have none otherwise."""

    @model_validator(mode="after")
    def _says_something(self) -> MatchedRates:
        if self.lr is not None and self.rate is not None:
            raise ValueError("give either lr or rate")
        if self.lr is None and self.rate is None and self.weight_decay is None:
            raise ValueError("give lr, rate or weight_decay")
        return self


class LayerRates(Config):
    """Of each layer, the lower the nearer to the embeddings."""

    layers: Literal["decay"]
    """The last layer and what comes after it keep the rate that they have; each layer before has a factor of `rate` more, and
    the embeddings one more than the first layer."""
    rate: Annotated[float, Field(gt=0, le=1)]
    """From a layer to the one before."""


def _form(rule: Any) -> str:
    return "by_layer" if (isinstance(rule, dict) and "layers" in rule) or isinstance(rule, LayerRates) else "by_name"


ParameterRule = Annotated[
    Annotated[MatchedRates, Tag("by_name")] | Annotated[LayerRates, Tag("by_layer")], Discriminator(_form)
]
"""One of both; several hold in their order, each over those before."""

HeadPath = Literal["one_pass", "two_pass", "whole"]
"""one_pass: scores and gradients of a row of logits while it is there, for algorithms of token scope; two_pass: the backward
pass makes the logits again, as others always do; whole: the model's own logits, all at once."""
RowLayout = Literal["shared", "packed", "padded"]
"""shared: one row without padding, and a prompt once for all of its answers; packed: one row without padding; padded: a row
for each completion."""
