"""What forgetting demonstrations takes: terms that lower their likelihood."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from posttrain.estimator import Select, Term


def ascent_term(name: str, select: Select | None = None, coef: float = 1.0) -> Term:
    """Minus SFT's, N = tokens."""
    from posttrain.estimator import Estimator, Metric, Term
    from posttrain.estimator.parts import advantage, average, denominator, metric
    from posttrain.estimator.parts.select import everything

    return Term(
        name=name,
        estimator=Estimator(denominator=denominator.current, advantage=advantage.minus_one),
        average=average.token,
        select=select or everything,
        coef=coef,
        metrics=(Metric("nll" if select is None else f"nll/{name}", metric.nll),),
    )


def npo_term(name: str, beta: float, select: Select | None = None, coef: float = 1.0) -> Term:
    """-(2/beta) log sigmoid(-beta m), m = sum_t (logp - start) of an answer; N = rows."""
    from posttrain.estimator import Estimator, Metric, Term
    from posttrain.estimator.parts import advantage, average, denominator, metric
    from posttrain.estimator.parts.select import everything

    return Term(
        name=name,
        estimator=Estimator(denominator=denominator.current, advantage=partial(advantage.not_preferred, beta=beta)),
        average=average.sequence_sum,
        select=select or everything,
        coef=coef,
        metrics=(Metric("logp/forgotten", metric.each_logp),),
    )
