"""What an algorithm's config is, and what those of one kind can be told alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from posttrain.settings.base import Config, Count, NonNegative, Positive, Template
from posttrain.settings.rollout import PairsConfig

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class AlgorithmConfig(Config, ABC):
    """The options of one algorithm. The recipe reads the traits; all else reads `Algorithm.needs`."""

    trains_on: ClassVar[Literal["demonstrations", "preferences", "labels", "principles", "rollouts"] | None] = None
    """None: nobody knows before it is built."""
    takes_demonstrations: ClassVar[bool] = False
    """A data set of demonstrations of its own, beside the questions."""
    reads_verdict: ClassVar[bool] = False
    """It asks which rollouts are right, beside their rewards."""
    reads_rewards: ClassVar[bool] = True
    """Advantages are made of the rewards; where not, of the verdict alone."""
    measures_tokens: ClassVar[bool] = False
    """Its credit is made of all tokens of a collection together, so that none may be taken out of the loss afterwards."""
    corrects: ClassVar[bool] = False
    """It weighs tokens by how likely they were to their sampler without being told a correction."""
    beside_rollouts: ClassVar[bool] = False
    """It learns from something of the question beside its rollouts: a demonstration, a greedy answer, a value."""
    whole_rows: ClassVar[bool] = False
    """Its credit is of whole answers, and there is none of the turns of an episode."""
    has_teacher: ClassVar[bool] = False
    """It learns from a teacher, one of model.teachers."""

    name: str
    """Which algorithm; the other keys here are its options."""

    @property
    def label(self) -> str:
        """For people, and for the names of stages."""
        return self.name

    @property
    def learns_from_rewards(self) -> bool:
        """Where it trains on rollouts, their rewards are needed."""
        return True

    @property
    def adds_steps(self) -> bool:
        """There are optimizer steps beside those on rollouts, and nobody knows beforehand how many."""
        return False

    @property
    def replaces_groups(self) -> bool:
        """Groups that nothing is learnt from are replaced by other questions."""
        return False

    def unread(self) -> Mapping[str, str]:
        """Options that say nothing beside the others, each with what would read it."""
        return {}

    @model_validator(mode="after")
    def _each_is_read(self) -> AlgorithmConfig:
        """By its value: what a run has resolved writes every option out."""
        for option, reader in self.unread().items():
            if getattr(self, option) != type(self).model_fields[option].default:
                raise ValueError(f"{option}: nothing reads it here; {reader} does")
        return self

    @abstractmethod
    def build(self) -> Algorithm:
        """The value that these options describe. torch is imported here, and not before.

        Raises:
            ValueError: the options do not go together in a way that only building shows.
        """


class Taught(AlgorithmConfig, ABC):
    """Of algorithms that learn from a teacher, which may be asked more than the student."""

    has_teacher = True

    teacher_template: Template | None = None
    """What the teacher is asked in place of the prompt. The recipe fills it from `model.teachers`."""


class OnDemonstrations(AlgorithmConfig, ABC):
    """Of algorithms over demonstrations."""

    trains_on = "demonstrations"


class OnPreferences(AlgorithmConfig, ABC):
    """Of algorithms over pairs of a chosen and a rejected completion, which are data, or are made of rollouts."""

    trains_on = "preferences"

    pairs: PairsConfig | None = None
    """How pairs are made of what is sampled; None: they are data. The recipe fills it from `rollout.pairs`."""
    rollouts: Annotated[int, Field(ge=0)] = 0
    """With `pairs`: completions for each question. The recipe fills it from `rollout.n`."""
    updates: Count = 1
    """With `pairs`: optimizer steps for each collection."""

    @model_validator(mode="after")
    def _has_completions_to_pair(self) -> OnPreferences:
        if self.pairs is None:
            if self.rollouts or self.updates > 1:
                raise ValueError("pairs: rollouts and updates are of pairs that are sampled: say how, {rule: best_worst}")
            return self
        least = 1 if self.pairs.rule in ("demonstration", "fixed_rejected") else 2
        if self.rollouts < least:
            raise ValueError(f"rollouts: {self.rollouts} completions of a question are no pair: set rollout.n to 2 or more")
        return self


class OnLabels(AlgorithmConfig, ABC):
    """Of algorithms over completions that are each labelled: wanted, or not."""

    trains_on = "labels"


class Correction(Config):
    """Importance correction for the gap between sampler and trainer: exp of the log-ratio, bounded by `cap`."""

    level: Literal["token", "sequence", "geometric"] = "token"
    """Over what the log-ratio is taken: each token, the sum over the answer, or the mean over it."""
    form: Literal["truncate", "mask"] = "truncate"
    """What is beyond the cap is set to it (TIS), or to 0 (MIS, which has 1/cap as a lower bound as well)."""
    cap: Annotated[float, Field(gt=1)] = 2.0
    """The largest weight."""


class OnSamples(AlgorithmConfig, ABC):
    """Of algorithms over what the policy samples."""

    trains_on = "rollouts"

    rollouts: Count = 8
    """Completions for each question. The recipe fills it from `rollout.n`."""


class AdaptiveKL(Config):
    """A weight of the KL to the start model that follows it: before each collection c becomes
    c (1 + 0.1 · clip((KL - target) / target, -0.2, 0.2)), KL of the collection before, over what was sampled.
    """

    target: Positive
    """Nats a token."""
    start: Positive = 0.05
    """Of the first collection."""


class AdaptiveEntropy(Config):
    """A bonus on the entropy that follows it, with a state c: before each collection c rises by `delta` where the one before
    was sampled at an entropy of at most the target, and else falls by it; the bonus is c where it was, and else 0.
    """

    target: Positive
    """Nats a token."""
    start: NonNegative = 0.0
    """Of the first collection."""
    delta: Positive = 0.005
    """How far c moves at a time."""
    most: Positive = 1.0
    """The largest c; the least is 0."""

    @model_validator(mode="after")
    def _begins_within(self) -> AdaptiveEntropy:
        if self.start > self.most:
            raise ValueError(f"start: {self.start:g} is above most: {self.most:g}, the largest that it may be")
        return self


def _is_adaptive(given: object) -> str:
    return "an adaptive one" if isinstance(given, dict | Config) else "a number"


Number = Annotated[NonNegative, Tag("a number")]
KLCoefficient = Annotated[Number | Annotated[AdaptiveKL, Tag("an adaptive one")], Discriminator(_is_adaptive)]
EntropyCoefficient = Annotated[Number | Annotated[AdaptiveEntropy, Tag("an adaptive one")], Discriminator(_is_adaptive)]


class OnRollouts(OnSamples, ABC):
    """Of policy gradients over rollouts."""

    updates: Count = 1
    """Optimizer steps for each collection. The clip acts only when there are several."""
    kl_coef: KLCoefficient = 0.0
    """Weight of the KL to the start model; 0: no such model is held. {target: 0.1} makes it follow that KL."""
    entropy_coef: EntropyCoefficient = 0.0
    """Bonus on the policy's entropy. {target: 0.3} makes it follow that entropy."""
    correction: Correction | None = None
    """For the gap between sampler and trainer; none if not set."""
    old: Literal["trainer", "sampler"] = "trainer"
    """Whose log-probs pi_old is made of: the trainer's own forward, or what the engine reported, which saves that forward."""

    @model_validator(mode="after")
    def _has_one_gap(self) -> OnRollouts:
        if self.old == "sampler" and self.correction is not None:
            raise ValueError("correction: with old: sampler there is no gap between sampler and pi_old to correct")
        return self


