"""A*-PO (arXiv:2505.20686): regression of the log-ratio to the start model on the advantage over the best policy near it.

    mask 1, pi_ref = pi_theta (detached), A = 2 beta (R - V* - beta log(pi(y)/pi_start(y))), N = rows, s = 1

which is the gradient of (beta log(pi/pi_start) - (R - V*))². V*(x) = b log mean exp(R/b) of answers of the start model is a
column `value` of the questions: `data.collect: {value: {k: 8, beta: 0.5}}` samples these answers, makes it, and drops the
questions of which none was right. One answer a question is enough, and there is no other KL. Read in TRL's code, whose step
is this one.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from posttrain.algorithms.options import OnSamples
from posttrain.settings.base import Count, Positive

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class AStarPO(OnSamples):
    """Optimal advantage regression."""

    beside_rollouts: ClassVar[bool] = True

    name: Literal["a_star_po"] = "a_star_po"
    rollouts: Count = 1
    updates: Literal[1] = 1
    """Optimizer steps for each collection."""
    beta: Positive = 1e-3
    """Reward that a nat of the answer's log-ratio to the start model is worth."""

    def build(self) -> Algorithm:
        """A squared loss of rows."""
        from posttrain.estimator import Algorithm, Estimator, Metric, Needs, Term
        from posttrain.estimator.parts import advantage, average, denominator, metric
        from posttrain.estimator.parts.credit import baseline

        regression = Estimator(denominator=denominator.current, advantage=partial(advantage.left_of_ratio, beta=self.beta))
        objective = Metric("objective/a_star_po", partial(metric.squared_rest, beta=self.beta))
        policy = Term(name="policy", estimator=regression, average=average.sequence_sum, metrics=(objective,))
        return Algorithm(
            name=self.name,
            paper="arXiv:2505.20686",
            needs=Needs(scope="sequence", rollouts=self.rollouts, ref_logp=True, baseline="value"),
            terms=(policy,),
            credit=baseline.over_baseline,
        )
