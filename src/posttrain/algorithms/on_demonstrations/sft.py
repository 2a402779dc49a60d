"""Supervised fine-tuning: maximum likelihood of demonstrations.

mask 1, pi_ref = pi_theta (detached), A = 1, N = tokens        L = - sum_t log p_t / N
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from posttrain.algorithms.options import OnDemonstrations

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class SFT(OnDemonstrations):
    """Supervised fine-tuning."""

    name: Literal["sft"] = "sft"

    def build(self) -> Algorithm:
        """The row in which nothing weighs."""
        from posttrain.estimator import Algorithm, Estimator, Metric, Needs, Term
        from posttrain.estimator.parts import advantage, average, denominator, metric

        return Algorithm(
            name=self.name,
            paper="arXiv:2203.02155",
            needs=Needs(scope="token", demonstration="row"),
            terms=(
                Term(
                    name="sft",
                    estimator=Estimator(denominator=denominator.current, advantage=advantage.one),
                    average=average.token,
                    metrics=(Metric("nll", metric.nll),),
                ),
            ),
        )
