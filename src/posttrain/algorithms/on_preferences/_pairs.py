"""What losses of pairs against a frozen reference share.

m = sum_t(logp - ref) of the chosen completion - the same of the rejected one
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm, Metric, Part


def pairs(name: str, paper: str, pull: Part, native: Metric) -> Algorithm:
    """The algorithm whose advantage is `pull`; N = pairs. `native` is watched beside accuracies and the margin."""
    from posttrain.estimator import Algorithm, Estimator, Metric, Needs, Term
    from posttrain.estimator.parts import average, denominator, metric

    watched = (
        native,
        Metric("preference/accuracy", metric.preference_accuracy),
        Metric("preference/raw_accuracy", metric.raw_accuracy),
        Metric("preference/margin", metric.preference_margin),
        Metric("logp/chosen", metric.chosen_logp),
    )
    return Algorithm(
        name=name,
        paper=paper,
        needs=Needs(scope="sequence", preference=True, ref_logp=True),
        terms=(
            Term(
                name=name,
                estimator=Estimator(denominator=denominator.current, advantage=pull),
                average=average.pair,
                metrics=watched,
            ),
        ),
    )