def _has_others(rollouts: int) -> int:
    if rollouts < 2:
        raise ValueError("a group of one has no baseline, and nothing could be learnt: set rollout.n to 2 or more")
    return rollouts


GroupSize = Annotated[int, AfterValidator(_has_others)]


class Grouped(OnRollouts, ABC):
    """Of algorithms that compare an answer with its group, and may divide by the spread of that."""

    divides: ClassVar[bool] = True
    """By a standard deviation, always or where `std` says so."""

    rollouts: GroupSize = 8
    std_eps: Positive = 1e-4
    """Added to the standard deviation of a group's rewards where advantages are divided by it."""

    def unread(self) -> Mapping[str, str]:
        """See `AlgorithmConfig`."""
        if self.divides and getattr(self, "std", True):
            return {}
        return {"std_eps": "std: true" if self.divides else "an algorithm that divides by a standard deviation"}


class Hybrid(Grouped, ABC):
    """Of algorithms over rollouts and demonstrations."""


class OnGroups(Grouped, ABC):
    """Of algorithms with a group's baseline: where a KL to the start model goes, and how."""

    kl: Literal["k1", "k2", "k3", "unbiased"] | None = None
    """The estimate of KL(pi || start); k3 in the loss and k1 in the reward where it is not set. unbiased is k3 times the
    ratio to pi_old, whose gradient is that of the KL itself at every update (DeepSeek-V3.2)."""
    kl_in: Literal["loss", "reward"] = "loss"
    """A term of the loss, or taken from the reward before advantages are made."""
    off_policy_mask: Positive | None = None
    """A row of negative advantage leaves the loss where the sampler's log-probs are above the policy's by more than this, on
    average over its tokens; none does if not set (off-policy sequence mask, DeepSeek-V3.2)."""

    @model_validator(mode="after")
    def _kl_has_a_gradient(self) -> OnGroups:
        if self.kl_in == "loss" and self.kl == "k1":
            raise ValueError("kl: k1 in the loss has an expected gradient of zero; take k2, k3 or unbiased, or kl_in: reward")
        if self.kl_in == "reward" and self.kl not in (None, "k1"):
            raise ValueError(f"kl: the reward takes k1, and {self.kl} was asked for")
        return self
