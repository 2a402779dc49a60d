"""What DFT and its anchored form share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from posttrain.estimator import Term


def dft_term() -> Term:
    """SFT's row with denominator 1: the gradient of the mean of 1 - p."""
    from posttrain.estimator import Estimator, Metric, Term
    from posttrain.estimator.parts import advantage, average, denominator, metric

    return Term(
        name="dft",
        estimator=Estimator(denominator=denominator.unit, advantage=advantage.one),
        average=average.token,
        metrics=(Metric("objective/dft", metric.missed_probability), Metric("nll", metric.nll)),
    )
