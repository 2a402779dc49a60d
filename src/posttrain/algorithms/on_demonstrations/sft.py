"""Supervised fine-tuning: maximum likelihood of demonstrations.

mask 1, pi_ref = pi_theta (detached), A = 1, N = tokens        L = - sum_t log p_t / N

`weights` reads the columns weight and weights of the data: A = w, and N is the number of tokens (per_token: a weight of 0
leaves the loss and stays in N), or the sum of the weights (per_weight), as for the key tokens of a tool's call in TL-Training
(arXiv:2412.15495; the mean as its code has it; which tokens are key is the data's matter).

`kl_coef` adds the forward KL(pi_start || pi_theta) over the whole vocabulary, at every token, as ASFT adds it to DFT (ours).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from posttrain.algorithms.options import OnDemonstrations
from posttrain.settings.base import NonNegative

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class SFT(OnDemonstrations):
    """Supervised fine-tuning."""

    name: Literal["sft"] = "sft"
    weights: Literal["unread", "per_token", "per_weight"] = "unread"
    """The columns weight and weights: not read; or read, with N the number of tokens, or the sum of their weights."""
    kl_coef: NonNegative = 0.0
    """Weight of the full-vocabulary KL to the start model; 0: no such model is held."""

    def build(self) -> Algorithm:
        """The row in which nothing weighs, or what the data say."""
        from posttrain.algorithms.on_demonstrations._start import kl_to_start
        from posttrain.estimator import Algorithm, Estimator, Metric, Needs, Term
        from posttrain.estimator.parts import advantage, average, denominator, metric
        from posttrain.estimator.parts.credit import baseline, weight

        read = self.weights != "unread"
        given = Estimator(denominator=denominator.current, advantage=advantage.given if read else advantage.one)
        return Algorithm(
            name=self.name,
            paper="arXiv:2203.02155",
            needs=Needs(scope="token", demonstration="row", weight="weight" if read else "none", full_kl=self.kl_coef > 0),
            terms=(
                Term(
                    name="sft",
                    estimator=given,
                    average=average.weighted if self.weights == "per_weight" else average.token,
                    metrics=(Metric("objective/weighted_nll", metric.weighted_nll) if read else Metric("nll", metric.nll),),
                ),
            ),
            penalties=kl_to_start(self.kl_coef),
            credit=weight.as_given if read else baseline.as_given,
        )
