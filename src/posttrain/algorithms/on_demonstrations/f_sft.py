"""SFT by other f-divergences (Wang et al. 2025, arXiv:2507.00018): its loss is that of an implicit reward's learning.

q = beta (logp - start) of a token; mask 1, pi_ref = pi_theta (detached), N = tokens, A = beta times

    tv 1 (SFT's, times beta)    chi2 1 - q/2    hellinger 1/(1 + q)²    kl exp(-q - 1)    js 1/(2 exp(q) - 1)

of the losses -q, -q + q²/4, -q/(1 + q), exp(-q - 1), -log(2 - exp(-q)). At the start each is beta times SFT's gradient,
kl beta/e times. The abstract alone could be read: that SFT is the case of total variation, and that other divergences
help, is the paper's; the formulas are derived here, and the value function's terms of the full dual are left out, a
heuristic. hellinger and js end where q falls to -1 and -log 2: nearer than `guard` the weight is held, and such tokens
are counted.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from posttrain.algorithms.options import OnDemonstrations
from posttrain.settings.base import Positive

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class FSFT(OnDemonstrations):
    """SFT by another f-divergence than total variation."""

    name: Literal["f_sft"] = "f_sft"
    divergence: Literal["tv", "chi2", "hellinger", "kl", "js"] = "chi2"
    """By which the implicit reward is learnt; tv is SFT."""
    beta: Positive = 0.1
    """Of the implicit reward, beta · log(pi / start)."""
    guard: Annotated[float, Field(gt=0, lt=0.6)] = 0.1
    """How near to the end of its domain the weight of hellinger and js is held."""

    def unread(self) -> dict[str, str]:
        """See `AlgorithmConfig`."""
        return {} if self.divergence in ("hellinger", "js") else {"guard": "divergence: hellinger or js"}

    def build(self) -> Algorithm:
        """SFT's row, weighted by a slope of the implicit reward."""
        from posttrain.algorithms.on_demonstrations import _implicit_reward as by
        from posttrain.estimator import Algorithm, Estimator, Metric, Needs, Term
        from posttrain.estimator.parts import average, denominator, metric

        slopes: dict[str, by.Slope] = {
            "tv": by.total_variation,
            "chi2": by.chi_squared,
            "hellinger": by.hellinger,
            "kl": by.kullback_leibler,
            "js": by.jensen_shannon,
        }
        options: Any = {"slope": slopes[self.divergence], "beta": self.beta, "guard": self.guard}
        term = Term(
            name="f_sft",
            estimator=Estimator(denominator=denominator.current, advantage=partial(by.pull, **options)),
            average=average.token,
            metrics=(
                Metric("nll", metric.nll),
                Metric("implicit_reward", partial(by.implicit_reward, beta=self.beta)),
                Metric("implicit_reward/held_fraction", partial(by.held, **options)),
            ),
        )
        return Algorithm(
            name=self.name,
            paper="arXiv:2507.00018",
            needs=Needs(scope="token", demonstration="row", ref_logp=True),
            terms=(term,),
        )
