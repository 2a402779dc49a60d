"""Direct reward optimization (arXiv:2405.19107), as verl and Tinker have it for rollouts.

mask 1, pi_ref = pi_theta (detached), A = (R - mean)/(std + e) of the group, N = tokens;
and a second term with A = -log(pi/pi_old), times beta

The objective is A log pi - beta/2 · log(pi/pi_old)² of every token: the square holds the policy near who sampled, and there
is no ratio. Read in Tinker's documentation and verl's; the paper learns a value beside it, which is here the group's mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from posttrain.algorithms.on_rollouts._groups import over_groups
from posttrain.algorithms.options import OnGroups
from posttrain.settings.base import NonNegative

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class DRO(OnGroups):
    """Direct reward optimization."""

    name: Literal["dro"] = "dro"
    beta: NonNegative = 0.1
    """How strongly log-probs are held where they were."""
    std: bool = True
    """Advantages are divided by the std of the group's rewards."""

    def build(self) -> Algorithm:
        """The square's gradient is a term of its own."""
        from posttrain.algorithms.terms import group_credit
        from posttrain.estimator import Estimator, Term
        from posttrain.estimator.parts import advantage, average, denominator, mask

        back = Estimator(denominator=denominator.current, advantage=advantage.drift)
        drift = Term(name="drift", estimator=back, average=average.token, coef=self.beta)

        return over_groups(
            self,
            paper="arXiv:2405.19107",
            ratio=denominator.current,
            mask=mask.keep,
            credit=group_credit(self.std, self.std_eps),
            per=average.token,
            beside=(drift,) if self.beta else (),
        )
