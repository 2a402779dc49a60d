"""What a recipe says of sampling before training: one step of it, or several, in order. No torch here."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, model_validator

from posttrain.settings.base import Config, Count, Positive
from posttrain.settings.data.generate import Generate
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


class Relabelling(RejectionSampling):
    """Hindsight relabelling: right episodes as for rejection_sampling; and failed ones, where the environment says which goal
    they did reach, as right ones of that goal, with their prompt for it.
    """


class PairSampling(SamplingConfig):
    """Pairs of episodes of the same row, a right one against a wrong one, for algorithms over preference pairs."""

    k: Count = 8
    """Episodes for each row."""
    per_question: Count = 1
    """Different pairs of each row, at most."""


class FeedbackSampling(SamplingConfig):
    """LeTI: all episodes, right or wrong, become texts: a sign of the verdict, what the environment said last, where it was
    wrong, the prompt, and the episode. All of it is learnt, others' words too.
    """

    k: Count = 8
    """Episodes for each row."""
    right: str = "<|good|>"
    """The sign of right episodes, before what the policy was asked; the transform control_token asks after it."""
    wrong: str = "<|bad|>"
    """The sign of wrong ones."""
    feedback: Annotated[str, Field(pattern=r"\{feedback\}|^$")] = "{feedback}\n"
    """What stands after the sign of a wrong one; {feedback} is what the environment said after its last turn. Nothing stands
    there where it said nothing, or if this is empty."""

    @model_validator(mode="after")
    def _tells_them_apart(self) -> FeedbackSampling:
        if self.right == self.wrong:
            raise ValueError(f"right and wrong are both {self.right!r}: nothing would tell episodes apart")
        return self


OfEpisodes = Relabelling | PairSampling | FeedbackSampling
"""What can be done with episodes alone."""
Counted = InstanceFilter | RejectionSampling | QuestionValue | PairSampling | FeedbackSampling
Chosen = Counted | Generate


class CollectConfig(Config):
    """What is sampled before training, once: one of these. Those of the start model have been there first."""

    rif: InstanceFilter | None = None
    """Keeps the questions that it can answer."""
    rejection_sampling: RejectionSampling | None = None
    """Makes demonstrations of its right answers."""
    value: QuestionValue | None = None
    """Makes what each question is worth."""
    relabel: Relabelling | None = None
    """Of episodes: the same, and of those that fail others, with the goal that they did reach."""
    pairs: PairSampling | None = None
    """Of episodes: right ones against wrong ones."""
    feedback: FeedbackSampling | None = None
    """Of episodes: texts that begin with the verdict and with what the environment said."""
    generate: Generate | None = None
    """Makes rows of what a model writes: it, a teacher, an earlier stage, or one behind a server."""

    @model_validator(mode="after")
    def _is_one(self) -> CollectConfig:
        if len(self._given) != 1:
            *most, last = type(self).model_fields
            raise ValueError(f"give one of {', '.join(most)} and {last}; several are a list of steps, in order")
        return self

    @property
    def _given(self) -> list[Chosen]:
        return [one for name in type(self).model_fields if (one := getattr(self, name)) is not None]

    @property
    def counted(self) -> Counted:
        """The same where it is of right answers of the start model."""
        assert not isinstance(self.chosen, Generate)
        return self.chosen

    @property
    def chosen(self) -> Chosen:
        """The one that is given."""
        return self._given[0]


def _form(given: Any) -> str:
    return "several steps" if isinstance(given, list) else "one step"


Collect = Annotated[
    Annotated[CollectConfig, Tag("one step")]
    | Annotated[Annotated[list[CollectConfig], Field(min_length=1)], Tag("several steps")],
    Discriminator(_form),
]
"""One step, or several, each of which works on the rows that the one before it left or made."""


def steps_of(collect: CollectConfig | list[CollectConfig] | None) -> list[Chosen]:
    """The steps, in order."""
    return [one.chosen for one in (collect if isinstance(collect, list) else [collect] if collect is not None else [])]


def key_of(number: int, collect: CollectConfig | list[CollectConfig] | None) -> str:
    """What the step of a number, counted from 0, is called in a recipe."""
    chosen = collect[number] if isinstance(collect, list) else collect
    kind = next(name for name in CollectConfig.model_fields if getattr(chosen, name) is not None)
    return f"data.collect.{number}.{kind}" if isinstance(collect, list) else f"data.collect.{kind}"
