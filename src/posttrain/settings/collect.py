"""What a recipe says of sampling before training. No torch here."""

from __future__ import annotations

from pydantic import model_validator

from posttrain.settings.base import Config, Count, Positive
from posttrain.settings.rollout import SamplingConfig


class InstanceFilter(SamplingConfig):
    """Rollout-based instance filtering (RIF): a question stays where the start model is right at least sometimes."""

    k: Count = 8
    """Answers for each question."""
    right: Count = 1
    """Of them that must be right."""

    @model_validator(mode="after")
    def _can_be_met(self) -> InstanceFilter:
        if self.right > self.k:
            raise ValueError(f"right: {self.right} of {self.k} answers cannot be")
        return self


class RejectionSampling(SamplingConfig):
    """RAFT, STaR: the start model's own right answers become demonstrations."""

    k: Count = 8
    """Answers for each question."""
    per_question: Count = 1
    """Different right answers that are kept of each question, at most."""


class QuestionValue(SamplingConfig):
    """What the best policy near the start model earns on a question, where an answer earns 1 if it is right and else 0: a
    column `value`, for A*-PO. Questions of which no answer was right are left out. Answers are sampled as `rollout` says:
    its temperature, top_p, top_k, max_tokens and stop hold here too.
    """

    k: Count = 8
    """Answers for each question."""
    beta: Positive = 0.5
    """How near: beta · log of the mean of exp(R / beta) is the best answer's towards 0, and the mean for a large one."""


class CollectConfig(Config):
    """What is sampled from the start model before training, once: one of these."""

    rif: InstanceFilter | None = None
    """Keeps the questions that it can answer."""
    rejection_sampling: RejectionSampling | None = None
    """Makes demonstrations of its right answers."""
    value: QuestionValue | None = None
    """Makes what each question is worth."""

    @model_validator(mode="after")
    def _is_one(self) -> CollectConfig:
        if len(self._given) != 1:
            raise ValueError("give one of rif, rejection_sampling and value")
        return self

    @property
    def _given(self) -> list[InstanceFilter | RejectionSampling | QuestionValue]:
        return [one for one in (self.rif, self.rejection_sampling, self.value) if one is not None]

    @property
    def chosen(self) -> InstanceFilter | RejectionSampling | QuestionValue:
        """The one that is given."""
        return self._given[0]
