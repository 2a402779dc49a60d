"""REINFORCE leave-one-out (Ahmadian et al. 2024, arXiv:2402.14740).

    mask 1, pi_ref = pi_theta (detached), A = R_i - mean(R of the others), N = rows, s = 1

With several updates the ratio is that of the whole row, pi(y)/pi_old(y), clipped as in TRL.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from posttrain.algorithms.on_rollouts._row_action import row_action
from posttrain.algorithms.options import GroupSize, KLCoefficient, OnRollouts
from posttrain.settings.base import NonNegative

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class RLOO(OnRollouts):
    """REINFORCE leave-one-out."""

    name: Literal["rloo"] = "rloo"
    rollouts: GroupSize = 8
    kl_coef: KLCoefficient = 0.05
    clip_low: NonNegative = 0.2
    """An answer of negative advantage leaves the loss where its ratio is below 1 - this."""
    clip_high: NonNegative = 0.2
    """An answer of positive advantage leaves the loss where its ratio is above 1 + this."""

    def build(self) -> Algorithm:
        """The baseline is the mean of the other rollouts of the question."""
        from posttrain.estimator.parts import denominator, mask
        from posttrain.estimator.parts.credit import baseline

        several = self.updates > 1
        ratio = denominator.old_sequence if several else denominator.current
        clip = partial(mask.ppo_clip, low=self.clip_low, high=self.clip_high) if several else mask.keep
        return row_action(self, "arXiv:2402.14740", credit=baseline.leave_one_out, ratio=ratio, mask=clip)
