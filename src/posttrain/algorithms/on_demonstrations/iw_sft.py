"""Importance-weighted SFT (Qin and Springenberg 2025, arXiv:2507.12856).

    mask 1, pi_ref = pi_theta (detached), A = min((pi(y)/pi_start(y))^(exponent/|y|), max_weight), N = tokens

A tighter bound on the RL objective over curated data than SFT's. One weight for the row, of its length-averaged
log-ratio, as in the official code; it is 1 at the start and feeds on itself, hence the bound. The official class has the
exponent 2 by default, its scripts 1.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from posttrain.algorithms.options import OnDemonstrations
from posttrain.settings.base import Positive

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class IWSFT(OnDemonstrations):
    """Importance-weighted SFT."""

    name: Literal["iw_sft"] = "iw_sft"
    exponent: Positive = 1.0
    """Of the weight: the ratio of policy to start model, as its geometric mean over the answer's tokens."""
    max_weight: Positive = 16.0
    """The largest weight of an answer."""

    def build(self) -> Algorithm:
        """SFT's row with the sequence's importance weight as advantage."""
        from posttrain.estimator import Algorithm, Estimator, Metric, Needs, Term
        from posttrain.estimator.parts import advantage, average, denominator, metric

        weight = partial(advantage.importance, exponent=self.exponent, max_weight=self.max_weight)
        return Algorithm(
            name=self.name,
            paper="arXiv:2507.12856",
            needs=Needs(scope="sequence", demonstration="row", ref_logp=True),
            terms=(
                Term(
                    name="iw_sft",
                    estimator=Estimator(denominator=denominator.current, advantage=weight),
                    average=average.token,
                    metrics=(Metric("nll", metric.nll),),
                ),
            ),
        )
