"""Proximal SFT (arXiv:2508.17784): PPO's clip on demonstrations, with advantage 1.

    mask r <= 1 + clip_high, pi_ref = pi_old, A = 1, N = tokens        L = - sum_t min(r_t, clip(r_t)) / N

pi_old is the policy at the start of each window of `updates` optimizer steps; in the first of them r = 1 and the
gradient is SFT's. The lower clip never acts, since A > 0; it stands in the paper's settings and so here.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from posttrain.algorithms.options import OnDemonstrations
from posttrain.settings.base import Count, NonNegative

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class PSFT(OnDemonstrations):
    """Proximal SFT."""

    name: Literal["psft"] = "psft"
    clip_low: NonNegative = 0.2
    """As in PPO; demonstrations have the advantage 1, on which it does not act."""
    clip_high: NonNegative = 0.28
    """A token of positive advantage leaves the loss where its ratio is above 1 + this."""
    updates: Count = 8
    """Optimizer steps between refreshes of pi_old: the paper's batch of 64 in mini-batches of 8."""

    def build(self) -> Algorithm:
        """PPO's row over demonstrations."""
        from posttrain.estimator import Algorithm, Estimator, Metric, Needs, Term
        from posttrain.estimator.parts import advantage, average, denominator, mask, metric

        return Algorithm(
            name=self.name,
            paper="arXiv:2508.17784",
            needs=Needs(scope="token", demonstration="row", updates=self.updates, old_logp=self.updates > 1, memory="window"),
            terms=(
                Term(
                    name="psft",
                    estimator=Estimator(
                        denominator=denominator.old,
                        advantage=advantage.one,
                        mask=partial(mask.ppo_clip, low=self.clip_low, high=self.clip_high),
                    ),
                    average=average.token,
                    metrics=(Metric("nll", metric.nll),),
                ),
            ),
        )
