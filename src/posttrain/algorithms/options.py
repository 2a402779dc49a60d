"""What algorithms over rollouts, and those over demonstrations beside them, can be told alike."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from posttrain.settings.base import Config, NonNegative, Positive


class Correction(Config):
    """Importance correction for the gap between sampler and trainer: exp of the log-ratio, bounded by `cap`."""

    level: Literal["token", "sequence", "geometric"] = "token"
    form: Literal["truncate", "mask"] = "truncate"
    cap: Annotated[float, Field(gt=1)] = 2.0


class OnPolicyConfig(Config):
    """What every algorithm over rollouts can be told."""

    reads_verdict: ClassVar[bool] = False
    """It asks which rollouts are right, beside their rewards."""

    rollouts: Annotated[int, Field(ge=1)] = 8
    """Completions for each question. The recipe fills it from `rollout.n`."""
    updates: Annotated[int, Field(ge=1)] = 1
    """Optimizer steps for each collection. The clip acts only when there are several."""
    kl_coef: NonNegative = 0.0
    entropy_coef: NonNegative = 0.0
    """Bonus on the policy's entropy."""
    correction: Correction | None = None
    old: Literal["trainer", "sampler"] = "trainer"
    """Whose log-probs pi_old is made of: the trainer's own forward, or what the engine reported, which saves that forward."""

    @model_validator(mode="after")
    def _has_one_gap(self) -> OnPolicyConfig:
        if self.old == "sampler" and self.correction is not None:
            raise ValueError("correction: with old: sampler there is no gap between sampler and pi_old to correct")
        return self


def _has_others(rollouts: int) -> int:
    if rollouts < 2:
        raise ValueError("a group of one has no baseline, and nothing could be learnt: set rollout.n to 2 or more")
    return rollouts


GroupSize = Annotated[int, AfterValidator(_has_others)]


class HybridConfig(OnPolicyConfig):
    """What algorithms over rollouts and demonstrations can be told."""

    rollouts: GroupSize = 8
    std_eps: Positive = 1e-4


class GroupConfig(OnPolicyConfig):
    """What algorithms with a group's baseline can be told besides: where a KL to the start model goes, and how."""

    rollouts: GroupSize = 8
    kl: Literal["k1", "k2", "k3"] | None = None
    """The estimate of KL(pi || start); k3 in the loss and k1 in the reward where it is not set."""
    kl_in: Literal["loss", "reward"] = "loss"
    std_eps: Positive = 1e-4

    @model_validator(mode="after")
    def _kl_has_a_gradient(self) -> GroupConfig:
        if self.kl_in == "loss" and self.kl == "k1":
            raise ValueError("kl: k1 in the loss has an expected gradient of zero; take k2 or k3, or kl_in: reward")
        if self.kl_in == "reward" and self.kl not in (None, "k1"):
            raise ValueError(f"kl: the reward takes k1, and {self.kl} was asked for")
        return self
