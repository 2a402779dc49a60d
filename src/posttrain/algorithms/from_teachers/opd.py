"""On-policy distillation: the student's own rollouts, each token weighed by what a teacher q says of it.

    mask of PPO, pi_ref = pi_old, A_t = log q(y_t) - log pi_old(y_t), within ±kl_max, + reward_coef · A_grpo, N = tokens

Over the student's tokens at a state the expectation of this gradient is that of the whole KL(pi || q) there, as far as
kl_max does not act (derived, and tested by enumeration); no baseline is needed, and the tokens after y_t have no part in A_t
(a discount of 0). It is GKD (arXiv:2306.13649) on the student's rollouts alone with the reverse KL, estimated on the sampled
tokens. With reward_coef the verifier's reward, normalised in its group, is added: distillation and GRPO in one advantage,
which is ours. That the bound is 10 is recalled from verl.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pydantic import model_validator

from posttrain.algorithms.options import OnRollouts, Taught
from posttrain.settings.base import NonNegative, Positive

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class OPD(Taught, OnRollouts):
    """On-policy distillation from a teacher."""

    name: Literal["opd"] = "opd"
    reward_coef: NonNegative = 0.0
    """Weight of the rewards' advantage, normalised in its group, beside the teacher's; 0: no rewards are needed."""
    kl_max: Positive = 10.0
    """The bound of |log q - log pi_old|, in nats."""
    clip: bool = True
    """PPO's clip; it acts only with several updates a collection."""
    clip_low: NonNegative = 0.2
    """A token of negative advantage leaves the loss where its ratio is below 1 - this."""
    clip_high: NonNegative = 0.2
    """A token of positive advantage leaves the loss where its ratio is above 1 + this."""
    std_eps: Positive = 1e-4
    """Added to the standard deviation of a group's rewards."""

    @model_validator(mode="after")
    def _has_groups(self) -> OPD:
        if self.reward_coef and self.rollouts < 2:
            raise ValueError("reward_coef: a group of one has no baseline: set rollout.n to 2 or more")
        return self

    def unread(self) -> dict[str, str]:
        """See `AlgorithmConfig`."""
        clipped = {} if self.clip else {"clip_low": "clip: true", "clip_high": "clip: true"}
        return clipped if self.reward_coef else {**clipped, "std_eps": "reward_coef above 0"}

    @property
    def learns_from_rewards(self) -> bool:
        """See `AlgorithmConfig`."""
        return self.reward_coef > 0

    def build(self) -> Algorithm:
        """The table's row `opd`."""
        from posttrain.algorithms.from_teachers._parts import towards_teacher
        from posttrain.algorithms.terms import clip_mask, correction_part, entropy_penalties, kl_terms, needs
        from posttrain.estimator import Algorithm
        from posttrain.estimator.parts import average
        from posttrain.estimator.parts.credit import baseline

        policy = towards_teacher(
            kl_max=self.kl_max,
            reward_coef=self.reward_coef,
            mask=clip_mask(self.clip, self.clip_low, self.clip_high),
            correction=correction_part(self.correction),
        )
        rewarded: Any = {"credit": partial(baseline.group_normalised, eps=self.std_eps)} if self.reward_coef else {}
        return Algorithm(
            name=self.name,
            paper="arXiv:2306.13649",
            needs=needs(self, teacher="logp", teacher_template=self.teacher_template or ""),
            terms=(policy, *kl_terms(self.kl_coef, "k3", average.token)),
            penalties=entropy_penalties(self.entropy_coef),
            **rewarded,
        )
