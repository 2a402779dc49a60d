"""Forget some rows and keep others: the gradient difference of TOFU (Maini et al. 2024, arXiv:2401.06121), and NPO's of it.

    forget:  mask 1, pi_ref = pi_theta, A = -1, N = their tokens (ascent);  or A = -2 sigmoid(beta m), N = their rows (npo)
    retain:  mask 1, pi_ref = pi_theta, A = 1,  N = their tokens, times retain_coef
             + kl_coef · KL(pi_start || pi_theta) over the whole vocabulary, at each of their tokens

The column forget is true where a row is to be forgotten. Each part has its own N, of the whole step, so that neither
pulls more for having more rows. `forget: npo` with rows to retain is NPO+RT of arXiv:2404.05868.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from posttrain.algorithms.options import OnDemonstrations
from posttrain.settings.base import NonNegative, Positive

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class ForgetRetain(OnDemonstrations):
    """Some demonstrations are forgotten, others kept."""

    name: Literal["forget_retain"] = "forget_retain"
    forget: Literal["ascent", "npo"] = "ascent"
    """How the likelihood of rows to be forgotten is lowered: without end, or bounded by the start model's."""
    beta: Positive = 0.1
    """Of npo: how soon an answer that has become less likely than at the start is left alone."""
    forget_coef: NonNegative = 1.0
    """Weight of the rows to be forgotten."""
    retain_coef: NonNegative = 1.0
    """Weight of the likelihood of the others."""
    kl_coef: NonNegative = 0.0
    """Weight of the full-vocabulary KL to the start model on the others; 0: none is made."""

    def unread(self) -> dict[str, str]:
        """See `AlgorithmConfig`."""
        return {} if self.forget == "npo" else {"beta": "forget: npo"}

    def build(self) -> Algorithm:
        """Two terms over disjoint rows."""
        from posttrain.algorithms.on_demonstrations._forget import ascent_term, npo_term
        from posttrain.algorithms.on_demonstrations._start import kl_to_start
        from posttrain.estimator import Algorithm, Estimator, Metric, Needs, Term
        from posttrain.estimator.parts import advantage, average, denominator, metric, select
        from posttrain.estimator.parts.credit import weight

        bounded, chosen = self.forget == "npo", {"select": select.unwanted, "coef": self.forget_coef}
        lowered = npo_term("forget", self.beta, **chosen) if bounded else ascent_term("forget", **chosen)
        retain = Term(
            name="retain",
            estimator=Estimator(denominator=denominator.current, advantage=advantage.one),
            average=average.token,
            select=select.wanted,
            coef=self.retain_coef,
            metrics=(Metric("nll/retain", metric.nll),),
        )
        return Algorithm(
            name=self.name,
            paper="arXiv:2401.06121",
            needs=Needs(
                scope="sequence" if bounded else "token",
                demonstration="row",
                weight="forget",
                ref_logp=bounded,
                full_kl=self.kl_coef > 0,
            ),
            terms=(lowered, retain),
            penalties=kl_to_start(self.kl_coef, select.wanted),
            credit=weight.as_given,
        )
