"""GRPO and SFT in a fixed mix: "RL with SFT loss", the plain baseline of the hybrids (arXiv:2504.14945, section 4).

    rollouts:        mask of PPO, pi_ref = pi_old,    A = (R - mean)/(std + e),  N = rows, s = 1/|y|
    demonstrations:  mask 1,      pi_ref = pi_theta,  A = 1,                     N = tokens, times sft_coef

Every question's demonstration is trained on, whatever its rollouts did; it is in no baseline.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from posttrain.algorithms.options import Hybrid
from posttrain.settings.base import NonNegative

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class GRPOSFT(Hybrid):
    """GRPO with an SFT loss beside it."""

    beside_rollouts: ClassVar[bool] = True

    name: Literal["grpo_sft"] = "grpo_sft"
    sft_coef: NonNegative = 1.0
    """Weight of the SFT loss."""
    clip_low: NonNegative = 0.2
    """A token of negative advantage leaves the loss where its ratio is below 1 - this."""
    clip_high: NonNegative = 0.2
    """A token of positive advantage leaves the loss where its ratio is above 1 + this."""

    def build(self) -> Algorithm:
        """Two terms over disjoint rows."""
        from posttrain.algorithms.terms import (
            clip_mask,
            entropy_penalties,
            group_credit,
            kl_terms,
            needs,
            policy_term,
            sft_term,
        )
        from posttrain.estimator import Algorithm
        from posttrain.estimator.parts import average, select
        from posttrain.estimator.parts.credit import baseline

        clip = clip_mask(True, self.clip_low, self.clip_high)
        return Algorithm(
            name=self.name,
            paper="arXiv:2504.14945",
            needs=needs(self, demonstration="row"),
            terms=(
                policy_term(self, average.sequence_mean, mask=clip, select=select.rollouts),
                sft_term(self.sft_coef, average.token),
                *kl_terms(self.kl_coef, "k3", average.sequence_mean, select.rollouts),
            ),
            penalties=entropy_penalties(self.entropy_coef),
            credit=partial(baseline.of_rollouts, credit=group_credit(True, self.std_eps)),
        )
