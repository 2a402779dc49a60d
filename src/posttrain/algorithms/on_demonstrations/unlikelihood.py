"""Unlikelihood (Welleck et al. 2019, arXiv:1908.04319), on given tokens.

mask 1, pi_ref = 1 - p, A = -1, N = tokens        L = - sum_t log(1 - p_t) / N

The weight p/(1 - p) is large where the policy is sure and nothing where the token is unlikely: unlike that of `ascent` it
ends. Which tokens are negative is the paper's matter (repeats, in its text); here they are the rows' own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from posttrain.algorithms.options import OnDemonstrations

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class Unlikelihood(OnDemonstrations):
    """Unlikelihood of demonstrations, to forget them."""

    name: Literal["unlikelihood"] = "unlikelihood"

    def build(self) -> Algorithm:
        """SFT's row with denominator 1 - p and advantage -1."""
        from posttrain.estimator import Algorithm, Estimator, Metric, Needs, Term
        from posttrain.estimator.parts import advantage, average, denominator, metric

        return Algorithm(
            name=self.name,
            paper="arXiv:1908.04319",
            needs=Needs(scope="token", demonstration="row", unwanted=True),
            terms=(
                Term(
                    name="unlikelihood",
                    estimator=Estimator(denominator=denominator.complement, advantage=advantage.minus_one),
                    average=average.token,
                    metrics=(Metric("objective/unlikelihood", metric.of_its_complement), Metric("nll", metric.nll)),
                ),
            ),
        )
