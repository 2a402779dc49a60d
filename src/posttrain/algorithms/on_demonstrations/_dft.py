"""What DFT and its anchored form share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from posttrain.estimator import Term


def dft_terms(sft_coef: float) -> tuple[Term, ...]:
    """SFT's row with denominator 1: the gradient of the mean of 1 - p; and sft_coef · SFT's own beside it."""
    from posttrain.estimator import Estimator, Metric, Term
    from posttrain.estimator.parts import advantage, average, denominator, metric

    dft = Term(
        name="dft",
        estimator=Estimator(denominator=denominator.unit, advantage=advantage.one),
        average=average.token,
        metrics=(Metric("objective/dft", metric.missed_probability), Metric("nll", metric.nll)),
    )
    likelihood = Estimator(denominator=denominator.current, advantage=advantage.one)
    return (dft, Term(name="sft", estimator=likelihood, average=average.token, coef=sft_coef)) if sft_coef else (dft,)
