"""KL-Cov (arXiv:2505.22617): the tokens that drive the entropy down most are held near where they were.

mask 1, ratio r = pi/pi_old, A = (R - mean)/(std + e) of the group, N = tokens;
and a second term, times kl_cov_coef, with A = -sign(log r) on the `share` of tokens of largest covariance
(A - mean A)(log pi_old - mean log pi_old), 0 on the others, N = the same

There is no clip. The penalty is |log r|, which is flat in the first update of a collection: with one update for each it
does nothing. Covariances are taken once per collection, of the policy that collected; the authors take the current
policy's in each micro-batch. Read in verl's code; the paper has 2e-3 for a model of 7B, and 2e-4 was recalled for 32B.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from posttrain.algorithms.on_rollouts._groups import over_groups
from posttrain.algorithms.options import OnGroups
from posttrain.settings.base import NonNegative

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class KLCov(OnGroups):
    """Tokens of high covariance are held where they were."""

    measures_tokens = True

    name: Literal["kl_cov"] = "kl_cov"
    share: Annotated[float, Field(gt=0, le=1)] = 2e-3
    """Of all tokens, how many are held; at least one."""
    kl_cov_coef: NonNegative = 1.0
    """How strongly they are held."""

    def build(self) -> Algorithm:
        """The marks are made once, with the collection."""
        from posttrain.estimator import Estimator, Term
        from posttrain.estimator.parts import advantage, average, denominator, mask
        from posttrain.estimator.parts.credit import baseline, tokens

        held = Estimator(denominator=denominator.current, advantage=advantage.marked_drift_sign)
        plain = partial(baseline.group_normalised, eps=self.std_eps)
        marked = partial(tokens.mark_covariant, share=self.share)
        return over_groups(
            self,
            paper="arXiv:2505.22617",
            ratio=denominator.old,
            mask=mask.keep,
            credit=partial(baseline.in_turn, steps=(plain, marked)),
            per=average.token,
            beside=(Term(name="held", estimator=held, average=average.token, coef=self.kl_cov_coef),),
            old_logp=True,
        )
