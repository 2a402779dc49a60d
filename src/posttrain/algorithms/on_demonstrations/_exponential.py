"""What regressions on exponential weights share."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


def exponential(name: str, paper: str, worth: Literal["reward", "advantage"], *, beta: float, cap: float) -> Algorithm:
    """SFT whose rows weigh min(exp(worth / beta), cap); N = tokens."""
    from posttrain.estimator import Algorithm, Estimator, Metric, Needs, Term
    from posttrain.estimator.parts import advantage, average, denominator, metric
    from posttrain.estimator.parts.credit import weight

    term = Term(
        name=name,
        estimator=Estimator(denominator=denominator.current, advantage=advantage.given),
        average=average.token,
        metrics=(Metric("objective/weighted_nll", metric.weighted_nll), Metric("nll", metric.nll)),
    )
    return Algorithm(
        name=name,
        paper=paper,
        needs=Needs(scope="token", demonstration="row", weight=worth),
        terms=(term,),
        credit=partial(weight.exponential, beta=beta, cap=cap),
    )
